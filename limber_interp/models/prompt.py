"""Prompts as the language model's first block gets them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from limber_interp.layout import Layout


@dataclass(frozen=True)
class Prompt:
    """Embeddings of image and text positions, and what stands where. Shorter prompts are padded on the left.

    Attributes:
        residual: in the language model's dtype; zero where padded.
        attention_mask: 1 where something stands, 0 where padded. Rotary positions count from the first 1.
        layouts: one per prompt, padding included.
    """

    residual: Float[Tensor, "batch pos d_model"]
    attention_mask: Int[Tensor, "batch pos"]
    layouts: tuple[Layout, ...]

    @classmethod
    def stack(cls, rows: Sequence[Float[Tensor, "_ d_model"]], layouts: Sequence[Layout]) -> "Prompt":
        """A batch of prompts of different lengths, each with its layout before padding."""
        n_pos = max(layout.n_pos for layout in layouts)
        residual = rows[0].new_zeros(len(rows), n_pos, rows[0].shape[1])
        attention_mask = torch.zeros(len(rows), n_pos, dtype=torch.long, device=residual.device)
        for i, row in enumerate(rows):
            residual[i, n_pos - len(row) :] = row
            attention_mask[i, n_pos - len(row) :] = 1
        return cls(residual, attention_mask, tuple(layout.padded(n_pos) for layout in layouts))
