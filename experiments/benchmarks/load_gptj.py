"""Time and memory of loading a GPT-J as a HookedTransformer, beside TransformerLens and Hugging Face.

    python -m experiments.benchmarks.load_gptj --layers 6 --d-model 2048                      # 0.51 B
    python -m experiments.benchmarks.load_gptj --layers 28 --d-model 4096 --methods ours      # GPT-J-6B's shape

Each method runs in a process of its own, in turns; its memory is counted above what the imports took. Linux: the
numbers are the kernel's (/proc/self/status). Anonymous memory is what is private to the process; the rest are pages of
the file, which the kernel shares between processes and drops when it needs room.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro

from experiments.benchmarks import random_gptj
from experiments.benchmarks.tables import Table, heading
from experiments.benchmarks.watching import GIB, memory, peak

ROOT = Path(__file__).parents[2]
GPT_J = "EleutherAI/gpt-j-6B"  # the name by which TransformerLens knows the architecture
METHODS = ("ours", "transformers", "transformer_lens_no_processing", "transformer_lens")


@dataclass(frozen=True)
class Options:
    """A random GPT-J, written once to `build/benchmarks` and kept there."""

    layers: int = 6
    d_model: int = 2048
    stored: str = "float16"
    """In what the weights are stored, and loaded."""
    device: str = "cpu"
    positions: int = 16
    """Of the forward that follows: few, since a CPU multiplies float16 slowly, TransformerLens's layout most of all."""
    methods: tuple[str, ...] = METHODS
    rounds: int = 3
    threads: int = 2
    child: bool = False
    """One method in this process; its numbers as JSON."""


def _load(method: str, folder: Path, options: Options) -> dict[str, float]:
    import transformer_lens
    from transformers import AutoTokenizer, GPTJForCausalLM

    from limber_interp.models import load_hooked_gptj

    torch.set_grad_enabled(False)
    dtype = getattr(torch, options.stored)
    torch.ones(1, device=options.device)  # the CUDA context is no part of a model
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, start = memory(), time.perf_counter()
    if method == "ours":
        model: Any = load_hooked_gptj(folder, dtype, options.device)
    elif method == "transformers":
        model = GPTJForCausalLM.from_pretrained(folder, dtype=dtype).to(options.device).eval()
    else:
        tl = transformer_lens.HookedTransformer
        load = tl.from_pretrained if method == "transformer_lens" else tl.from_pretrained_no_processing
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = load(GPT_J, dtype=dtype, device=options.device, tokenizer=tokenizer, default_prepend_bos=False)
    seconds, loaded = time.perf_counter() - start, memory()
    residual = torch.randn(1, options.positions, options.d_model, generator=torch.Generator().manual_seed(0))
    residual = residual.to(options.device, dtype)
    logits = model(inputs_embeds=residual).logits if method == "transformers" else model(residual, start_at_layer=0)
    checksum = logits[0, -1, : random_gptj.N_TOKENS].float().softmax(-1).square().sum().item()
    after = memory()
    return {
        "seconds": seconds,
        "anonymous, loaded": loaded["anonymous"] - before["anonymous"],
        "peak, loaded": loaded["peak"] - before["all"],
        "peak, after a forward": after["peak"] - before["all"],
        "device": peak(options.device) if torch.device(options.device).type == "cuda" else 0.0,
        "checksum": checksum,
    }


def measure(options: Options) -> Table:
    """Each method in a process of its own."""
    folder = random_gptj.benchmark(options.layers, options.d_model, options.stored, options.device)
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors")) / GIB
    found: dict[str, list[dict[str, float]]] = {method: [] for method in options.methods}
    for _ in range(options.rounds):
        for method in options.methods:
            child = replace(options, methods=(method,), child=True)
            found[method].append(_in_a_process(child, folder))
    ours = statistics.median(run["seconds"] for run in found["ours"])
    rows = []
    for method, runs in found.items():
        median = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        memories = (median[key] for key in ("anonymous, loaded", "peak, loaded", "peak, after a forward", "device"))
        rows.append((method, median["seconds"], median["seconds"] / ours, *memories))
    checksums = {method: {f"{run['checksum']:.3g}" for run in runs} for method, runs in found.items()}
    return Table(
        f"{folder.name}: {size:.2f} GiB on disk, {options.device}, {options.threads} threads, {options.rounds} rounds",
        (
            "method",
            "load, s",
            "ours = 1",
            "private, loaded, GiB",
            "peak, loaded",
            "peak, after a forward",
            "peak on the device",
        ),
        tuple(rows),
        (f"Sum of the squared probabilities of the last position, which shows that all run: {checksums}",),
    )


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    if options.child:
        folder = random_gptj.benchmark(options.layers, options.d_model, options.stored, options.device)
        print(json.dumps(_load(options.methods[0], folder, options)))
        return
    print(heading(options.device, options.threads))
    print(measure(options).markdown())


def _cache_with(folder: Path) -> Path:
    """A cache of the hub in which the folder is GPT-J: TransformerLens takes names alone, and loads from there."""
    cache = folder.parent / f"{folder.name}_hub"
    model, commit = cache / f"models--{GPT_J.replace('/', '--')}", "0" * 40
    for place in ("refs", "snapshots"):
        (model / place).mkdir(parents=True, exist_ok=True)
    (model / "refs" / "main").write_text(commit)
    snapshot = model / "snapshots" / commit
    if not snapshot.exists():
        snapshot.symlink_to(folder.absolute(), target_is_directory=True)
    return cache


def _in_a_process(options: Options, folder: Path) -> dict[str, float]:
    arguments = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in vars(options).items()
        if name not in ("methods", "child")
    ]
    command = [sys.executable, "-m", "experiments.benchmarks.load_gptj", *arguments, "--child", "--methods"]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])  # from whatever folder this runs
    environment = os.environ | {"HF_HUB_CACHE": str(_cache_with(folder)), "HF_HUB_OFFLINE": "1", "PYTHONPATH": path}
    done = subprocess.run([*command, *options.methods], stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout[done.stdout.index("{") :])


if __name__ == "__main__":
    main(tyro.cli(Options))
