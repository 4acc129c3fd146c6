"""The loss and the gradient of a step are those of all its tokens, however it is cut into micro-batches and ranks."""

import json
import os
import socket
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from limber_interp.config import LimberConfig, load_config
from limber_interp.datasets import open_dataset
from limber_interp.encodings import encode
from limber_interp.models.limber import Limber, load
from limber_interp.training.data import IGNORED, caption_tokens, order
from limber_interp.training.engine import train
from limber_interp.training.examples import Stored
from limber_interp.training.objective import caption_loss
from limber_interp.training.schedule import rate
from limber_interp.weights import read_tensors

STEPS = 4
LONG = "A picture of a small apple above a large boat to the left of a car."


@pytest.fixture
def config(world) -> LimberConfig:
    """Eight examples a step, in float32; the gradient is clipped, and the rate moves."""
    return load_config(
        world.config("clip"), name="tiny", train_steps=STEPS, batch_size=8, lr=0.02, zero_stage=2, bf16=False,
        warmup_num_steps=2, lr_decay_iters=6, gradient_clipping=0.5, image_embed_dropout_prob=0.0, projection="none",
    )  # fmt: skip


@pytest.fixture
def mixed(folder: Path) -> Path:
    """Captions of one word and of sixteen, and one image that does not open: some shares lose all that they had."""
    for index, file in enumerate(sorted(folder.glob("image_data/*/*.json"))):
        record = json.loads(file.read_text())
        file.write_text(json.dumps({**record, "captions": [LONG if index % 3 else "dog"]}))
    (folder / "images/004.png").write_bytes(b"no image")
    return folder


def lines(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "tiny.jsonl").read_text().splitlines()]


def by_hand(config: LimberConfig, mixed: Path, folder: Path) -> tuple[list[dict[str, float]], Tensor]:
    """The same steps without DeepSpeed and in one batch each: lines as the log has them, and the trained weight."""
    model = load(config)
    examples = Stored(encode(model.encoder, open_dataset(mixed), folder, max_rejected=0.2))
    layer = nn.Linear(model.projection.linear.in_features, model.projection.linear.out_features)
    layer.load_state_dict(model.projection.linear.state_dict())
    optimizer = torch.optim.AdamW(layer.parameters(), betas=(0.9, 0.95), weight_decay=0.0)
    written = []
    for step, rows in enumerate(islice(order(len(examples), 8, config.seed), config.train_steps)):
        read = examples.read(rows)
        ids, labels = caption_tokens(model.vocabulary, [captions[0] for captions in read.captions], limit=100)
        loss = caption_loss(model.lm, model.vocabulary.n_used, layer(examples.encoding(read).float()), ids, labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(layer.parameters(), config.gradient_clipping)
        optimizer.param_groups[0]["lr"] = rate(config, step)
        optimizer.step()
        tokens = int((labels != IGNORED).sum())
        written.append({"step": step, "loss": loss.item(), "lr": rate(config, step), "tokens": tokens})
    return written, layer.weight.detach()


@pytest.mark.parametrize(
    ("batch_size", "accumulated", "stage"), [(8, 1, 0), (8, 1, 2), (4, 2, 1), (2, 4, 2), (1, 8, 2)]
)
def test_a_step_is_the_same_however_it_is_cut(
    mixed: Path, tmp_path: Path, config: LimberConfig, batch_size: int, accumulated: int, stage: int
) -> None:
    """Micro-batches counted alike, whatever the number of their tokens: the gradient's direction and the logged loss
    depended on the cut. And the first two steps were taken with the lowest rate, the log had the next step's."""
    expected, weight = by_hand(config, mixed, tmp_path / "encodings")
    assert len({line["tokens"] for line in expected}) > 1
    cut = {"batch_size": batch_size, "gradient_accumulation_steps": accumulated, "zero_stage": stage}
    run = train(config.model_copy(update=cut), mixed, tmp_path / "out", max_rejected=0.2)
    found = lines(tmp_path / "out")
    assert [line["tokens"] for line in found] == [line["tokens"] for line in expected]
    for key in ("loss", "lr"):
        assert [line[key] for line in found] == pytest.approx([line[key] for line in expected], rel=1e-5)
    trained = read_tensors(Path(run.projection))["weight"]
    start = load(config).projection.linear.weight
    assert (trained - weight).norm() <= 1e-4 * (weight - start).norm()


@pytest.mark.slow
def test_a_step_is_the_same_in_two_processes(world, mixed: Path, tmp_path: Path, config: LimberConfig) -> None:
    """Each has one example of every micro-batch, so that the one that is rejected leaves a rank with none."""
    expected, _ = by_hand(config, mixed, tmp_path / "encodings")
    file = tmp_path / "tiny.yml"
    file.write_text(
        world.config("clip").read_text() + "bf16: false\nlr: 0.02\nwarmup_num_steps: 2\nlr_decay_iters: 6\n"
    )
    words = ["--config", str(file), "--data", str(mixed), "--out", str(tmp_path / "out"), "--max-rejected", "20%"]
    words += ["--train-steps", str(STEPS), "--batch-size", "2", "--gradient-accumulation-steps", "4"]
    words += ["--gradient-clipping", "0.5", "--zero-stage", "2"]
    done = in_processes(2, [sys.executable, "-m", "limber_interp.train", *words])
    assert [process.returncode for process in done] == [0, 0], done
    found = lines(tmp_path / "out")
    for key in ("tokens", "loss", "lr"):
        assert [line[key] for line in found] == pytest.approx([line[key] for line in expected], rel=1e-5)


def in_processes(count: int, command: list[str]) -> list[subprocess.CompletedProcess[str]]:
    """The command in so many processes of one group, as a launcher would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    here = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parents[2]), **group}
    started = [
        subprocess.Popen(
            command,
            env={**here, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    said = [process.communicate() for process in started]
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *words)
        for process, words in zip(started, said, strict=True)
    ]


def test_the_losses_are_means_over_tokens(tiny: Limber) -> None:
    """What the steps sum up: the mean over two batches together, from their own means and numbers of tokens."""
    prompt = torch.randn(2, 4, tiny.lm.cfg.d_model, generator=torch.Generator().manual_seed(0))
    told = ["dog", LONG]
    both = caption_loss(tiny.lm, tiny.vocabulary.n_used, prompt, *caption_tokens(tiny.vocabulary, told, 100))
    each, counts = [], []
    for row, caption in enumerate(told):
        ids, labels = caption_tokens(tiny.vocabulary, [caption], 100)
        each.append(caption_loss(tiny.lm, tiny.vocabulary.n_used, prompt[row : row + 1], ids, labels).item())
        counts.append(labels.numel())
    assert both.item() == pytest.approx(np.average(each, weights=counts), rel=1e-5)
    assert both.item() != pytest.approx(np.mean(each), rel=1e-2)
