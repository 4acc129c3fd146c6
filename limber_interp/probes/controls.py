"""Chance levels that all probes share: soft prompts that say nothing about the image.

A probe's numbers mean nothing alone: the five nearest vocabulary tokens of a real soft prompt can be no better than
random (Schwettmann et al. 2023, arXiv 2308.01544). What a control shows as well is not a finding.
"""

import hashlib
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from limber_interp.errors import InputError
from limber_interp.models.encoders import Encoder, load_encoder
from limber_interp.models.limber import Limber

Level = Literal["none", "fast", "full"]

# Which controls a level runs: `fast` needs no other image and no other encoder
FAST = ("noise", "random_map")
CONTROLS = {"none": (), "fast": FAST, "full": (*FAST, "random_encoder", "mean_prompt", "other_images")}
DESCRIPTIONS = {
    "noise": "Gaussian vectors with the norms of the soft prompt's",
    "random_map": "the same encoding through a random linear map, with the norms of the soft prompt's",
    "random_encoder": "the image through the same encoder with random weights, with the norms of the soft prompt's",
    "mean_prompt": "the mean soft prompt of all images",
    "other_images": "soft prompts of other images",
}


def controls_of(level: str | bool) -> tuple[str, ...]:
    """Names of the controls of a level; True is `full`, False is `none`.

    Raises:
        InputError: no such level.
    """
    if isinstance(level, bool):
        level = "full" if level else "none"
    if level not in CONTROLS:
        raise InputError(f"controls {level!r} is unknown; use one of {', '.join(get_args(Level))}")
    return CONTROLS[level]


def generator(seed: int, control: str, index: int) -> torch.Generator:
    """The stream of random numbers of one control at the image of that index: independent of batches and devices."""
    digest = hashlib.sha256(f"{seed} {control} {index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def noise(
    soft_prompt: Float[Tensor, "pos d_model"], n_draws: int, generator: torch.Generator
) -> Float[Tensor, "draws pos d_model"]:
    """Directions drawn uniformly from the sphere, with the soft prompt's norm at each position.

    It answers: do the scores come from norms and from the shape of the vocabulary alone? Too easy a control where the
    positions of one image resemble each other, or where soft prompts share a direction: see `random_map`.
    """
    drawn = torch.randn(n_draws, *soft_prompt.shape, generator=generator, dtype=torch.float32, device="cpu").to(
        soft_prompt
    )
    return _with_norms_of(soft_prompt, drawn)


def random_map(
    encoding: Float[Tensor, "image_pos d_encoder"],
    soft_prompt: Float[Tensor, "pos d_model"],
    n_draws: int,
    generator: torch.Generator,
) -> Float[Tensor, "draws pos d_model"]:
    """The encoding through a linear map with independent Gaussian entries and no bias, each output rescaled to the norm
    of the soft prompt at its position; each draw is another map.

    It keeps the angles between positions as the encoder has them (up to the distortion of a random map) and loses what
    the trained projection adds: so it answers whether the projection is what makes the tokens near. With one position
    there are no angles to keep, and it is `noise`.

    The map itself is never written down: with encoding = L Q, Q's rows orthonormal, encoding @ map = L @ (Q @ map), and
    Q @ map has independent Gaussian entries too, but only as many as there are positions.
    """
    lower = torch.linalg.qr(encoding.float().T, mode="r").R.T
    width = soft_prompt.numel() // len(encoding)  # n_tokens * d_model
    drawn = torch.randn(n_draws, lower.shape[1], width, generator=generator, dtype=torch.float32, device="cpu").to(
        soft_prompt
    )
    return _with_norms_of(soft_prompt, (lower.to(soft_prompt) @ drawn).view(n_draws, *soft_prompt.shape))


class Substitutes:
    """Soft prompts in the place of an image's own, by the controls that need that image alone."""

    def __init__(self, model: Limber, seed: int) -> None:
        self.model = model
        self.seed = seed

    def draw(
        self,
        control: str,
        n_draws: int,
        generator: torch.Generator,
        pixels: Float[Tensor, "3 height width"],
        encoding: Float[Tensor, "image_pos d_encoder"],
        soft_prompt: Float[Tensor, "pos d_model"],
    ) -> Float[Tensor, "draws pos d_model"]:
        """The next n draws of `noise` or `random_map`; of `random_encoder` the same one each time."""
        match control:
            case "noise":
                return noise(soft_prompt, n_draws, generator)
            case "random_map":
                return random_map(encoding, soft_prompt, n_draws, generator)
            case "random_encoder":
                drawn = self.model.projection(self.random_encoder(pixels[None]))
                return _with_norms_of(soft_prompt, drawn.float()).expand(n_draws, -1, -1)
        raise AssertionError(control)

    @cached_property
    def random_encoder(self) -> Encoder:
        """The model's encoder with weights drawn from the seed; one for all images: drawing a large one is slow.

        It answers whether a trained encoder is needed. The projection was trained for another one, so that it does not
        say what a projection trained for a random encoder could do: that is `compare_encoders`' question.
        """
        drawn_from = int.from_bytes(hashlib.sha256(f"{self.seed} random_encoder".encode()).digest()[:4], "big") >> 1
        config = self.model.config.model_copy(update={"pretrained_img_encoder": False, "seed": drawn_from})
        return load_encoder(config).to(self.model.device)


def derangement(n: int, generator: torch.Generator) -> Int[np.ndarray, " n"]:
    """A random order of n ≥ 2 things in which none is in its own place: each image gets another's prompt."""
    order = torch.randperm(n, generator=generator, device="cpu").numpy()
    partners = np.empty(n, dtype=np.int64)
    partners[order] = np.roll(order, 1)  # one cycle through all of them
    return partners


def _with_norms_of(soft_prompt: Tensor, drawn: Tensor) -> Tensor:
    lengths = drawn.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(drawn.dtype).tiny)
    return drawn * (soft_prompt.norm(dim=-1, keepdim=True) / lengths)
