"""How alike two representations of the same things are, whatever their widths and directions."""

import math
from collections.abc import Mapping
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from limber_interp.errors import InputError
from limber_interp.records import Similarity

Measure: TypeAlias = Literal["linear CKA", "nearest-neighbour overlap"]
Features: TypeAlias = Float[np.ndarray, "n _"]

K = 10
N_SHUFFLES = 20


def cka(x: Features, y: Features) -> float:
    """Linear centred kernel alignment (Kornblith et al. 2019, arXiv 1905.00414): 1 where x is y turned and scaled, 0
    where they have nothing in common.

    The unbiased estimate (Song et al. 2012; Nguyen et al. 2021, arXiv 2010.15327, eq. 3), which can be a little
    negative. The usual one is far above 0 for unrelated features as soon as these are not many fewer than the images
    (0.5 for 1,000 images and as many features), and more so for a wide encoder than for a narrow one.

    It misleads where a few directions carry most of the variance: these alone decide. NaN where all of x or of y is the
    same.

    Raises:
        InputError: fewer than four things.
    """
    return _inner(_centred_gram(x), _centred_gram(y))


def neighbour_overlap(x: Features, y: Features, k: int = K) -> float:
    """The share of a thing's k nearest others by x which are among the k nearest by y, mean over things (mutual
    k-nearest neighbours, Huh et al. 2024, arXiv 2405.07987). By chance it is k / (n - 1).

    Near is by cosine. Unlike theirs, after removing the mean over things: soft prompts share a direction, and what is
    common to all should not decide who is near. It asks about small distances alone, where CKA asks about large ones.

    Raises:
        InputError: no more than k things.
    """
    return _inner(_neighbours(x, k), _neighbours(y, k))


def similarity(
    features: Mapping[str, Features],
    measure: Measure,
    place: str,
    seed: int = 0,
    k: int = K,
    n_shuffles: int = N_SHUFFLES,
) -> Similarity:
    """Every representation against every other, each beside the mean of the same with the things of one shuffled.

    Cost: a matrix (n, n) in float64 for each representation, 200 MB for 5,000 things; give fewer if that is too much.

    Args:
        features: name -> (n, d), the same n things in the same order.
        k: of `nearest-neighbour overlap`.

    Raises:
        InputError: too few things, or not the same number of them.
    """
    counts = {name: len(each) for name, each in features.items()}
    if len(set(counts.values())) > 1:
        raise InputError(f"{measure}: not of the same things: {counts}; give features of the same images in one order")
    names = tuple(features)
    tables = [_centred_gram(x) if measure == "linear CKA" else _neighbours(x, k) for x in features.values()]
    values, chance = np.full((2, len(names), len(names)), math.nan)
    random = np.random.default_rng(seed)
    orders = [random.permutation(len(tables[0])) for _ in range(n_shuffles)] if tables else []
    for i, first in enumerate(tables):
        for j, second in enumerate(tables[: i + 1]):
            values[i, j] = values[j, i] = _inner(first, second)
            shuffled = np.mean([_inner(first, second[np.ix_(order, order)]) for order in orders])
            chance[i, j] = chance[j, i] = shuffled
    return Similarity(measure, place, names, values, chance)


def _inner(first: np.ndarray, second: np.ndarray) -> float:
    """Both measures are an inner product of two tables (n, n) of length 1: of kernels, and of who is near whom."""
    return float(np.vdot(first, second))


def _centred_gram(x: np.ndarray) -> np.ndarray:
    n = len(x)
    if n < 4:
        raise InputError(f"linear CKA needs at least 4 images or words; found {n}")
    centred = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    gram = centred @ centred.T
    # U-centring (Székely and Rizzo 2014, def. 2), whose inner product is the unbiased HSIC times n (n - 3)
    np.fill_diagonal(gram, 0)
    rows = gram.sum(axis=0) / (n - 2)
    gram += rows.sum() / (n - 1) - rows - rows[:, None]
    np.fill_diagonal(gram, 0)
    length = np.linalg.norm(gram)
    return gram / length if _varies(centred, x) else np.full_like(gram, math.nan)


def _neighbours(x: np.ndarray, k: int) -> np.ndarray:
    n = len(x)
    if not 0 < k < n:
        raise InputError(f"nearest-neighbour overlap: {k} neighbours of {n} images or words; ask for 1 to {n - 1}")
    centred = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    if not _varies(centred, x):
        return np.full((n, n), math.nan)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True).clip(np.finfo(np.float64).tiny)
    cosines = centred @ centred.T
    np.fill_diagonal(cosines, -np.inf)
    nearest = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
    table = np.zeros((n, n))
    np.put_along_axis(table, nearest, 1 / math.sqrt(n * k), axis=1)
    return table


def _varies(centred: np.ndarray, x: np.ndarray) -> bool:
    """Beyond the rounding of the mean of float32 numbers."""
    return bool(np.abs(centred).max() > 1e-7 * np.abs(x).max())
