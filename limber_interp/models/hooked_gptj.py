"""GPT-J from a Hugging Face folder as a TransformerLens `HookedTransformer`, in the checkpoint's own coordinates.

Nothing is folded, centred or copied: each tensor of the HookedTransformer is a reshaped or transposed view of the one
in the memory-mapped file. So W_E, W_U and all norms mean what the checkpoint says, and loading takes no memory of its
own where the model runs in the checkpoint's dtype on the CPU.
"""

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil
import torch
from einops import rearrange
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from torch import Tensor
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformers import AutoTokenizer, GPTJConfig, PreTrainedTokenizerBase

from limber_interp.devices import building, choose_device
from limber_interp.errors import InputError, reading
from limber_interp.resources import resolve
from limber_interp.text_rows import text_rows
from limber_interp.threads import drawing, using
from limber_interp.weights import check_floats, check_shapes, read_json, read_tensors, tensors_sha256, weight_files

logger = logging.getLogger(__name__)

# Of rows without a token, as GPT-J's own tokenizer calls them (see text_rows.py)
FILLER = "<|extratoken_"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# The same function as one kernel: gelu_new's eight keep four tensors of its input's size for a backward pass, not one
ONE_KERNEL = {"gelu_new": "gelu_pytorch_tanh"}
# Hugging Face's names -> TransformerLens's, of the functions that both have
ACTIVATIONS = {name: name for name in ("gelu", "gelu_fast", "gelu_pytorch_tanh", "relu", "silu")} | ONE_KERNEL
ACTIVATIONS |= {"swish": "silu"}
LARGEST = 2**20  # any number in a config: a mistyped one would be asked for as memory
FIRST_OF_BLOCK = re.compile(r"transformer\.h\.\d+\.ln_1\.weight")
# Buffers that older versions of transformers stored beside the weights: causal masks, no parameters
STORED_MASKS = (".attn.bias", ".attn.masked_bias")


class HookedGPTJ(HookedTransformer):
    """A HookedTransformer that one thread uses at a time.

    Hooks stand on the model itself, and fire in the forward pass of whoever runs it. So while a thread is inside of
    `hooks`, `run_with_hooks`, `run_with_cache` or `generate`, or in a forward pass, others wait for their turn. Hooks
    that are set to stay (`add_hook`, `add_perma_hook`) are meant for all threads, and fire in all.

    TransformerLens's own `generate` keeps keys and values: hooks on it see each new token alone, as position 0. Give
    it `use_past_kv_cache=False` where they count positions; `Limber.generate` does so by itself.
    """

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        # Activations that are computed again for a gradient are so in a thread of autograd's, while the one that
        # asked for it waits, perhaps inside of `hooks`
        if torch._C._current_graph_task_id() != -1:
            return super().forward(*args, **kwargs)
        with using(self):
            return super().forward(*args, **kwargs)

    @contextlib.contextmanager
    def hooks(self, *args: Any, **kwargs: Any) -> Iterator[HookedTransformer]:
        with using(self), super().hooks(*args, **kwargs) as model:
            yield model

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        with using(self):
            return super().generate(*args, **kwargs)

    def to_tokens(self, *args: Any, **kwargs: Any) -> Any:  # it changes settings of the tokenizer meanwhile
        with using(self):
            return super().to_tokens(*args, **kwargs)


def load_hooked_gptj(
    folder_or_hub_id: str | Path,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    revision: str | None = None,
) -> HookedGPTJ:
    """Load a GPT-J, frozen and in eval mode, with its tokenizer (no beginning-of-text token, padding on the left).

    Texts are padded with a token that stands for nothing, and not with the end of text as GPT-J's are elsewhere:
    TransformerLens takes every leading padding token for padding, also an end of text that begins a text. Where the
    embedding has no row for such a token, which is logged, texts are padded with the end of text on the right instead,
    where nothing has to be masked; the logits that follow a shorter text of a batch then stand at its own end.

    Args:
        folder_or_hub_id: a folder with config.json, tokenizer files and weights (safetensors or .bin, sharded or not),
            or the id of such a repository on the Hugging Face hub, which is then downloaded.
        dtype: "auto" takes the checkpoint's on a GPU; on a CPU float32 where that fits into the free memory (with a
            fifth of it to spare), bfloat16 otherwise. The rotary tables are float32 always, and so LayerNorm and the
            softmax of the attention.
        device: "auto" takes the GPU if there is one.
        revision: branch, tag or commit on the hub.

    Raises:
        InputError: not a GPT-J, files missing or truncated, a tensor of the wrong shape, a token that stands for text
            and has no row in the embedding, no such hub id or device.
    """
    folder = locate_lm(folder_or_hub_id, revision)
    config = _read_config(folder)
    tokenizer = _load_tokenizer(folder, config.vocab_size)
    stored = {name: t for name, t in read_tensors(folder).items() if not name.endswith(STORED_MASKS)}
    if (blocks := _n_blocks(stored)) != config.n_layer:
        raise InputError(f"{folder}: weights of {blocks} layers, but config.json says n_layer {config.n_layer}")
    stored = _untied(stored, config, folder)
    check_shapes(stored, gptj_shapes(config), folder)
    check_floats(stored, folder)
    device = choose_device(device)
    dtype = choose_dtype(dtype, device, stored)
    cfg = _hooked_config(config, dtype, device)
    with drawing(), warnings.catch_warnings(), building("meta"):  # Python's filters are all threads', too
        # TransformerLens 4 will not have it; 3.9 is pinned for it
        warnings.filterwarnings("ignore", message="HookedTransformer is deprecated", category=DeprecationWarning)
        lm = HookedGPTJ(cfg, move_to_device=False)

    # Taken out one by one, so that no more than one tensor exists in both dtypes
    weights = {name: view.to(device, dtype) for name, view in hooked_views(stored, config)}
    for name, parameter in lm.named_parameters():
        if name not in weights:  # the biases of attention, which GPT-J does not have
            weights[name] = torch.zeros(parameter.shape, dtype=dtype, device=device)
    lm.load_state_dict(weights, strict=False, assign=True)
    _set_buffers(lm, device)
    assert not any(t.is_meta for t in (*lm.parameters(), *lm.buffers()))

    _pad(tokenizer, config.vocab_size)
    # Assigned directly: set_tokenizer() would load a second one, with a beginning-of-text token
    lm.tokenizer = tokenizer
    lm.cfg.tokenizer_prepends_bos = False
    return lm.eval().requires_grad_(False)


def describe_lm(
    folder_or_hub_id: str | Path, revision: str | None = None
) -> tuple[GPTJConfig, PreTrainedTokenizerBase]:
    """The configuration and the tokenizer of a language model. No weights are opened, nor downloaded.

    Raises:
        InputError: as `load_hooked_gptj`, as far as its weights have no part in it.
    """
    folder = locate_lm(folder_or_hub_id, revision, weights=False)
    config = _read_config(folder)
    return config, _load_tokenizer(folder, config.vocab_size)


def locate_lm(folder_or_hub_id: str | Path, revision: str | None = None, weights: bool = True) -> Path:
    """The local folder of a language model; a hub id is downloaded into the Hugging Face cache first.

    A hub id may name its revision, which a config can then hold too: `EleutherAI/gpt-j-6B@float16`.

    Args:
        weights: False downloads all but them, a few megabytes, into the same folder.

    Raises:
        InputError: neither a folder nor something that the hub has.
    """
    folder = resolve(folder_or_hub_id)
    if folder.is_dir():
        return folder
    asked = str(folder_or_hub_id)
    name, _, named = asked.partition("@")
    revision = revision or named or None
    if folder.exists() or name.count("/") != 1 or name.startswith((".", "/", "~", "limber_weights/")):
        raise InputError(f"language model {asked!r}: no such folder; expected a Hugging Face GPT-J folder or a hub id")
    try:
        texts = ["*.json", "*.txt"]
        if not weights:
            return Path(snapshot_download(name, revision=revision, allow_patterns=texts))
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=[*texts, "*.safetensors"]))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=[*texts, "pytorch_model*.bin"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"language model {asked!r}: neither a folder here nor to be had from the hub: {error}"
        ) from error
    return folder


def lm_sha256(folder: str | Path) -> str:
    """sha256 over the weights in a folder, by tensor: independent of how they are sharded. Reads all of them once."""
    files = weight_files(Path(folder))
    return _sha256_of(Path(folder), tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@lru_cache(maxsize=8)
def _sha256_of(folder: Path, state: tuple) -> str:
    return tensors_sha256({k: t for k, t in read_tensors(folder).items() if not k.endswith(STORED_MASKS)})


def choose_dtype(dtype: str | torch.dtype, device: torch.device, stored: Mapping[str, Tensor]) -> torch.dtype:
    """What a checkpoint runs in: see `load_hooked_gptj`. On a CPU one that is not the checkpoint's is logged.

    Raises:
        InputError: an unknown name.
    """
    check_dtype(dtype)
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype != "auto":
        return DTYPES[dtype]
    found = stored["transformer.wte.weight"].dtype
    if device.type != "cpu":
        return found
    needed, free = 4 * sum(tensor.numel() for tensor in stored.values()), psutil.virtual_memory().available
    chosen = torch.float32 if needed < 0.8 * free else torch.bfloat16
    sizes = needed / 2**30, free / 2**30
    if chosen != found:
        logger.info("language model in %s: float32 takes %.2f of the %.2f GiB that are free", str(chosen)[6:], *sizes)
    return chosen


def check_dtype(dtype: str | torch.dtype) -> None:
    """Raise InputError if it is the name of none that a language model runs in."""
    if isinstance(dtype, str) and dtype not in ("auto", *DTYPES):
        raise InputError(f"dtype {dtype!r}: expected auto, {', '.join(DTYPES)}")


def gptj_shapes(config: GPTJConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a GPTJForCausalLM checkpoint."""
    d_model, d_mlp, d_vocab = config.n_embd, config.n_inner or 4 * config.n_embd, config.vocab_size
    shapes: dict[str, tuple[int, ...]] = {"transformer.wte.weight": (d_vocab, d_model)}
    for layer in range(config.n_layer):
        block = f"transformer.h.{layer}"
        shapes |= {f"{block}.ln_1.weight": (d_model,), f"{block}.ln_1.bias": (d_model,)}
        shapes |= {f"{block}.attn.{x}_proj.weight": (d_model, d_model) for x in ("q", "k", "v", "out")}
        shapes |= {f"{block}.mlp.fc_in.weight": (d_mlp, d_model), f"{block}.mlp.fc_in.bias": (d_mlp,)}
        shapes |= {f"{block}.mlp.fc_out.weight": (d_model, d_mlp), f"{block}.mlp.fc_out.bias": (d_model,)}
    shapes |= {"transformer.ln_f.weight": (d_model,), "transformer.ln_f.bias": (d_model,)}
    return shapes | {"lm_head.weight": (d_vocab, d_model), "lm_head.bias": (d_vocab,)}


def gptj_6b_on_the_hub(name: str) -> dict[str, Tensor] | None:
    """The tensors of GPT-J-6B as the hub has them, on the meta device; None for another name.

    `EleutherAI/gpt-j-6B` is in float32 (24 GB), its revision `float16` half as large.
    """
    dtypes = {"EleutherAI/gpt-j-6B": torch.float32, "EleutherAI/gpt-j-6B@float16": torch.float16}
    if name not in dtypes:
        return None
    return {
        tensor: torch.empty(shape, dtype=dtypes[name], device="meta")
        for tensor, shape in gptj_shapes(GPTJConfig()).items()  # whose defaults are that model
    }


def hooked_views(stored: Mapping[str, Tensor], config: GPTJConfig) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a GPTJForCausalLM checkpoint under TransformerLens's names, each a view in its layout."""
    heads = config.n_head
    yield "embed.W_E", stored["transformer.wte.weight"]
    for layer in range(config.n_layer):
        hf, tl = f"transformer.h.{layer}", f"blocks.{layer}"
        for norm in ("ln1", "ln2"):  # attention and MLP read through the same LayerNorm
            yield f"{tl}.{norm}.w", stored[f"{hf}.ln_1.weight"]
            yield f"{tl}.{norm}.b", stored[f"{hf}.ln_1.bias"]
        for x in ("q", "k", "v"):
            weight = stored[f"{hf}.attn.{x}_proj.weight"]
            yield (
                f"{tl}.attn.W_{x.upper()}",
                rearrange(weight, "(head d_head) d_model -> head d_model d_head", head=heads),
            )
        out = stored[f"{hf}.attn.out_proj.weight"]
        yield f"{tl}.attn.W_O", rearrange(out, "d_model (head d_head) -> head d_head d_model", head=heads)
        for tl_name, hf_name in (("in", "fc_in"), ("out", "fc_out")):
            yield f"{tl}.mlp.W_{tl_name}", stored[f"{hf}.mlp.{hf_name}.weight"].T
            yield f"{tl}.mlp.b_{tl_name}", stored[f"{hf}.mlp.{hf_name}.bias"]
    yield "ln_final.w", stored["transformer.ln_f.weight"]
    yield "ln_final.b", stored["transformer.ln_f.bias"]
    yield "unembed.W_U", stored["lm_head.weight"].T
    yield "unembed.b_U", stored["lm_head.bias"]


def _n_blocks(stored: Mapping[str, Tensor]) -> int:
    return sum(bool(FIRST_OF_BLOCK.fullmatch(name)) for name in stored)


def _read_config(folder: Path) -> GPTJConfig:
    values = read_json(folder / "config.json")
    if (found := values.get("model_type")) != "gptj":
        raise InputError(f"{folder}: not a GPT-J: config.json says model_type {found!r}, expected 'gptj'")
    with reading(folder / "config.json", "describes no GPT-J"):
        _check_config(values)
        return GPTJConfig(**values)


def _check_config(values: Mapping[str, Any]) -> None:
    """Raise a ValueError that names the first key under which there is no GPT-J that can be computed."""
    described = {"n_inner": None, **GPTJConfig().to_dict(), **values}
    for key in ("n_positions", "n_embd", "n_layer", "n_head", "vocab_size", "rotary_dim", "n_inner"):
        if key == "n_inner" and described[key] is None:
            continue
        if type(described[key]) is not int or not 1 <= described[key] <= LARGEST:
            raise ValueError(f"{key}: found {described[key]!r}, expected a number from 1 to {LARGEST:,}")
    d_head, rest = divmod(described["n_embd"], described["n_head"])
    if rest or described["rotary_dim"] % 2 or described["rotary_dim"] > d_head:
        raise ValueError("n_head must divide n_embd, and rotary_dim be even and no more than what is left for a head")
    if (name := described["activation_function"]) not in ACTIVATIONS:
        raise ValueError(f"activation_function: found {name!r}, expected one of {', '.join(sorted(ACTIVATIONS))}")
    epsilon = described["layer_norm_epsilon"]
    if not (isinstance(epsilon, float) and 0 < epsilon < 1):
        raise ValueError(f"layer_norm_epsilon: found {epsilon!r}, expected a number between 0 and 1")


def _untied(stored: Mapping[str, Tensor], config: GPTJConfig, folder: Path) -> dict[str, Tensor]:
    """The tensors with the head that a checkpoint of tied embeddings leaves out, as transformers makes it."""
    tied = dict(stored)
    if config.tie_word_embeddings and "transformer.wte.weight" in tied:
        if "lm_head.weight" not in tied:
            logger.info("%s: tie_word_embeddings: the token embedding is the head, too", folder)
            tied["lm_head.weight"] = tied["transformer.wte.weight"]
        if "lm_head.bias" not in tied:
            logger.info("%s: tie_word_embeddings: no bias of the head is stored, so it is zero", folder)
            tied["lm_head.bias"] = torch.zeros(len(tied["transformer.wte.weight"]), dtype=tied["lm_head.weight"].dtype)
    return tied


def _load_tokenizer(folder: Path, rows: int) -> PreTrainedTokenizerBase:
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise InputError(f"{folder}: no tokenizer; expected tokenizer.json, or vocab.json and merges.txt")
    with reading(folder, "the tokenizer cannot be read"):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, padding_side="left")
        ids = tokenizer("A picture of", add_special_tokens=False)["input_ids"]  # some settings break only in use
        if not isinstance(tokenizer.decode(ids), str):
            raise TypeError("it makes no text of tokens")
        if tokenizer.eos_token_id is None:
            raise InputError(f"{folder}: the tokenizer has no end-of-text token, expected <|endoftext|>")
        try:
            text_rows(tokenizer, rows)
        except InputError as error:
            raise InputError(f"{folder}: {error}") from None
    return tokenizer


def _pad(tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Let the tokenizer pad with what no text holds, on the left; see `load_hooked_gptj`."""
    known, added = tokenizer.get_vocab(), tokenizer.added_tokens_decoder
    padding, others = tokenizer.pad_token_id, (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id)
    if padding not in (None, *others) and padding < rows and padding in added and added[padding].special:
        return
    fillers = [name for name, id in known.items() if name.startswith(FILLER) and id < rows]
    if fillers:
        tokenizer.pad_token = max(fillers, key=known.__getitem__)
    elif len(tokenizer) < rows:
        tokenizer.add_special_tokens({"pad_token": f"{FILLER}1|>"})
    if tokenizer.pad_token_id in (None, *others) or tokenizer.pad_token_id >= rows:
        tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "right"
        logger.info("language model: no row of its embedding is free for padding; texts are padded on the right")


def _hooked_config(config: GPTJConfig, dtype: torch.dtype, device: torch.device) -> HookedTransformerConfig:
    return HookedTransformerConfig(
        model_name=config.model_type,
        original_architecture="GPTJForCausalLM",
        n_layers=config.n_layer,
        d_model=config.n_embd,
        n_heads=config.n_head,
        d_head=config.n_embd // config.n_head,
        d_mlp=config.n_inner or 4 * config.n_embd,
        n_ctx=config.n_positions,
        d_vocab=config.vocab_size,
        act_fn=ACTIVATIONS[config.activation_function],
        eps=config.layer_norm_epsilon,
        normalization_type="LN",
        parallel_attn_mlp=True,
        positional_embedding_type="rotary",
        rotary_dim=config.rotary_dim,
        rotary_adjacent_pairs=True,
        default_prepend_bos=False,
        init_weights=False,
        # LayerNorm rounds to this, whatever the parameters' dtype: it has to be the one that the model runs in
        dtype=dtype,
        device=str(device),
    )


def _set_buffers(lm: HookedTransformer, device: torch.device) -> None:
    """Give the attention its buffers; the rotary tables in float32 (in half precision they cost accuracy) and whole."""
    attention = lm.blocks[0].attn
    with building():
        sin, cos = attention.calculate_sin_cos_rotary(lm.cfg.rotary_dim, lm.cfg.n_ctx, base=lm.cfg.rotary_base)
        sin, cos, ignore = sin.to(device), cos.to(device), torch.tensor(-torch.inf, device=device)
    for block in lm.blocks:
        block.attn.rotary_sin, block.attn.rotary_cos, block.attn.IGNORE = sin, cos, ignore
        block.attn.mask = torch.empty((0, 0), dtype=torch.bool, device=device)
