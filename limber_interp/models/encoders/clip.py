"""What OpenAI's CLIPs share, whatever their image tower is: preprocessing, and where their weights come from."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
from torch import nn

from limber_interp.config import LimberConfig
from limber_interp.errors import InputError
from limber_interp.models.encoders.base import from_hub
from limber_interp.models.encoders.preprocessing import three_numbers
from limber_interp.weights import load_tensors, read_json, read_tensors

logger = logging.getLogger(__name__)

DESCRIPTION = "open_clip_config.json"
# open_clip takes the size from the architecture, converts to RGB always, and fills where it pads, which is never here
KNOWN = {"mean", "std", "interpolation", "resize_mode", "size", "mode", "fill_color"}
INTERPOLATION = {"bicubic": "bicubic", "bilinear": "bilinear", "random": "bicubic"}  # random in training alone


def clip_preprocessing(weights: Path | None) -> dict[str, Any]:
    """As in Radford et al., arXiv 2103.00020, but for what `preprocess_cfg` says in the open_clip_config.json that may
    lie beside the weights, which is read as open_clip reads it.

    Raises:
        InputError: a value that is not known, or a way of resizing that is not supported.
    """
    described, source = _preprocess_cfg(weights)
    given = {key: value for key, value in described.items() if value is not None}
    if unknown := sorted(given.keys() - KNOWN):
        logger.warning("%s: keys that are not known, and not used: %s", source, ", ".join(unknown))
    mode, interpolation = given.get("resize_mode", "shortest"), given.get("interpolation", "bicubic")
    if mode not in ("shortest", "squash"):
        raise InputError(f"{source}: resize_mode: expected 'shortest' or 'squash', found {mode!r}")
    if interpolation not in tuple(INTERPOLATION):
        raise InputError(f"{source}: interpolation: expected 'bicubic' or 'bilinear', found {interpolation!r}")
    if given.get("mode", "RGB") != "RGB":
        raise InputError(f"{source}: mode: expected 'RGB', found {given['mode']!r}")
    return {
        "resize": "short side" if mode == "shortest" else "both sides",
        "interpolation": INTERPOLATION[interpolation],
        "crop": "center" if mode == "shortest" else None,
        "mean": three_numbers(given.get("mean", open_clip.OPENAI_DATASET_MEAN), "mean", source),
        "std": three_numbers(given.get("std", open_clip.OPENAI_DATASET_STD), "std", source),
    }


def _preprocess_cfg(weights: Path | None) -> tuple[Mapping[str, Any], str]:
    path = None if weights is None else weights / DESCRIPTION
    if path is None or not path.is_file():
        return {}, "preprocess_cfg"
    described = read_json(path).get("preprocess_cfg")
    if not isinstance(described, dict | None):
        raise InputError(f"{path}: preprocess_cfg: expected an object, found {described!r}")
    return described or {}, f"{path}: preprocess_cfg"


def load_visual(
    tower: nn.Module, config: LimberConfig, architecture: str, weights: Path | None, unused: tuple[str, ...] = ()
) -> None:
    """Give a tower the image part of a whole CLIP, but what starts with `unused`: OpenAI's, if no weights are named."""
    if weights is None:
        openai = open_clip.get_pretrained_cfg(architecture, "openai")
        weights = Path(from_hub(config.encoder_name, lambda: open_clip.download_pretrained(openai)))
    visual = {key.removeprefix("visual."): t for key, t in read_tensors(weights).items() if key.startswith("visual.")}
    load_tensors(tower, {key: t for key, t in visual.items() if not key.startswith(unused)}, weights)
