"""A forward of a soft prompt through the HookedTransformer, beside Hugging Face's GPT-J: time, and how far the logits
are apart.

    python -m experiments.benchmarks.forward                      # 6 layers x 2048, 160 positions, float32
    python -m experiments.benchmarks.forward --dtype bfloat16

Both models run on the same weights and take turns; the first round is warm-up. The ratio is the median over rounds of
the ratio within a round. Differences in bfloat16 and float16 are to the logits in float32, ours and Hugging Face's.
"""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from transformers import GPTJForCausalLM

from experiments.benchmarks import random_gptj
from experiments.benchmarks.tables import Table, heading
from experiments.benchmarks.watching import wait
from limber_interp.models import load_hooked_gptj


@dataclass(frozen=True)
class Options:
    """A random GPT-J, written once to `build/benchmarks` and kept there."""

    layers: int = 6
    d_model: int = 2048
    positions: int = 160
    batch: int = 1
    dtype: str = "float32"
    device: str = "cpu"
    rounds: int = 9
    threads: int = 2
    stored: str = "float16"
    """In what the weights are stored."""


@torch.no_grad()
def measure(options: Options) -> Table:
    """Both models' time, and how far their logits are from Hugging Face's in float32."""
    folder = random_gptj.benchmark(options.layers, options.d_model, options.stored, options.device)
    generator = torch.Generator().manual_seed(0)
    soft_prompt = torch.randn(options.batch, options.positions, options.d_model, generator=generator)
    soft_prompt = soft_prompt.to(options.device)
    exact = _hf(folder, torch.float32, options)(inputs_embeds=soft_prompt).logits

    dtype = getattr(torch, options.dtype)
    hf, hooked = _hf(folder, dtype, options), load_hooked_gptj(folder, dtype, options.device)
    soft_prompt = soft_prompt.to(dtype)
    runs = {
        "Hugging Face": lambda: hf(inputs_embeds=soft_prompt).logits,
        "ours": lambda: hooked(soft_prompt, start_at_layer=0),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    apart = {}
    for _ in range(1 + options.rounds):
        for name, run in runs.items():
            wait(options.device)
            start = time.perf_counter()
            logits = run()
            wait(options.device)
            seconds[name].append(time.perf_counter() - start)
            apart[name] = (logits.float() - exact).abs().max().item()
    ratios = [ours / hf for ours, hf in zip(seconds["ours"], seconds["Hugging Face"], strict=True)][1:]
    rows = []
    for name, times in seconds.items():
        ratio = statistics.median(ratios) if name == "ours" else 1.0
        rows.append((name, statistics.median(times[1:]), ratio, apart[name]))
    return Table(
        f"A forward of {options.batch} x {options.positions} positions through {options.layers} layers x "
        f"{options.d_model}, {options.dtype}, {options.device}",
        ("method", "median s", "Hugging Face = 1", "largest difference to float32"),
        tuple(rows),
        (f"The logits have a standard deviation of {exact.std():.2f} and reach {exact.abs().max():.1f}.",),
    )


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    print(heading(options.device, options.threads))
    print(measure(options).markdown())


def _hf(folder: Path, dtype: torch.dtype, options: Options) -> Any:
    return GPTJForCausalLM.from_pretrained(folder, dtype=dtype).to(options.device).eval()


if __name__ == "__main__":
    main(tyro.cli(Options))
