"""Chance levels that all probes share: soft prompts that say nothing about the image.

A probe's numbers mean nothing alone: the five nearest vocabulary tokens of a real soft prompt can be no better than
random (Schwettmann et al. 2023, arXiv 2308.01544). What a control shows as well is not a finding.
"""

import hashlib
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from limber_interp.errors import InputError

Level = Literal["none", "fast", "full"]

# Which controls a level runs: `fast` needs no image but the one that is looked at
CONTROLS = {"none": (), "fast": ("noise", "random_map"), "full": ("noise", "random_map", "other_images")}
DESCRIPTIONS = {
    "noise": "Gaussian vectors with the norms of the soft prompt's",
    "random_map": "the same encoding through a random linear map, with the norms of the soft prompt's",
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
    drawn = torch.randn(n_draws, *soft_prompt.shape, generator=generator).to(soft_prompt)
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
    drawn = torch.randn(n_draws, lower.shape[1], width, generator=generator).to(soft_prompt)
    return _with_norms_of(soft_prompt, (lower.to(soft_prompt) @ drawn).view(n_draws, *soft_prompt.shape))


def _with_norms_of(soft_prompt: Tensor, drawn: Tensor) -> Tensor:
    lengths = drawn.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(drawn.dtype).tiny)
    return drawn * (soft_prompt.norm(dim=-1, keepdim=True) / lengths)
