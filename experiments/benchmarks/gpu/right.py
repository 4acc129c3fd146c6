"""Whether the device computes what the CPU computes: the embedded suite on both, and what a GPU alone can get wrong."""

import tarfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

import limber_interp
from experiments.benchmarks.gpu.sizes import Sizes
from experiments.benchmarks.tables import Table
from limber_interp.config import DEFAULT_CONFIG, load_config
from limber_interp.models.limber import Limber
from limber_interp.probes import logit_lens, nearest_tokens
from limber_interp.resources import weights_dir
from limber_interp.training.engine import train

SCENES = weights_dir() / "emoji" / "scenes" / "images"
TEXT = "A picture of"


def right(device: str, sizes: Sizes) -> Table:
    """Each check with its largest deviation and the bound that it is held to."""
    scenes = sorted(SCENES.glob("*.png"))[: sizes.scenes]
    here, there = (limber_interp.load(DEFAULT_CONFIG, device=on, dtype="float32") for on in ("cpu", device))
    half = limber_interp.load(DEFAULT_CONFIG, device=device, dtype="bfloat16")
    neighbours, lens = _neighbours(here, there, scenes), _lens(here, there, scenes)
    checks: dict[str, tuple[float, float]] = {
        "nearest tokens: share of other ids": (neighbours[0], 0.0),
        "nearest tokens: scores": (neighbours[1], 1e-4),
        "logit lens: share of other tokens": (lens[0], 0.001),
        "logit lens: log-probabilities, nats": (lens[1], 1e-3),
        "logits at the last position": (_logits(here, there, scenes, None), 1e-3),
        "logits behind a hook that silences the image": (_logits(here, there, scenes, _silenced), 1e-3),
        "logits of a prompt padded on the left": (_padded(there, scenes), 1e-3),
        "captions that differ from the CPU's": (_captions(here, there, scenes), 0.0),
        "captions that differ with and without the cache": (_cached(there, scenes), 0.0),
        "sampled captions that do not repeat by seed": (_sampled(there, scenes), 0.0),
        "bfloat16: logits at the last position": (_logits(here, half, scenes, None), 0.5),
        "bfloat16: share of other most probable tokens": (_lens(here, half, scenes)[2], 0.05),
        f"losses of {sizes.steps} training steps": (_losses(device, sizes), 1e-3),
    }
    rows = tuple((name, found, bound, "yes" if found <= bound else "NO") for name, (found, bound) in checks.items())
    title = f"The embedded suite on {device} beside the CPU, {len(scenes)} scenes, float32 unless said otherwise"
    return Table(title, ("largest deviation of", "found", "bound", "holds"), rows)


def _neighbours(here: Limber, there: Limber, scenes: list[Path]) -> tuple[float, float]:
    one, other = (nearest_tokens(model, scenes, controls="fast") for model in (here, there))
    pairs = list(zip(one.images, other.images, strict=True))
    ids = np.mean([(a.token_ids != b.token_ids).mean() for a, b in pairs])
    scores = max(np.abs(a.scores - b.scores).max() for a, b in pairs)
    return float(ids), float(scores)


def _lens(here: Limber, there: Limber, scenes: list[Path]) -> tuple[float, float, float]:
    """Share of other tokens among the five, largest deviation of a log-probability, and share of positions whose most
    probable token at the last layer is another.
    """
    one, other = (logit_lens(model, scenes, controls="none") for model in (here, there))
    pairs = [(a.reading, b.reading) for a, b in zip(one.images, other.images, strict=True)]
    ids = np.mean([(a.token_ids != b.token_ids).mean() for a, b in pairs])
    logprobs = max(np.abs(a.logprobs - b.logprobs).max() for a, b in pairs)
    first = np.mean([(a.token_ids[-1, :, 0] != b.token_ids[-1, :, 0]).mean() for a, b in pairs])
    return float(ids), float(logprobs), float(first)


def _silenced(model: Limber) -> tuple[str, Callable[[Tensor, object], Tensor]]:
    """A hook that zeroes the image's positions in the middle of the model."""

    def zero(residual: Tensor, hook: object) -> Tensor:
        residual[:, : model.encoder.n_positions] = 0
        return residual

    return f"blocks.{model.lm.cfg.n_layers // 2}.hook_resid_post", zero


@torch.no_grad()
def _logits(
    here: Limber, there: Limber, scenes: list[Path], hook: Callable[[Limber], tuple[str, Callable]] | None
) -> float:
    found = []
    for model in (here, there):
        prompt = model.embed([[scene, TEXT] for scene in scenes])
        hooks = [hook(model)] if hook else []
        logits = model.run_with_hooks(prompt, hooks)[:, -1]
        found.append(logits.float().cpu()[:, : here.vocabulary.n_used])
    return (found[0] - found[1]).abs().max().item()


@torch.no_grad()
def _padded(model: Limber, scenes: list[Path]) -> float:
    alone = model.run_with_hooks([scenes[0], TEXT])[0, -1]
    padded = model.run_with_hooks([[scenes[0], TEXT], [scenes[1], TEXT, " a cat and a dog"]])[0, -1]
    return (alone - padded).abs().max().item()


def _captions(here: Limber, there: Limber, scenes: list[Path]) -> float:
    return float(np.mean([a != b for a, b in zip(here.caption(scenes), there.caption(scenes), strict=True)]))


def _cached(model: Limber, scenes: list[Path]) -> float:
    cached, bare = (model.caption(scenes, use_cache=use_cache) for use_cache in (True, False))
    return float(np.mean([a != b for a, b in zip(cached, bare, strict=True)]))


def _sampled(model: Limber, scenes: list[Path]) -> float:
    first, again = (model.caption(scenes, temperature=1.0, seed=3) for _ in range(2))
    alone = [model.caption(scene, temperature=1.0, seed=3) for scene in scenes]
    return float(np.mean([len({a, b, c}) > 1 for a, b, c in zip(first, again, alone, strict=True)]))


def _losses(device: str, sizes: Sizes) -> float:
    """Of the same run on both, without dropout, whose draws are another device's."""
    plain = {"image_embed_dropout_prob": 0.0, "bf16": False, "warmup_num_steps": 1, "batch_size": 16}
    config = load_config(DEFAULT_CONFIG, train_steps=sizes.steps, **plain)
    (shard,) = (weights_dir() / "emoji" / "training").glob("*.tar")
    with TemporaryDirectory() as folder:
        with tarfile.open(shard) as whole:  # the first examples are enough, and are encoded once for each device
            names = [member.name for member in whole if member.isfile()][: 2 * 64]
            whole.extractall(folder, names, filter="data")
        part = Path(folder) / "part.tar"
        with tarfile.open(part, "w") as shorter:
            for name in names:
                shorter.add(Path(folder) / name, name)
        runs = [
            train(config, part, Path(folder) / name, device=on, dtype="float32").losses
            for name, on in (("cpu", "cpu"), ("device", device))
        ]
    return float(np.abs(runs[0] - runs[1]).max())
