"""NF-ResNets: timm's nf_resnet50 (LIMBER's), and small ones described beside their weights."""

import logging
from functools import partial
from pathlib import Path

import timm
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from limber_interp.config import LimberConfig
from limber_interp.models.encoders.base import Encoder, describe, from_hub
from limber_interp.weights import load_tensors, read_tensors

logger = logging.getLogger(__name__)

TIMMS = ("input_size", "mean", "std", "crop_pct", "crop_mode", "interpolation")  # as timm's config.json has them


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
            timms = described.get("pretrained_cfg")
            if isinstance(timms, dict) and (unused := [key for key in TIMMS if key in timms]):
                keys = ", ".join(unused)
                logger.info("%s: LIMBER gives plain pixels; pretrained_cfg's %s are not used", weights, keys)
        download = config.pretrained_img_encoder and weights is None
        create = partial(timm.create_model, architecture, pretrained=download, num_classes=0, **arguments)
        tower = from_hub(name, create) if download else create()
        if config.pretrained_img_encoder and weights is not None:
            stored = read_tensors(weights)
            load_tensors(tower, {key: t for key, t in stored.items() if not key.startswith("head.fc.")}, weights)
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
