import pytest
import torch

from limber_interp.errors import InputError
from limber_interp.probes.controls import (
    DESCRIPTIONS,
    Substitutes,
    controls_of,
    derangement,
    generator,
    noise,
    random_map,
)


@pytest.fixture
def soft_prompt() -> torch.Tensor:
    return torch.randn(4, 8, generator=torch.Generator().manual_seed(0)) * torch.tensor([[0.1], [1.0], [10.0], [0.0]])


def test_controls_have_the_norms_of_the_soft_prompt(soft_prompt):
    encoding = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    for drawn in (
        noise(soft_prompt, 5, generator(0, "noise", 0)),
        random_map(encoding, soft_prompt, 5, generator(0, "random_map", 0)),
    ):
        assert drawn.shape == (5, 4, 8)
        torch.testing.assert_close(drawn.norm(dim=-1), soft_prompt.norm(dim=-1).expand(5, 4))
        directions = torch.nn.functional.normalize(drawn[:, 0], dim=-1)
        assert (directions @ directions.T - torch.eye(5)).abs().max() < 0.99  # no draw is another's


@pytest.mark.parametrize("d_encoder", [3, 40])  # more and fewer positions than dimensions
def test_a_random_map_keeps_angles_on_average(d_encoder):
    """As a map that is written down does: before rescaling, the mean of (E R)(E R)ᵀ / d_model is E Eᵀ."""
    encoding = torch.randn(6, d_encoder, generator=torch.Generator().manual_seed(2)) + 0.5
    drawn = random_map(encoding, torch.ones(6, 64), 4000, generator(0, "random_map", 0))
    found = (drawn @ drawn.mT / drawn.norm(dim=-1)[:, :, None] / drawn.norm(dim=-1)[:, None]).mean(0)

    written_down = torch.randn(1000, d_encoder, 64, generator=torch.Generator().manual_seed(3))
    mapped = torch.nn.functional.normalize(encoding @ written_down, dim=-1)
    torch.testing.assert_close(found, (mapped @ mapped.mT).mean(0), rtol=0, atol=0.02)


def test_noise_has_no_direction(soft_prompt):
    drawn = noise(soft_prompt[:3], 4000, generator(0, "noise", 0))
    directions = torch.nn.functional.normalize(drawn, dim=-1)
    assert directions.mean(0).abs().max() < 0.03
    between = (directions @ directions.mT).mean(0)
    torch.testing.assert_close(between, torch.eye(3), rtol=0, atol=0.03)


def test_a_pooled_encoder_with_several_tokens():
    """One vector, three rows of the prompt: the map gives each row its own outputs."""
    soft_prompt = torch.ones(3, 8)
    drawn = random_map(torch.randn(1, 6), soft_prompt, 2, generator(0, "random_map", 0))
    assert drawn.shape == (2, 3, 8)
    assert torch.cosine_similarity(drawn[:, 0], drawn[:, 1], dim=-1).abs().max() < 0.999


def test_streams_differ_by_seed_control_and_image():
    def first(*key) -> float:
        return torch.rand(1, generator=generator(*key)).item()

    keys = [(0, "noise", 0), (1, "noise", 0), (0, "random_map", 0), (0, "noise", 1), (0, "noise", 11), (0, "noise", 10)]
    assert len({first(*key) for key in keys}) == len(keys)
    assert first(0, "noise", 0) == first(0, "noise", 0)


def test_levels():
    assert controls_of(True) == controls_of("full") == tuple(DESCRIPTIONS)
    assert controls_of("fast") == ("noise", "random_map")
    assert controls_of(False) == controls_of("none") == ()
    with pytest.raises(InputError, match="controls 'some' is unknown; use one of none, fast, full"):
        controls_of("some")


def test_a_random_encoder_is_one_of_the_same_shape(tiny, images):
    """The same for all images of a seed, with the norms of the soft prompt, and not the encoder that is looked at."""
    pixels = tiny.preprocess(images)
    encoding = tiny.encode(pixels)
    soft_prompts = tiny.projection(encoding)
    drawn = [
        Substitutes(tiny, seed).draw("random_encoder", 1, generator(0, "", 0), pixels[0], encoding[0], soft_prompts[0])
        for seed in (0, 0, 1)
    ]
    torch.testing.assert_close(drawn[0], drawn[1], rtol=0, atol=0)
    assert not torch.allclose(drawn[0], drawn[2], rtol=0.1)
    torch.testing.assert_close(drawn[0].norm(dim=-1), soft_prompts[:1].norm(dim=-1))
    encoder = Substitutes(tiny, 0).random_encoder
    assert encoder.drawn
    assert encoder.sha256 != tiny.encoder.sha256
    expected = tiny.projection(encoder(pixels[:1]))
    assert torch.cosine_similarity(drawn[0], expected, dim=-1).min() > 0.9999


@pytest.mark.parametrize("n", [2, 3, 50])
def test_a_derangement_moves_everything(n):
    for seed in range(20):
        order = derangement(n, generator(seed, "derangement", 0))
        assert sorted(order) == list(range(n))
        assert (order != range(n)).all()
