"""The two towers of a CLIP with their tokenizer, from open_clip or from a folder."""

import json
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from limber_interp.devices import building
from limber_interp.errors import InputError, nearest, reading
from limber_interp.evaluation.spelling import spelt
from limber_interp.models.encoders.base import SLACK, check_layers
from limber_interp.threads import drawing
from limber_interp.weights import WEIGHT_FILES, read_json, read_tensors

LARGEST = 10**10  # parameters of a CLIP
PUNCTUATION = string.punctuation + "…–—“”„«»¿¡"


class Clip(NamedTuple):
    """A CLIP in eval mode, what makes pixels of an image, and what makes tokens of texts."""

    model: Any  # open_clip has several classes; what they share is `encode_image` and `encode_text`
    preprocess: Callable[[Image.Image], Tensor]
    tokenizer: Callable[[Sequence[str]], Tensor]


def known_clip(architecture: str, pretrained: str | Path) -> Clip:
    """A CLIP by the name that open_clip has for it: see `ClipScorer.open_clip`."""
    config = open_clip.get_model_config(architecture)
    if config is None:
        raise InputError(f"unknown CLIP {architecture!r}; nearest: {nearest(architecture, open_clip.list_models())}")
    tag = open_clip.get_pretrained_cfg(architecture, str(pretrained))
    if not tag:
        if not Path(pretrained).is_file():
            tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture))
            raise InputError(f"CLIP {architecture}: no file {str(pretrained)!r}, and its pretrained tags are: {tags}")
        if {"hf_model_name", "hf_tokenizer_name"} & config["text_cfg"].keys():
            raise InputError(
                f"CLIP {architecture}: its tokenizer would be downloaded; name a pretrained tag, or a folder with it"
            )
    elif tag.get("quick_gelu", False) != config.get("quick_gelu", False):
        other = architecture.removesuffix("-quickgelu") + "-quickgelu" * tag.get("quick_gelu", False)
        raise InputError(f"CLIP {architecture}: {pretrained!r} was trained with other activations; name {other!r}")
    return _load(architecture, str(pretrained))


def clip_of_folder(folder: Path) -> Clip:
    """A CLIP that lies in a folder: see `ClipScorer.of_folder`."""
    config = read_json(folder / "open_clip_config.json")
    model_cfg = config.get("model_cfg")
    if not (isinstance(model_cfg, dict) and isinstance(model_cfg.get("text_cfg"), dict)):
        raise InputError(f"{folder / 'open_clip_config.json'}: no text tower in it (key model_cfg.text_cfg)")
    text_cfg = model_cfg["text_cfg"]
    if "hf_model_name" in text_cfg:
        raise InputError(f"CLIP {folder}: the architecture of its text tower would be downloaded; choose another CLIP")
    check_layers(model_cfg, folder / "open_clip_config.json")
    _check_size(folder)
    clip = _load(f"local-dir:{folder}")
    vocabulary = folder / "vocabulary.json"
    if vocabulary.exists():
        return clip._replace(tokenizer=_word_tokenizer(vocabulary, text_cfg))
    if isinstance(clip.tokenizer, open_clip.SimpleTokenizer) and clip.tokenizer.vocab_size > clip.model.vocab_size:
        raise InputError(
            f"{folder}: its text tower has {clip.model.vocab_size} tokens, and CLIP's tokenizer "
            f"{clip.tokenizer.vocab_size}; put its own words beside it, as vocabulary.json"
        )
    return clip


class WordTokenizer:
    """Whole words of a small vocabulary: lower case, between blanks, without punctuation around them.

    Words that it does not know are left out, since the text tower has nothing for them; `unknown` counts them. So a
    wrong word costs a caption nothing where it is none of the vocabulary.

    Args:
        words: by their ids; the first pads, the last ends a text.
        context: number of ids per text. Longer texts are cut, as CLIP's own tokenizer does.
    """

    def __init__(self, words: Sequence[str], context: int) -> None:
        self._ids = {spelt(word): i for i, word in enumerate(words[1:-1], start=1)}
        self._end = len(words) - 1
        self._context = context

    def __call__(self, texts: Sequence[str]) -> Int[Tensor, "n context"]:
        ids = torch.zeros(len(texts), self._context, dtype=torch.long)
        for row, text in zip(ids, texts, strict=True):
            known = [self._ids[word] for word in _words(text) if word in self._ids][: self._context - 1]
            row[: len(known) + 1] = torch.tensor([*known, self._end])
        return ids

    def unknown(self, texts: Sequence[str]) -> Counter[str]:
        """The words that are left out, and how often."""
        return Counter(word for text in texts for word in _words(text) if word not in self._ids)


def _words(text: str) -> list[str]:
    stripped = (word.strip(PUNCTUATION) for word in spelt(text.lower()).split())
    return [word for word in stripped if word]


def _word_tokenizer(vocabulary: Path, text_cfg: Mapping[str, Any]) -> WordTokenizer:
    with reading(vocabulary, "cannot be read as JSON"):
        words = json.loads(vocabulary.read_text(encoding="utf-8"))
    size, context = (text_cfg.get(key) for key in ("vocab_size", "context_length"))
    if type(context) is not int or context < 1:
        raise InputError(f"{vocabulary.parent}: context_length of the text tower: found {context!r}, expected a number")
    if not (isinstance(words, list) and len(words) == size and all(isinstance(word, str) for word in words)):
        raise InputError(f"{vocabulary}: expected a list of {size} words, as the text tower has")
    if len(words) < 2:
        raise InputError(f"{vocabulary}: expected words, the first to pad texts and the last to end them")
    return WordTokenizer(words, context)


def _check_size(folder: Path) -> None:
    """Make the model without memory, so that a description of something enormous is refused before it is allocated."""
    with reading(folder / "open_clip_config.json", "describes no CLIP that can be built"):
        with drawing(), building("meta"):
            model = open_clip.create_model(f"local-dir:{folder}", load_weights=False, device="meta")
        most = LARGEST
        if any((folder / name).is_file() for name in WEIGHT_FILES):  # without any, open_clip says so
            most = min(most, SLACK + 10 * sum(tensor.numel() for tensor in read_tensors(folder).values()))
        if (size := sum(parameter.numel() for parameter in model.parameters())) > most:
            raise ValueError(f"{size:,} parameters, more than its weights have or than any CLIP")


def _load(name: str, pretrained: str | None = None) -> Clip:
    weights = f" from {pretrained}" if pretrained else ""
    with reading(f"CLIP {name}", f"its weights cannot be had{weights}"):
        with drawing(), building():  # it draws weights before it reads them
            model, preprocess = open_clip.create_model_from_pretrained(name, pretrained)
        tokenizer = open_clip.get_tokenizer(name)
    return Clip(model.eval().requires_grad_(False), preprocess, tokenizer)
