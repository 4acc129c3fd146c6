"""The logit lens over all layers, as a ratio to the forward pass and the bare matrix products that nobody can avoid,
beside the naive way: run_with_cache, all residuals stacked, unembedded, softmax, top-k.

    python -m experiments.benchmarks.logit_lens --threads 2

The methods take turns; ratios are medians over rounds of the ratio within a round, the first of which is warm-up.
Memory is the peak of a method above what the process held before it, the largest of the rounds. The naive way needs
about 14 GiB at the default sizes.
"""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import tyro

from experiments.benchmarks import random_gptj
from experiments.benchmarks.tables import Table, heading
from experiments.benchmarks.watching import peak, start_watching, wait
from limber_interp.layout import Layout
from limber_interp.models import Limber, load
from limber_interp.models.prompt import Prompt
from limber_interp.probes.layers import capture, read_layers
from limber_interp.probes.lens import UnembeddingLens

FLOOR = "forward + bare products"


@dataclass(frozen=True)
class Options:
    """By default 8 images of 196 positions through 12 layers x 1024, GPT-J's vocabulary, float32."""

    layers: int = 12
    d_model: int = 1024
    images: int = 8
    positions: int = 196
    k: int = 5
    targets: int = 2
    device: str = "cpu"
    dtype: str = "float32"
    rounds: int = 3
    threads: int = 2
    naive: bool = True
    stored: str = "float16"
    """In what the weights are stored."""


@torch.no_grad()
def methods(model: Limber, prompt: Prompt, options: Options) -> dict[str, Callable[[], torch.Tensor]]:
    """Name -> something that gives the most probable token ids (layers, positions, k), or nothing to compare."""
    lm, n_used = model.lm, model.vocabulary.n_used
    lens = UnembeddingLens(lm, n_used)
    every = [range(options.positions)] * options.images
    rows = lm.W_U.T[:n_used].float()
    names = ["blocks.0.hook_resid_pre", *(f"blocks.{layer}.hook_resid_post" for layer in range(options.layers))]
    targets = torch.arange(options.targets, device=options.device)

    def forward() -> torch.Tensor:
        return model.run_with_hooks(prompt)[0, :1, :1]

    def products() -> None:
        hidden = prompt.residual.flatten(0, 1).float()
        for _ in names:
            for block in hidden.split(166):  # as many as the lens takes at a time: no larger result is kept
                block @ rows.T

    def floor() -> torch.Tensor:
        products()
        return forward()

    def ours() -> torch.Tensor:
        return read_layers(lens, capture(model, lens, prompt, every), options.k, targets, targets).ids

    def naive() -> torch.Tensor:
        _, cache = model.run_with_cache(prompt, names_filter=lambda name: name in names)
        stacked = torch.stack([cache[name] for name in names]).flatten(1, 2)
        logits = lm.unembed(lm.ln_final(stacked))[..., :n_used].float()
        return logits.log_softmax(-1).topk(options.k).indices

    found = {"forward": forward, FLOOR: floor, "ours": ours}
    return found | ({"naive": naive} if options.naive else {})


@torch.no_grad()
def measure(options: Options) -> Table:
    """The lens beside its floor and the naive way."""
    folder = random_gptj.benchmark(options.layers, options.d_model, options.stored, options.device)
    model = load("emoji_clip_linear", lm=folder, projection="none", device=options.device, dtype=options.dtype)
    shape = options.images, options.positions, options.d_model
    residual = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(options.device, model.dtype)
    layout = Layout.of([("image", options.positions, None, "random vectors")])
    mask = torch.ones(shape[:2], dtype=torch.long, device=options.device)
    runs = methods(model, Prompt(residual, mask, (layout,) * options.images), options)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    peaks: dict[str, list[float]] = {name: [] for name in runs}
    ids = {}
    for _ in range(1 + options.rounds):
        for name, run in runs.items():
            gc.collect()
            before = start_watching(options.device)
            start = time.perf_counter()
            ids[name] = run()
            wait(options.device)
            seconds[name].append(time.perf_counter() - start)
            peaks[name].append(peak(options.device) - before)
    if options.naive:
        same = (ids["ours"] == ids["naive"]).float().mean().item()
        assert same > 0.999, f"the naive way finds other tokens: {same:.1%} equal"
    rows = []
    for name, times in seconds.items():
        ratio = statistics.median(t / floor for t, floor in zip(times[1:], seconds[FLOOR][1:], strict=True))
        rows.append((name, statistics.median(times[1:]), ratio, max(peaks[name])))
    return Table(
        f"Logit lens: {options.images} x {options.positions} positions, {options.layers} layers x {options.d_model}, "
        f"k = {options.k}, {options.targets} targets, {options.dtype}, {options.device}",
        ("method", "median s", f"{FLOOR} = 1", "peak above the model, GiB"),
        tuple(rows),
    )


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    print(heading(options.device, options.threads))
    print(measure(options).markdown())


if __name__ == "__main__":
    main(tyro.cli(Options))
