import pytest
import torch
from transformers import get_linear_schedule_with_warmup

from limber_interp.config import LimberConfig
from limber_interp.training.schedule import rate


def config(**settings: float | None) -> LimberConfig:
    return LimberConfig(encoder_name="emoji_beit", image_size=8, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(("warmup", "decay"), [(4, 10), (1, 3), (5, 5)])
def test_the_rates_are_those_of_hugging_faces_linear_schedule(warmup: int, decay: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = get_linear_schedule_with_warmup(optimizer, warmup, decay)
    expected = []
    for _ in range(decay + 3):
        expected.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    ours = config(lr=0.5, warmup_num_steps=warmup, lr_decay_iters=decay)
    assert [rate(ours, step) for step in range(decay + 3)] == pytest.approx(expected)


def test_min_lr_is_where_it_begins_and_ends() -> None:
    """DeepSpeed's schedulers, used as they are, have `min_lr` in the first two steps."""
    ours = config(lr=0.5, min_lr=0.1, warmup_num_steps=2, lr_decay_iters=6)
    assert [rate(ours, step) for step in range(8)] == pytest.approx([0.1, 0.3, 0.5, 0.4, 0.3, 0.2, 0.1, 0.1])


def test_without_a_decay_it_stays() -> None:
    ours = config(lr=0.5, warmup_num_steps=2, lr_decay_iters=None)
    assert [rate(ours, step) for step in (0, 1, 2, 3, 10**6)] == [0.0, 0.25, 0.5, 0.5, 0.5]
