"""What OpenAI's CLIPs share, whatever their image tower is: preprocessing, and where their weights come from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
from torch import nn

from limber_interp.config import LimberConfig
from limber_interp.models.encoders.base import from_hub
from limber_interp.weights import load_tensors, read_tensors


def clip_preprocessing(described: Mapping[str, Any]) -> dict[str, Any]:
    """Radford et al., arXiv 2103.00020; mean and std may be described beside the weights."""
    return {
        "resize": "short side",
        "interpolation": "bicubic",
        "crop": "center",
        "mean": list(described.get("mean", open_clip.OPENAI_DATASET_MEAN)),
        "std": list(described.get("std", open_clip.OPENAI_DATASET_STD)),
    }


def load_visual(
    tower: nn.Module, config: LimberConfig, architecture: str, weights: Path | None, unused: tuple[str, ...] = ()
) -> None:
    """Give a tower the image part of a whole CLIP, but what starts with `unused`: OpenAI's, if no weights are named."""
    if weights is None:
        openai = open_clip.get_pretrained_cfg(architecture, "openai")
        weights = Path(from_hub(config.encoder_name, lambda: open_clip.download_pretrained(openai)))
    visual = {key.removeprefix("visual."): t for key, t in read_tensors(weights).items() if key.startswith("visual.")}
    load_tensors(tower, {key: t for key, t in visual.items() if not key.startswith(unused)}, weights)
