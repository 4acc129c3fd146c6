"""Prompts as the language model's first block gets them, and what they are made of."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from limber_interp.layout import Layout
from limber_interp.weights import tensors_sha256


class Text(str):
    """A part of a prompt that is text, whatever it reads like: also where a file of that name exists."""

    __slots__ = ()


@dataclass(frozen=True)
class ImagePrompt:
    """A part of a prompt: the soft prompt of an image that was encoded before, and which image that was.

    Attributes:
        source: the image's name, for layouts and messages.
        sha256: of the picture (`images.image_hash`). What is drawn after it depends on this, and not on the last bits
            of the vectors, which depend on the batch and the device.
    """

    vectors: Float[Tensor, "prompt_pos d_model"]
    source: str
    sha256: str


# One part of a prompt, as far as it says something: a text, an image by its hash, or vectors
Content: TypeAlias = tuple[Literal["text", "image"], str | Tensor]


@dataclass(frozen=True)
class Prompt:
    """Embeddings of image and text positions, and what stands where. Shorter prompts are padded on the left.

    Attributes:
        residual: in the language model's dtype; zero where padded.
        attention_mask: 1 where something stands, 0 where padded. Rotary positions count from the first 1.
        layouts: one per prompt, padding included.
        contents: what each prompt was made of, part by part. Empty where it is not known.
    """

    residual: Float[Tensor, "batch pos d_model"]
    attention_mask: Int[Tensor, "batch pos"]
    layouts: tuple[Layout, ...]
    contents: tuple[tuple[Content, ...], ...] = ()

    @classmethod
    def stack(
        cls,
        rows: Sequence[Float[Tensor, "_ d_model"]],
        layouts: Sequence[Layout],
        contents: Sequence[tuple[Content, ...]] = (),
    ) -> "Prompt":
        """A batch of prompts of different lengths, each with its layout before padding."""
        n_pos = max(layout.n_pos for layout in layouts)
        residual = rows[0].new_zeros(len(rows), n_pos, rows[0].shape[1])
        attention_mask = torch.zeros(len(rows), n_pos, dtype=torch.long, device=residual.device)
        for i, row in enumerate(rows):
            residual[i, n_pos - len(row) :] = row
            attention_mask[i, n_pos - len(row) :] = 1
        return cls(residual, attention_mask, tuple(layout.padded(n_pos) for layout in layouts), tuple(contents))

    @property
    def names(self) -> list[str]:
        """What each prompt is called in messages: its images, or its text."""
        return [
            " + ".join(segment.source for segment in layout.images)
            or f"prompt {' '.join(segment.source for segment in layout.segments)!r}"
            for layout in self.layouts
        ]

    def keys(self) -> list[str] | None:
        """A hash of what each prompt says, the same in any batch and on any device; None where it is not known."""
        return [_key(content) for content in self.contents] or None


def _key(content: tuple[Content, ...]) -> str:
    digest = hashlib.sha256()
    for kind, said in content:
        text = tensors_sha256({"vectors": said.float()}) if isinstance(said, Tensor) else said
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(f"{kind} {len(encoded)} ".encode() + encoded)
    return digest.hexdigest()
