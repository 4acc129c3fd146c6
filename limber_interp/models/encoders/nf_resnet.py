"""NF-ResNets: timm's nf_resnet50 (LIMBER's), and small ones described beside their weights."""

import logging
from functools import partial
from pathlib import Path

import timm
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from limber_interp.config import LimberConfig
from limber_interp.errors import InputError
from limber_interp.models.encoders.base import Encoder, built, describe, from_hub
from limber_interp.weights import load_tensors, read_tensors

logger = logging.getLogger(__name__)

TIMMS = ("input_size", "mean", "std", "crop_pct", "crop_mode", "interpolation")  # as timm's config.json has them
TIMM_FILES = {"pretrained", "num_classes", "checkpoint_path", "cache_dir", "pretrained_cfg", "pretrained_cfg_overlay"}


class NFResNet(Encoder):
    """A normaliser-free ResNet without its head, averaged over all places: one vector, no grid.

    Brock et al., arXiv 2101.08692; timm's `nf_resnet50`, trained on ImageNet's categories, without any language.

    LIMBER gives it random crops and flips of training even at inference, and pixels without mean and std. Here the same
    pixels in [0, 1], resized and cropped the same way every time. So what timm's own description says of preprocessing
    (`pretrained_cfg`: mean, std, crop_pct, interpolation) is not done here either, which is logged.
    """

    NAMES = ("nfresnet50", "emoji_nfresnet")

    @classmethod
    def load(cls, config: LimberConfig, weights: Path | None) -> Encoder:
        name, architecture, arguments, image_size = config.encoder_name, "nf_resnet50", {}, config.image_size
        if name != "nfresnet50":
            described = describe(name, weights, "config.json", ("architecture", "model_args", "image_size"))
            architecture, arguments = described["architecture"], described["model_args"]
            image_size = described["image_size"]
            if not (isinstance(architecture, str) and isinstance(arguments, dict) and type(image_size) is int):
                raise InputError(f"{weights}/config.json: expected a name of timm's, its arguments, and an image_size")
            if forbidden := TIMM_FILES & arguments.keys():
                raise InputError(f"{weights}/config.json: model_args must not name files, found {min(forbidden)}")
            timms = described.get("pretrained_cfg")
            if isinstance(timms, dict) and (unused := [key for key in TIMMS if key in timms]):
                keys = ", ".join(unused)
                logger.info("%s: LIMBER gives plain pixels; pretrained_cfg's %s are not used", weights, keys)
        download = config.pretrained_img_encoder and weights is None
        create = partial(timm.create_model, architecture, pretrained=download, num_classes=0, **arguments)
        stored = read_tensors(weights) if config.pretrained_img_encoder and weights is not None else None
        description = None if name == "nfresnet50" else Path(f"{weights}/config.json")
        tower = from_hub(name, create) if download else built(description, create, stored)
        if stored is not None:
            load_tensors(tower, {key: t for key, t in stored.items() if not key.startswith("head.fc.")}, str(weights))
        preprocessing = {
            "resize": "short side",
            "interpolation": "bilinear",
            "crop": "center",
            "mean": [0.0] * 3,
            "std": [1.0] * 3,
        }
        return cls(config, tower, image_size, tower.num_features, None, preprocessing)

    def forward(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch image_pos d_encoder"]:
        return rearrange(self.tower(pixels), "b d -> b 1 d")
