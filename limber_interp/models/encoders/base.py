"""What all image encoders share: how an image becomes pixels, what is known about the output, and the hash."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from einops import rearrange
from huggingface_hub.errors import HfHubHTTPError
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from torch import Tensor, nn

from limber_interp.config import LimberConfig
from limber_interp.devices import building
from limber_interp.errors import InputError, reading
from limber_interp.images import ImageSource, load_image
from limber_interp.models.encoders.preprocessing import transform_of, without_normalisation
from limber_interp.threads import drawing
from limber_interp.weights import read_json, tensors_sha256

T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)

LARGEST = 10**10  # parameters
SLACK = 10**7  # of a part that a tower is made with and its file has not, such as a head
DEEPEST = 10_000  # the largest number that a description holds
DEPTHS = ("num_hidden_layers", "depths", "layers", "text_layers", "vision_layers")
MOST_LAYERS = 200


class Encoder(nn.Module, ABC):
    """A frozen image encoder, in eval mode from the moment it is built: one vector per position.

    Attributes:
        name: as in a config's `encoder_name`.
        image_size: pixels on each side of what it is given.
        d_encoder: width of each vector it gives.
        grid: (rows, columns) of the patches that its positions stand for, in reading order; None if it pools them.
        n_positions: number of vectors it gives.
        preprocessing: what is done to an image, see `encoders.preprocessing`. `preprocess` is built from it.
        drawn: its weights were drawn at random, from the config's seed.
    """

    NAMES: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        config: LimberConfig,
        tower: nn.Module,
        image_size: int,
        d_encoder: int,
        grid: tuple[int, int] | None,
        preprocessing: Mapping[str, Any],
    ) -> None:
        if config.image_size != image_size:
            raise InputError(
                f"encoder {config.encoder_name} takes images of {image_size} x {image_size} pixels; "
                f"found image_size {config.image_size} in the config"
            )
        super().__init__()
        self.name = config.encoder_name
        self.tower = tower
        self.image_size = image_size
        self.d_encoder = d_encoder
        self.grid = grid
        self.n_positions = grid[0] * grid[1] if grid else 1
        self.preprocessing = dict(preprocessing)
        self.drawn = not config.pretrained_img_encoder
        self._transform = transform_of(self.preprocessing, image_size)
        self.eval().requires_grad_(False)

    @classmethod
    @abstractmethod
    def load(cls, config: LimberConfig, weights: Path | None) -> "Encoder":
        """Build the encoder; `weights` is the file or folder that `encoder_weights` names, if it names one."""

    @abstractmethod
    def forward(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch image_pos d_encoder"]:
        """Encode preprocessed images."""

    def preprocess(self, image: ImageSource) -> Float[Tensor, "3 height width"]:
        """What the encoder is given for an image: RGB, resized, cropped, scaled to [0, 1] and normalised.

        Raises:
            InputError: as `load_image`.
        """
        return self._transform(load_image(image))

    def visible(self, pixels: Float[Tensor, "3 height width"]) -> UInt8[np.ndarray, "height width 3"]:
        """The part of the image that the encoder sees, as 8-bit RGB: `preprocess` without its normalisation."""
        rgb = 255 * without_normalisation(pixels, self.preprocessing)
        return rearrange(rgb.round().to(torch.uint8), "c h w -> h w c").numpy()

    @cached_property
    def sha256(self) -> str:
        """Of all its tensors; of drawn ones only the signs, because a CPU without AVX2 draws other last bits."""
        state = self.tower.state_dict()
        return tensors_sha256({name: tensor > 0 for name, tensor in state.items()} if self.drawn else state)


def describe(name: str, folder: Path | None, file: str, keys: tuple[str, ...]) -> dict[str, Any]:
    """The description of an architecture that lies beside its weights."""
    if folder is None or not folder.is_dir():
        raise InputError(f"encoder {name}: encoder_weights names no folder ({folder}); expected one that holds {file}")
    described = read_json(folder / file)
    if missing := [key for key in keys if key not in described]:
        raise InputError(f"{folder / file}: key {missing[0]!r} is missing")
    if (found := max(_numbers(described), default=0)) > DEEPEST:
        raise InputError(f"{folder / file}: found the number {found:.3g}, which is no encoder's; mend the file")
    check_layers(described, folder / file)
    return described


def check_layers(described: dict[str, Any], file: Path) -> None:
    """Refuse a description with more layers than any encoder has: each takes a moment to build, even without memory.

    Raises:
        InputError: the key is named, and how many there are.
    """
    for key, layers in _depths(described):
        if layers > MOST_LAYERS:
            raise InputError(f"{file}: {key}: found {layers:g} layers, expected at most {MOST_LAYERS}; mend the file")


def _depths(described: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Numbers of layers by their keys, wherever they stand; of several stages their sum."""
    for key, value in described.items():
        if isinstance(value, dict):
            yield from _depths(value)
        elif key in DEPTHS:
            yield key, sum(_numbers(value))


def _numbers(value: Any) -> Iterator[float]:
    """All numbers in a JSON value, as their sizes."""
    if isinstance(value, int | float):
        yield abs(value)
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _numbers(item)


def built(description: Path | None, make: Callable[[], M], stored: Mapping[str, Tensor] | None = None) -> M:
    """An encoder's tower, made by the description that lies beside its weights.

    It is made once without memory before, so that what is larger than any encoder, or than the tensors that it would be
    given, is refused while it costs nothing.

    Args:
        description: the file. None: the architecture is a known one.
        stored: the tensors for it, where they have been read.

    Raises:
        InputError: the library makes nothing of the description, or something too large.
    """
    if description is None:
        return make()
    with reading(description, "describes no encoder that can be built"):
        with drawing(), building("meta"):
            size = sum(parameter.numel() for parameter in make().parameters())
        known = LARGEST if stored is None else 10 * sum(tensor.numel() for tensor in stored.values()) + SLACK
        if size > min(known, LARGEST):
            raise ValueError(f"{size:,} parameters, more than its weights have or than any encoder")
        return make()


def from_hub(name: str, fetch: Callable[[], T]) -> T:
    try:
        return fetch()
    except (OSError, RuntimeError, ValueError, HfHubHTTPError, SafetensorError) as error:
        raise InputError(
            f"encoder {name}: its weights cannot be had: {error}; download them where there is a network and name the "
            "folder in encoder_weights (--encoder-weights)"
        ) from error
