"""The frozen image encoders: one class per family, which owns all that is known about it."""

from pathlib import Path

import torch

from limber_interp.config import LimberConfig
from limber_interp.devices import building
from limber_interp.errors import InputError, nearest
from limber_interp.models.encoders.base import Encoder
from limber_interp.models.encoders.beit import Beit
from limber_interp.models.encoders.clip_resnet import ClipResNet
from limber_interp.models.encoders.clip_vit import ClipViT
from limber_interp.models.encoders.nf_resnet import NFResNet
from limber_interp.resources import resolve
from limber_interp.threads import drawing

__all__ = [
    "Beit",
    "ClipResNet",
    "ClipViT",
    "Encoder",
    "NFResNet",
    "blank_encoder",
    "check_weights_are_there",
    "encoder_names",
    "load_encoder",
]

FAMILIES: tuple[type[Encoder], ...] = (ClipResNet, ClipViT, NFResNet, Beit)


def encoder_names() -> list[str]:
    """All that a config's `encoder_name` may say."""
    return sorted(name for family in FAMILIES for name in family.NAMES)


def load_encoder(config: LimberConfig, device: str | torch.device = "cpu") -> Encoder:
    """Build the encoder that a config names, in float32.

    Its weights come from `encoder_weights` (a file, or a folder that also describes the architecture), or else from
    where the library keeps them on the hub; with `pretrained_img_encoder: false` they are drawn from `seed`. The global
    random state is left as it was.

    Raises:
        InputError: unknown name, missing or truncated weights, a tensor of the wrong shape, or an `image_size` other
            than the architecture's.
    """
    return _load(config, "cpu").to(device)


def _load(config: LimberConfig, device: str) -> Encoder:
    families = [family for family in FAMILIES if config.encoder_name in family.NAMES]
    if not families:
        raise InputError(
            f"unknown encoder {config.encoder_name!r}; nearest: {nearest(config.encoder_name, encoder_names())}"
        )
    weights = check_weights_are_there(config)
    with drawing(config.seed), building(device):
        return families[0].load(config, weights)


def check_weights_are_there(config: LimberConfig) -> Path | None:
    """Where the weights are that a config names; None where a library fetches them.

    Raises:
        InputError: nothing is there.
    """
    weights = resolve(config.encoder_weights) if config.encoder_weights else None
    if weights is not None and not weights.exists():
        raise InputError(f"encoder weights {weights}: no such file or folder; put them there, or name others")
    return weights


def blank_encoder(config: LimberConfig) -> Encoder:
    """The encoder that a config names without any weights, on the meta device: for its shapes, at no cost.

    Raises:
        InputError: as `load_encoder`, as far as no weights are read.
    """
    return _load(config.model_copy(update={"pretrained_img_encoder": False}), "meta")
