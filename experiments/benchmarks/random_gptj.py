"""A GPT-J of any size with random weights, written shard by shard: for measuring where the real one cannot be had.

    python -m experiments.benchmarks.random_gptj --layers 28 --d-model 4096 --out build/benchmarks/gptj_6b

The defaults are GPT-J-6B's own: 6.05 B parameters, 12 GB in float16. Its tokenizer has
GPT-J's 50,257 tokens, which are no words.
"""

import itertools
import json
import math
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from tqdm import tqdm
from transformers import GPTJConfig, PreTrainedTokenizerFast

from limber_interp.models.hooked_gptj import gptj_shapes

N_TOKENS = 50_257


@dataclass(frozen=True)
class Options:
    """Weights of standard deviation 0.02, as GPT-J starts with; of the head 0.1, so that logits are of order 5."""

    out: Path
    layers: int = 28
    d_model: int = 4096
    d_head: int = 256
    vocabulary: int = 50_400
    positions: int = 2048
    dtype: str = "float16"
    seed: int = 0
    device: str = "cpu"
    """Where the weights are drawn: a GPU draws 6 B in a second, a CPU in minutes, and each draws others."""


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with tokens of one, two and four letters, until there are as many as GPT-J's tokenizer has."""
    vocab = {char: id for id, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges: list[tuple[str, str]] = []
    pairs = ["".join(two) for two in itertools.product(string.ascii_lowercase, repeat=2)]
    for left, right in itertools.chain(((a, b) for a, b in pairs), itertools.product(pairs, repeat=2)):
        if len(vocab) == N_TOKENS - 1:
            break
        vocab[left + right] = len(vocab)
        merges.append((left, right))
    vocab["<|endoftext|>"] = len(vocab)
    bpe = Tokenizer(models.BPE(vocab, merges))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    return PreTrainedTokenizerFast(tokenizer_object=bpe, clean_up_tokenization_spaces=False, **special)


def _shards(names: list[str]) -> Iterator[list[str]]:
    """One block of the model each, and each tensor outside of them alone."""
    for _, group in itertools.groupby(names, key=lambda name: name.split(".")[2] if ".h." in name else name):
        yield list(group)


def write(options: Options) -> Path:
    """Writes the folder unless it is there, and returns it. No more than one shard is in memory."""
    out = options.out
    if (out / "model.safetensors.index.json").exists():
        return out
    out.mkdir(parents=True, exist_ok=True)
    config = GPTJConfig(
        n_layer=options.layers,
        n_embd=options.d_model,
        n_head=options.d_model // options.d_head,
        n_positions=options.positions,
        vocab_size=options.vocabulary,
        architectures=["GPTJForCausalLM"],
        dtype=options.dtype,
    )
    config.save_pretrained(out)
    tokenizer().save_pretrained(out)
    generator = torch.Generator(options.device).manual_seed(options.seed)
    dtype = getattr(torch, options.dtype)

    def draw(name: str, shape: tuple[int, ...]) -> Tensor:
        if len(shape) == 1:  # norms around 1, biases around 0: none of them a value that hides a mistake
            centre = 1.0 if name.endswith(("ln_1.weight", "ln_f.weight")) else 0.0
            return (centre + 0.1 * drawn(shape)).to(dtype).cpu()
        return drawn(shape).mul_(0.1 if "lm_head" in name else 0.02).to(dtype).cpu()

    def drawn(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator, device=options.device)

    shapes = gptj_shapes(config)
    shards = list(_shards(list(shapes)))
    where = {}
    for number, names in enumerate(tqdm(shards, desc=str(out), unit="shard"), 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file({name: draw(name, shapes[name]) for name in names}, out / file, {"format": "pt"})
        where |= dict.fromkeys(names, file)
    size = sum(dtype.itemsize * math.prod(shape) for shape in shapes.values())
    index = {"metadata": {"total_size": size}, "weight_map": where}
    (out / "model.safetensors.index.json").write_text(json.dumps(index))
    return out


def benchmark(layers: int, d_model: int, dtype: str = "float16", device: str = "cpu") -> Path:
    """The model of these sizes under `build/benchmarks`, written once for all that measure on it."""
    folder = Path("build/benchmarks") / f"gptj_{layers}x{d_model}_{dtype}"
    d_head = min(256, d_model // 4)  # GPT-J's own, and four heads where a rehearsal is narrower
    return write(Options(folder, layers=layers, d_model=d_model, d_head=d_head, dtype=dtype, device=device))


if __name__ == "__main__":
    print(write(tyro.cli(Options)))
