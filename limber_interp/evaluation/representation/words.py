"""Vectors of words, to set beside the token embeddings of the same words."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32

from limber_interp.arguments import several
from limber_interp.models.limber import Limber


def mean_by_word(
    features: Float[np.ndarray, "images d"], words: Sequence[Sequence[str]], at_least: int = 2
) -> tuple[tuple[str, ...], Float32[np.ndarray, "words d"]]:
    """The words that images show, in alphabetical order, and the mean vector of the images of each.

    An image of two things counts for both: what goes together in images looks alike here.

    Args:
        words: of each image, such as its nouns.
        at_least: images that a word needs.
    """
    images: dict[str, list[int]] = {}
    for index, shown in enumerate(words):
        for word in set(several(shown)):
            images.setdefault(word, []).append(index)
    names = tuple(sorted(word for word, indices in images.items() if len(indices) >= at_least))
    means = np.empty((len(names), features.shape[1]), dtype=np.float32)
    for row, word in enumerate(names):
        means[row] = features[images[word]].mean(axis=0)
    return names, means


def token_embeddings(model: Limber, words: str | Sequence[str]) -> Float32[np.ndarray, "words d_model"]:
    """The row of W_E of each word with its leading space; the mean of its tokens' rows where it has several."""
    rows = [model.lm.W_E[model.vocabulary.encode(f" {word}")].float().mean(dim=0) for word in several(words)]
    return np.stack([row.detach().cpu().numpy() for row in rows])
