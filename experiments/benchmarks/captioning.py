"""Captions per second: in batches with a cache of keys and values, as `compare_encoders` makes them, beside one image
at a time without a cache, as LIMBER's users write it.

    python -m experiments.benchmarks.captioning                                    # the embedded suite
    python -m experiments.benchmarks.captioning --layers 6 --d-model 2048          # random weights, 144 image positions

Both run on the same model and take turns; the first round is warm-up. The ratio is the median over rounds of the ratio
within a round. Both tell the same captions (asserted). Of the suite the encoder's time is in both; with random weights
there is none, and the soft prompts are drawn.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor

import limber_interp
from experiments.benchmarks import random_gptj
from experiments.benchmarks.tables import Table, heading
from experiments.benchmarks.watching import wait
from limber_interp.datasets import read_folder
from limber_interp.models.limber import Limber
from limber_interp.resources import weights_dir

PROMPT = "A picture of"
POSITIONS = 144  # of an image, as CLIP RN50x16 has them


@dataclass(frozen=True)
class Options:
    """By default the embedded suite; with layers and width a random GPT-J in `build/benchmarks`."""

    config: str = "emoji_clip_linear"
    layers: int | None = None
    d_model: int = 2048
    images: int = 24
    batch_sizes: tuple[int, ...] = (8, 24)
    alone: int = 8  # images that are captioned one at a time
    max_new_tokens: int = 20
    dtype: str = "float32"
    device: str = "cpu"
    rounds: int = 5
    threads: int = 2
    stored: str = "float16"
    """In what the random weights are stored."""
    exact: bool = True
    """Stop where the methods tell different captions; in half precision a batch rounds otherwise, and the share that
    is equal is reported instead."""


def measure(options: Options) -> Table:
    """Captions per second of each way."""
    model, soft_prompts = _model(options)

    def captions(count: int, batch_size: int, use_cache: bool) -> list[list[int]]:
        found: list[list[int]] = []
        for start in range(0, count, batch_size):
            prompts = [[rows, PROMPT] for rows in soft_prompts(start, min(start + batch_size, count))]
            found += model.generate(prompts, options.max_new_tokens, use_cache=use_cache)
        return found

    runs = {"one at a time, no cache": (options.alone, 1, False), "one at a time": (options.alone, 1, True)}
    runs |= {f"batches of {size}": (options.images, size, True) for size in options.batch_sizes}
    per_second: dict[str, list[float]] = {name: [] for name in runs}
    told: dict[str, list[list[int]]] = {}
    for _ in range(1 + options.rounds):
        for name, run in runs.items():
            wait(options.device)
            start = time.perf_counter()
            told[name] = captions(*run)
            wait(options.device)
            per_second[name].append(len(told[name]) / (time.perf_counter() - start))
    alone, *others = told.values()
    equal = statistics.mean(told == own for other in others for told, own in zip(other, alone, strict=False))
    assert equal == 1 or not options.exact, f"the captions differ: {equal:.0%} are equal"
    (base, *_) = per_second.values()
    rows = []
    for name, rates in per_second.items():
        ratio = statistics.median(ours / theirs for ours, theirs in zip(rates[1:], base[1:], strict=True))
        rows.append((name, statistics.median(rates[1:]), ratio))
    size = options.config if options.layers is None else f"{options.layers} layers x {options.d_model}, random weights"
    return Table(
        f"Captions of at most {options.max_new_tokens} tokens: {size}, {options.dtype}, {options.device}",
        ("method", "images per second", "one at a time, no cache = 1"),
        tuple(rows),
        (
            f"A caption has {statistics.mean(map(len, others[-1])):.1f} tokens; {equal:.0%} of the captions are those "
            "of one image at a time without a cache.",
        ),
    )


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    print(heading(options.device, options.threads))
    print(measure(options).markdown())


def _model(options: Options) -> tuple[Limber, Callable[[int, int], Sequence[Tensor]]]:
    """The model, and what gives the soft prompts of images from one index to another."""
    common = {"dtype": options.dtype, "device": options.device}
    if options.layers is None:
        model = limber_interp.load(options.config, **common)
        files: list[Path] = [example.image for example in read_folder(weights_dir() / "emoji" / "scenes")]
        return model, lambda start, stop: list(model.soft_prompt(files[start:stop]))
    folder = random_gptj.benchmark(options.layers, options.d_model, options.stored, options.device)
    model = limber_interp.load(options.config, lm=folder, projection="none", **common)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(options.images, POSITIONS, options.d_model, generator=generator)
    return model, lambda start, stop: list(drawn[start:stop])


if __name__ == "__main__":
    main(tyro.cli(Options))
