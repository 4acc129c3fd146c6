"""The order in which examples are seen, each rank's share of it, and captions as tokens."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from limber_interp.arguments import several
from limber_interp.models.vocabulary import Vocabulary

IGNORED = -100  # a label that counts for no loss, as torch's cross entropy has it


def order(count: int, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Endless batches of indices. Every epoch is a new permutation, drawn from the seed; none is seen twice before all
    have been seen once, and a batch may straddle two epochs."""
    rng = np.random.default_rng(seed)
    waiting = np.empty(0, dtype=np.int64)
    while True:
        while len(waiting) < batch_size:
            waiting = np.concatenate([waiting, rng.permutation(count)])
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]


def share(batch: Int[np.ndarray, " batch"], rank: int, world_size: int) -> Int[np.ndarray, " share"]:
    """A rank's part of a global batch: the ranks' parts are disjoint, cover it, and differ by at most one in size."""
    return batch[rank::world_size]


def caption_tokens(
    vocabulary: Vocabulary, captions: str | Sequence[str], limit: int
) -> tuple[Int[Tensor, "batch text_pos"], Int[Tensor, "batch text_pos"]]:
    """Token ids and labels of captions, padded on the right: each caption's tokens, then one end of text.

    Labels are the ids up to and with the end of text, `IGNORED` after it. A caption of more than `limit` positions is
    cut there, and then has no end of text to learn.
    """
    told = [[*vocabulary.encode(caption), vocabulary.eos][:limit] for caption in several(captions)]
    width = max(map(len, told))
    ids = torch.full((len(told), width), vocabulary.eos)
    labels = torch.full((len(told), width), IGNORED)
    for row, tokens in enumerate(told):
        ids[row, : len(tokens)] = labels[row, : len(tokens)] = torch.tensor(tokens)
    return ids, labels
