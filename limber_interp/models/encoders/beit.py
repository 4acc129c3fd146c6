"""BEiTs: the two large ones that LIMBER uses, and small ones in folders of the Hugging Face kind."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
from huggingface_hub import hf_hub_download
from jaxtyping import Float
from torch import Tensor
from transformers import BeitConfig, BeitModel

from limber_interp.config import LimberConfig
from limber_interp.errors import InputError, reading
from limber_interp.models.encoders.base import Encoder, built, describe, from_hub
from limber_interp.models.encoders.beit_processor import PROCESSOR_FILE, beit_preprocessing
from limber_interp.weights import read_json, read_tensors


class Beit(Encoder):
    """BEiT's last hidden state without the class token.

    Bao et al., arXiv 2106.08254: trained to predict masked patches (`pt22k`), and from there on the categories of
    ImageNet-22k (`ft22k`); neither saw any language.
    """

    # What the hub's config.json and preprocessor_config.json say, for random weights without a download
    LARGE: ClassVar = {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    }
    ARCHITECTURES: ClassVar = {
        "microsoft/beit-large-patch16-224-pt22k": {
            **LARGE,
            "use_shared_relative_position_bias": True,
            "use_mask_token": True,
        },
        "microsoft/beit-large-patch16-224-pt22k-ft22k": {**LARGE, "use_relative_position_bias": True},
    }
    PROCESSOR: ClassVar = {"resample": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    NAMES = (*ARCHITECTURES, "emoji_beit")

    @classmethod
    def load(cls, config: LimberConfig, weights: Path | None) -> Encoder:
        name = config.encoder_name
        if weights is None and name in cls.ARCHITECTURES:
            architecture, processor = BeitConfig(**cls.ARCHITECTURES[name]), cls.PROCESSOR
            if config.pretrained_img_encoder:
                of_the_hub = from_hub(name, partial(hf_hub_download, name, PROCESSOR_FILE))
                processor = {**processor, **read_json(Path(of_the_hub))}
        else:
            described = describe(name, weights, "config.json", ("image_size", "patch_size"))
            with reading(f"{weights}/config.json", "describes no BEiT"):
                architecture = BeitConfig(**described)
                if not all(type(described[key]) is int and described[key] > 0 for key in ("image_size", "patch_size")):
                    raise ValueError("image_size and patch_size: expected whole numbers of pixels")
            processor = describe(name, weights, PROCESSOR_FILE, ())
        source = f"{name if weights is None else weights}/{PROCESSOR_FILE}"
        preprocessing = beit_preprocessing(processor, architecture.image_size, source)
        description = None if weights is None else weights / "config.json"
        if config.pretrained_img_encoder and weights is not None:
            stored = read_tensors(weights)
            tower = built(description, partial(BeitModel, architecture, add_pooling_layer=False), stored)
            with reading(weights, "its weights are not those of a BEiT"):
                tower = _pretrained_beit(weights, architecture, stored)
        elif config.pretrained_img_encoder:
            tower = from_hub(name, partial(_pretrained_beit, name, architecture))
        else:
            tower = built(description, partial(BeitModel, architecture, add_pooling_layer=False))
        rows = architecture.image_size // architecture.patch_size
        return cls(config, tower, architecture.image_size, architecture.hidden_size, (rows, rows), preprocessing)

    def forward(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch image_pos d_encoder"]:
        return self.tower(pixels).last_hidden_state[:, 1:]


def _pretrained_beit(
    source: str | Path, architecture: BeitConfig, stored: Mapping[str, Tensor] | None = None
) -> BeitModel:
    """A BEiT with the tensors given, or else with those that `source` is the hub's name of."""
    # Through transformers, which knows the names that older versions gave to the tensors
    tower, info = BeitModel.from_pretrained(
        source if stored is None else None,
        config=architecture,
        state_dict=stored,
        add_pooling_layer=False,
        dtype=torch.float32,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    for tensor, found, expected in info["mismatched_keys"]:
        raise InputError(f"{source}: tensor {tensor!r}: found shape {tuple(found)}, expected {tuple(expected)}")
    if missing := sorted(info["missing_keys"]):
        raise InputError(f"{source}: tensor {missing[0]!r} is missing")
    return tower
