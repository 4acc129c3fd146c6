"""CLIP's ViT-B/32: one vector for the whole image."""

from pathlib import Path
from typing import ClassVar

import open_clip
from einops import rearrange
from jaxtyping import Float
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import Tensor

from limber_interp.config import LimberConfig
from limber_interp.models.encoders.base import Encoder
from limber_interp.models.encoders.clip import clip_preprocessing, load_visual


class ClipViT(Encoder):
    """CLIP's image feature: the class token, normed and projected into the space shared with texts. No grid.

    Radford et al., arXiv 2103.00020. LIMBER takes what `encode_image` gives, which is not scaled to unit length; its
    projection makes `image_seq_len` rows of the prompt from it.
    """

    # OpenAI trained with QuickGELU; with the exact GELU of open_clip's plain "ViT-B-32" its weights give other features
    ARCHITECTURE: ClassVar = "ViT-B-32-quickgelu"
    NAMES = ("clip", "ViT-B/32")

    @classmethod
    def load(cls, config: LimberConfig, weights: Path | None) -> Encoder:
        model_cfg = open_clip.get_model_config(cls.ARCHITECTURE)
        vision, d_encoder = model_cfg["vision_cfg"], model_cfg["embed_dim"]
        tower = VisionTransformer(
            image_size=vision["image_size"],
            patch_size=vision["patch_size"],
            width=vision["width"],
            layers=vision["layers"],
            heads=vision["width"] // 64,
            mlp_ratio=4.0,
            output_dim=d_encoder,
            act_layer=QuickGELU,
        )
        if config.pretrained_img_encoder:
            load_visual(tower, config, cls.ARCHITECTURE, weights)
        return cls(config, tower, vision["image_size"], d_encoder, None, clip_preprocessing(weights))

    def forward(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch image_pos d_encoder"]:
        return rearrange(self.tower(pixels), "b d -> b 1 d")
