"""How the vectors of images lie in their space: how long, how much in one direction, in how many directions."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from limber_interp.errors import InputError
from limber_interp.evaluation.representation.features import Read, read_batches
from limber_interp.evaluation.statistics import bootstrap
from limber_interp.records import Estimate

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Geometry:
    """Of the vectors at all positions of all images.

    Attributes:
        norm: the mean length.
        norm_quantiles: the 5, 25, 50, 75 and 95 % quantiles of all lengths.
        anisotropy: mean cosine between vectors of different images (Ethayarajh 2019, arXiv 1909.00512).
        anisotropy_centred: the same with each position's mean over images removed.
        effective_rank: exp of the entropy of the singular values' shares (Roy and Vetterli 2007), means removed.
        most: the highest effective rank that vectors of this number and width could have.
    """

    norm: Estimate
    norm_quantiles: Float[np.ndarray, " quantile"]
    anisotropy: Estimate
    anisotropy_centred: Estimate
    effective_rank: float
    most: int


def geometry(read: Read, rows: Int[np.ndarray, " rows"], seed: int = 0) -> Geometry:
    """Lengths, anisotropy and effective rank of the vectors at `rows`, with 95 % intervals over images.

    Both mean cosines are exact, over all pairs: they follow from the sums of the unit vectors, one for each image. With
    everything in one direction the cosine is 1 although images may differ in what is left; this is why the means are
    removed too. One per position is removed, and not one for all, because what a position always holds says nothing
    about an image.

    The effective rank has no interval: drawing images again makes duplicates, which lowers it. It grows with the number
    of vectors until there are many more than dimensions, so compare it only over the same images, and with `most`.

    Cost: two passes over the images; two sums per image, and d x d products in float64, summed from float32.

    Raises:
        InputError: fewer than two images, or vectors that are not finite.
    """
    n = len(rows)
    if n < 2:
        raise InputError(f"the geometry of vectors needs at least 2 images; found {n}")
    norms, sums, total = [], [], np.float64(0)
    for vectors in read_batches(read, rows):
        lengths = np.linalg.norm(vectors, axis=-1)
        norms.append(lengths)
        sums.append(_unit(vectors, lengths).sum(axis=1))
        total = total + vectors.sum(axis=0, dtype=np.float64)
    n_pos, d = total.shape
    mean = (total / n).astype(np.float32)

    centred_sums, moment = [], np.zeros((d, d))
    for vectors in read_batches(read, rows):
        centred = vectors - mean
        centred_sums.append(_unit(centred, np.linalg.norm(centred, axis=-1)).sum(axis=1))
        flat = centred.reshape(-1, d)
        moment += flat.T @ flat
    all_norms = np.concatenate(norms)
    return Geometry(
        norm=bootstrap(all_norms.mean(axis=1), seed, bounds=None),
        norm_quantiles=np.quantile(all_norms, QUANTILES),
        anisotropy=_mean_cosine(np.concatenate(sums), n_pos, seed),
        anisotropy_centred=_mean_cosine(np.concatenate(centred_sums), n_pos, seed),
        effective_rank=effective_rank(np.sqrt(np.linalg.eigvalsh(moment).clip(0))),
        most=min((n - 1) * n_pos, d),
    )


def effective_rank(singular_values: Float[np.ndarray, " values"]) -> float:
    """exp(-Σ p log p), p the share of each singular value in their sum (Roy and Vetterli 2007); NaN if all are zero."""
    if singular_values.sum() == 0:
        return math.nan
    shares = singular_values / singular_values.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _unit(vectors: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return vectors / lengths.clip(np.finfo(np.float32).tiny)[..., None]


def _mean_cosine(sums: np.ndarray, n_pos: int, seed: int) -> Estimate:
    """Over all pairs of vectors of different images, from each image's sum of unit vectors."""
    sums = sums.astype(np.float64)
    n, total = len(sums), sums.sum(axis=0)
    with_others = (sums @ total - (sums**2).sum(axis=1)) / (n_pos**2 * (n - 1))
    # Each image stands on both sides of a pair, so drawing another one moves the mean twice (Hoeffding 1948, eq. 5.13)
    value = with_others.mean()
    return bootstrap(value + 2 * (with_others - value), seed, bounds=None)
