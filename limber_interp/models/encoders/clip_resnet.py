"""CLIP ResNets: RN50x16 (LIMBER's), RN50x4, and small ones described beside their weights."""

from functools import partial
from pathlib import Path
from typing import ClassVar

import open_clip
from einops import rearrange
from jaxtyping import Float
from open_clip.modified_resnet import ModifiedResNet
from torch import Tensor, nn

from limber_interp.config import LimberConfig
from limber_interp.errors import reading
from limber_interp.models.encoders.base import Encoder, built, describe
from limber_interp.models.encoders.clip import DESCRIPTION, clip_preprocessing, load_visual


class ClipResNet(Encoder):
    """CLIP's ModifiedResNet without its attention pooling: the last feature map, `b d h w -> b (h w) d`.

    Radford et al., arXiv 2103.00020; its spatial features as MAGMA (arXiv 2112.05253) and LIMBER take them. It was
    trained on images with captions, so what its vectors hold may have been named by language before.

    Random weights keep the initial batch-norm statistics (mean 0, variance 1) and residual branches whose last scale is
    0, so that what comes out is tiny: estimate the statistics on some images before a random CLIP serves as a control.
    """

    ARCHITECTURES: ClassVar = {
        "clip_resnet_large": "RN50x16",
        "RN50x16": "RN50x16",
        "clip_resnet": "RN50x4",
        "RN50x4": "RN50x4",
    }
    NAMES = (*ARCHITECTURES, "emoji_clip")

    @classmethod
    def load(cls, config: LimberConfig, weights: Path | None) -> Encoder:
        name = config.encoder_name
        if name in cls.ARCHITECTURES:
            model_cfg = open_clip.get_model_config(cls.ARCHITECTURES[name])
        else:
            described = describe(name, weights, DESCRIPTION, ("model_cfg",))
            model_cfg = described["model_cfg"]
        description = None if name in cls.ARCHITECTURES else Path(f"{weights}/{DESCRIPTION}")
        with reading(description or name, "describes no CLIP ResNet"):
            vision, d_embed = model_cfg["vision_cfg"], model_cfg["embed_dim"]
            layers, size, first = (vision[key] for key in ("layers", "image_size", "width"))
            width = 32 * first  # three doublings after the first stage, and a bottleneck's expansion by 4
            heads = width // vision.get("head_width", 64)
            if not all(type(number) is int and number > 0 for number in (*layers, size, first, d_embed, heads)):
                raise ValueError("layers, image_size, width, head_width and embed_dim: expected whole numbers")
        tower = built(description, partial(ModifiedResNet, layers, d_embed, heads, size, first))
        tower.attnpool = nn.Identity()
        if config.pretrained_img_encoder:
            load_visual(tower, config, cls.ARCHITECTURES.get(name, ""), weights, unused=("attnpool.",))
        rows = size // 32
        return cls(config, tower, size, width, (rows, rows), clip_preprocessing(weights))

    def forward(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch image_pos d_encoder"]:
        return rearrange(self.tower(pixels), "b d h w -> b (h w) d")
