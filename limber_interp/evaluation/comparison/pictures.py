"""The images that all entries are shown: opened and encoded once per encoder."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import reduce
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from limber_interp.config import LimberConfig
from limber_interp.datasets import Dataset, Example
from limber_interp.encodings import Encodings
from limber_interp.errors import InputError, check_at_least_one
from limber_interp.images import load_image
from limber_interp.models.encoders import load_encoder
from limber_interp.models.limber import Limber

THUMBNAIL = 128  # pixels of the longer side at most


@dataclass(frozen=True)
class First:
    """The first examples of a data set."""

    dataset: Dataset
    count: int

    @property
    def name(self) -> str:
        return self.dataset.name

    def __len__(self) -> int:
        return min(self.count, len(self.dataset))

    def __getitem__(self, index: int) -> Example:
        return self.dataset[index]

    def files(self) -> Iterator[Path]:
        return self.dataset.files()


def usable(encodings: Encodings, name: str, without: Collection[int] = ()) -> Int[np.ndarray, " images"]:
    """Indices of the images that could be opened.

    Args:
        without: indices of those that cannot be used for another reason.

    Raises:
        InputError: fewer than two.
    """
    rows = np.flatnonzero(encodings.kept)
    rows = rows[~np.isin(rows, list(without))]
    if len(rows) < 2:
        raise InputError(f"{name}: {len(rows)} usable images; a comparison takes two or more")
    return rows


def soft_prompts(
    model: Limber, encodings: Encodings, rows: Int[np.ndarray, " images"]
) -> Float[Tensor, "images prompt_pos d_model"]:
    """Of images by their indices, from what was encoded (float16) before."""
    encoding = torch.from_numpy(encodings.encoding(rows)).to(model.device, torch.float32)
    with torch.no_grad():
        return model.projection(encoding)


def mean_soft_prompt(
    model: Limber, encodings: Encodings, rows: Int[np.ndarray, " images"], batch_size: int = 64
) -> Float[Tensor, "prompt_pos d_model"]:
    """Over the images, at each position.

    Raises:
        InputError: a batch size below 1.
    """
    check_at_least_one(batch_size=batch_size)
    total = torch.zeros((), dtype=torch.float64)
    for start in range(0, len(rows), batch_size):
        batch = soft_prompts(model, encodings, rows[start : start + batch_size]).cpu().double()
        total = total + reduce(batch, "images pos d_model -> pos d_model", "sum")
    return (total / len(rows)).float()


def thumbnails(config: LimberConfig, examples: Sequence[Example]) -> list[UInt8[np.ndarray, "height width 3"]]:
    """The images as a config's encoder sees them, made smaller."""
    encoder = load_encoder(config)
    found = []
    for example in examples:
        seen = Image.fromarray(encoder.visible(encoder.preprocess(load_image(example.image))))
        seen.thumbnail((THUMBNAIL, THUMBNAIL))
        found.append(np.asarray(seen))
    return found
