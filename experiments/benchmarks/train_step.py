"""One training step of the projection, as a ratio to LIMBER's own step, and beside Hugging Face's GPT-J in our loop.

    python -m experiments.benchmarks.train_step                                        # CPU, float32, 8 layers x 1024
    python -m experiments.benchmarks.train_step --device cuda --dtype bfloat16 --layers 28 --d-model 4096 --width 96

A step: projection, dropout on the prompt, loss, backward pass, clipping, AdamW. LIMBER's, re-stated after its script
on the library that it used: the encoder on every image, in train mode (BatchNorm); logits of all positions; all hidden
states kept; the blocks checkpointed. Ours takes encodings that were computed once. The encoder is a CLIP ResNet on
384 pixels (144 positions) so narrow that its share of the operations is about what RN50x16's is beside GPT-J-6B.

The methods take turns; ratios are medians over rounds of the ratio within a round, the first of which is warm-up. On a
CPU that others use too, the processor's time says more than the clock's. Memory is the peak of a step above what the
process held before it, the largest of the rounds. Operations are counted without what checkpointing repeats; the rate
of a plain matrix product in the model's dtype is measured in each round.
"""

import ctypes
import gc
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
import tyro
from open_clip.modified_resnet import ModifiedResNet
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPTJForCausalLM

from experiments.benchmarks import random_gptj
from experiments.benchmarks.tables import Table, heading
from experiments.benchmarks.watching import peak, start_watching, wait
from limber_interp.models import load_hooked_gptj
from limber_interp.training.memory import Checkpointing
from limber_interp.training.objective import caption_loss

LIMBER, NO_ENCODER = "LIMBER's step", "LIMBER's step, its encoder left out"
OURS, CHECKPOINTED, HF = "ours", "ours, checkpointing on", "ours, with Hugging Face's GPT-J"
GRID, PIXELS = 12, 384


@dataclass(frozen=True)
class Options:
    """A random GPT-J, written once to `build/benchmarks` and kept there."""

    layers: int = 8
    d_model: int = 1024
    batch: int = 4
    caption: int = 16
    """Tokens of each caption, with its end of text."""
    width: int = 20
    """Of the encoder, whose vectors are 32 times as wide; RN50x16's is 96."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "cpu"
    methods: tuple[str, ...] = (LIMBER, NO_ENCODER, OURS, CHECKPOINTED, HF)
    rounds: int = 5
    threads: int = 2
    square: int | None = None
    """Rows of the matrices whose product says what the device can do; by default 8192 on a GPU, 2048 on a CPU."""


class Step(NamedTuple):
    seconds: float
    processor: float
    peak: float


class Bench:
    """The frozen parts, one batch, and a method's loss of it."""

    def __init__(self, options: Options) -> None:
        torch.manual_seed(0)
        dtype = getattr(torch, options.dtype)
        self.folder = random_gptj.benchmark(options.layers, options.d_model, options.dtype, options.device)
        self.dtype = dtype
        self.device, self.n_used = options.device, random_gptj.N_TOKENS
        d_encoder = 32 * options.width
        tower = ModifiedResNet([3, 4, 6, 3], 1024, d_encoder // 64, PIXELS, options.width)
        tower.attnpool = nn.Identity()
        self.encoder = tower.to(options.device).requires_grad_(False)
        self.lm = load_hooked_gptj(self.folder, dtype, options.device)
        self.layer = nn.Linear(d_encoder, options.d_model).to(options.device)
        self.optimizer = torch.optim.AdamW(self.layer.parameters(), lr=8e-4, betas=(0.9, 0.95), weight_decay=0.0)
        self.pixels = torch.randn(options.batch, 3, PIXELS, PIXELS).to(options.device)
        self.ids = torch.randint(self.n_used, (options.batch, options.caption)).to(options.device)
        self.encodings = self.encode().detach()

    @cached_property
    def hf(self) -> Any:
        """Loaded for the methods that need it: at GPT-J-6B's size it is 12 GB more."""
        model = GPTJForCausalLM.from_pretrained(self.folder, dtype=self.dtype)
        return model.to(self.device).requires_grad_(False)

    def encode(self) -> Tensor:
        return self.encoder.train()(self.pixels).flatten(2).transpose(1, 2)

    def soft_prompt(self, encodings: Tensor) -> Tensor:
        return nn.functional.dropout(self.layer(encodings), 0.1)

    def limber(self, encodings: Tensor) -> Tensor:
        """In train mode, which is how Hugging Face checkpoints; this GPT-J has no dropout of its own to wake."""
        self.hf.train().activation_checkpointing_enable()
        soft_prompt = self.soft_prompt(encodings).to(self.hf.dtype)
        embeddings = torch.cat([soft_prompt, self.hf.transformer.wte(self.ids)], dim=1)
        labels = torch.cat([torch.full(soft_prompt.shape[:2], -100, device=self.device), self.ids], dim=1)
        return self.hf(inputs_embeds=embeddings, labels=labels, output_hidden_states=True, use_cache=False).loss

    def ours(self, asked: Literal["auto", "on"]) -> Tensor:
        soft_prompt = self.soft_prompt(self.encodings)
        return caption_loss(self.lm, self.n_used, soft_prompt, self.ids, self.ids, Checkpointing(asked))

    def hf_in_our_loop(self) -> Tensor:
        """The same objective on the blocks of Hugging Face; their last hidden state is normed."""
        self.hf.eval().activation_checkpointing_disable()
        soft_prompt = self.soft_prompt(self.encodings).to(self.hf.dtype)
        embeddings = torch.cat([soft_prompt, self.hf.transformer.wte(self.ids[:, :-1])], dim=1)
        hidden = self.hf.transformer(inputs_embeds=embeddings, use_cache=False).last_hidden_state
        head = self.hf.lm_head
        before = hidden[:, soft_prompt.shape[1] - 1 :].flatten(0, 1)
        logits = nn.functional.linear(before, head.weight[: self.n_used], head.bias[: self.n_used])
        return nn.functional.cross_entropy(logits.float(), self.ids.flatten())

    def loss(self, name: str) -> Tensor:
        losses: dict[str, Callable[[], Tensor]] = {
            LIMBER: lambda: self.limber(self.encode()),
            NO_ENCODER: lambda: self.limber(self.encodings),
            OURS: lambda: self.ours("auto"),
            CHECKPOINTED: lambda: self.ours("on"),
            HF: self.hf_in_our_loop,
        }
        return losses[name]()

    def step(self, name: str) -> None:
        self.loss(name).backward()
        nn.utils.clip_grad_norm_(self.layer.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


def operations(work: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products, convolutions and attention."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def matrix_rate(options: Options) -> float:
    """Operations a second of a product of two square matrices in the model's dtype, the best of ten."""
    size = options.square or (8192 if torch.device(options.device).type == "cuda" else 2048)
    matrix = torch.randn(size, size, device=options.device, dtype=getattr(torch, options.dtype))
    seconds = []
    for _ in range(10):
        wait(options.device)
        start = time.perf_counter()
        matrix @ matrix
        wait(options.device)
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def release() -> None:
    """Gives freed memory back to the kernel, so that one method's peak does not hide in what another left."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def measure(options: Options) -> Table:
    """A step of each method, the first of which is the base of the ratios."""
    bench = Bench(options)
    agree(bench, options.methods)
    needed = operations(lambda: bench.step(OURS))
    encoding = operations(bench.encode)
    share = encoding / (encoding + needed)
    steps: dict[str, list[Step]] = {name: [] for name in options.methods}
    rates = []
    for _ in range(1 + options.rounds):
        rates.append(matrix_rate(options))
        for name in options.methods:
            release()
            before = start_watching(options.device)
            start, used = time.perf_counter(), time.process_time()
            bench.step(name)
            wait(options.device)
            took = time.perf_counter() - start, time.process_time() - used
            steps[name].append(Step(*took, peak(options.device) - before))
    del rates[0]
    return _table(options, {name: taken[1:] for name, taken in steps.items()}, needed, share, statistics.median(rates))


def agree(bench: Bench, methods: tuple[str, ...]) -> None:
    """The losses are one: LIMBER's also counts the rows of the vocabulary that stand for no token."""
    losses = {}
    for name in {OURS, *methods} - {LIMBER}:
        torch.manual_seed(0)  # the same dropout
        losses[name] = bench.loss(name).item()
    assert max(losses.values()) / min(losses.values()) < 1.01, losses


def _table(options: Options, steps: dict[str, list[Step]], needed: int, share: float, rate: float) -> Table:
    tokens = options.batch * (GRID**2 + options.caption)
    rows = []
    base = steps[options.methods[0]]
    for name, taken in steps.items():
        faster, fewer = (
            statistics.median(getattr(b, clock) / getattr(t, clock) for b, t in zip(base, taken, strict=True))
            for clock in ("seconds", "processor")
        )
        seconds, processor = (statistics.median(getattr(t, c) for t in taken) for c in ("seconds", "processor"))
        highest = max(t.peak for t in taken)
        memory = highest, highest / max(b.peak for b in base)
        rows.append((name, seconds, faster, processor, fewer, *memory, tokens / seconds, needed / seconds / rate))
    return Table(
        f"A training step: {options.layers} layers x {options.d_model}, batch {options.batch} x ({GRID**2} + "
        f"{options.caption}), {options.dtype}, {options.device}",
        (
            "method",
            "s",
            "times faster",
            "processor s",
            "times fewer",
            "peak above the model, GiB",
            "ratio",
            "tokens/s",
            "share of the matrix rate",
        ),
        tuple(rows),
        (
            f"A step of ours needs {needed / 1e9:,.0f} GFLOP; a matrix product runs at {rate / 1e12:.3f} TFLOP/s. The "
            f"encoder is {share:.1%} of the operations of LIMBER's step.",
        ),
    )


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    print(heading(options.device, options.threads))
    print(measure(options).markdown())


if __name__ == "__main__":
    main(tyro.cli(Options))
