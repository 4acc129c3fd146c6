"""From an image to what an encoder is given, as its `preprocessing` describes it, and back.

resize          "short side" (the longer one follows), "both sides", or None
resize_to       pixels of the short side, or [height, width]; where left out, the encoder's `image_size`
interpolation   "bilinear", "bicubic"
crop            "center"; "center, rounded down" where half a pixel goes the other way, and what is too small gets a
                black border; or None
rescale         what the values, 0 to 255, are multiplied by; where left out, 1 / 255
mean, std       of each channel: subtracted and divided by at the end
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torchvision import transforms

from limber_interp.errors import InputError


def transform_of(preprocessing: Mapping[str, Any], size: int) -> transforms.Compose:
    """A function from a PIL image in RGB to pixels (3, size, size)."""
    steps: list[Any] = []
    if resize := preprocessing["resize"]:
        target = preprocessing.get("resize_to", size)
        if resize == "both sides" and isinstance(target, int):
            target = (target, target)
        interpolation = transforms.InterpolationMode(preprocessing["interpolation"])
        steps.append(transforms.Resize(target, interpolation))
    match preprocessing["crop"]:
        case "center":
            steps.append(transforms.CenterCrop(size))
        case "center, rounded down":
            steps.append(_Crop(size))
    if "rescale" in preprocessing:
        steps.append(_Rescale(preprocessing["rescale"]))
    else:  # not ToTensor(), which gives numbers in torch's default dtype
        steps += [transforms.PILToTensor(), transforms.ConvertImageDtype(torch.float32)]
    steps.append(transforms.Normalize(preprocessing["mean"], preprocessing["std"]))
    return transforms.Compose(steps)


def without_normalisation(
    pixels: Float[Tensor, "3 height width"], preprocessing: Mapping[str, Any]
) -> Float[Tensor, "3 height width"]:
    """Preprocessed pixels, in [0, 1]."""
    numbers = (torch.tensor(preprocessing[key], dtype=torch.float32, device="cpu") for key in ("mean", "std"))
    mean, std = (number.view(3, 1, 1) for number in numbers)
    values = pixels.detach().cpu().float() * std + mean
    return (values / (255 * preprocessing["rescale"]) if "rescale" in preprocessing else values).clamp(0, 1)


def three_numbers(value: Any, key: str, source: str) -> list[float]:
    """A mean or a standard deviation as the files of libraries have it: one number for each channel, or one for all.

    Raises:
        InputError: something else, a number that is not finite, or a deviation that is not positive.
    """
    numbers = list(value) if isinstance(value, list | tuple) else [value] * 3
    plain = all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers)
    if not (plain and len(numbers) == 3 and all(map(math.isfinite, numbers))):
        raise InputError(f"{source}: {key}: expected three numbers, found {value!r}")
    if key.endswith("std") and min(numbers) <= 0:
        raise InputError(f"{source}: {key}: expected numbers above 0, found {value!r}")
    return [float(number) for number in numbers]


class _Crop:
    """The middle as transformers takes it. Pillow fills what lies outside of an image with black."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, image: Image.Image) -> Image.Image:
        left, top = (image.width - self.size) // 2, (image.height - self.size) // 2
        return image.crop((left, top, left + self.size, top + self.size))


class _Rescale:
    """From 8 bits to floats by another factor than 1 / 255."""

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.to_tensor = transforms.PILToTensor()

    def __call__(self, image: Image.Image) -> Float[Tensor, "3 height width"]:
        return self.to_tensor(image).float() * self.factor
