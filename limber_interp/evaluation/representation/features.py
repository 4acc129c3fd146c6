"""One vector per image from a vector per position, read in batches: all positions of all images are never in memory."""

from collections.abc import Callable, Iterator
from typing import Literal, TypeAlias

import numpy as np
import scipy.linalg
from jaxtyping import Float, Float32, Int

from limber_interp.errors import InputError

# Vectors (row, pos, d) at rows: `Encodings.encoding` is one, and so is `array.__getitem__`, in memory or memory-mapped
Read: TypeAlias = Callable[[Int[np.ndarray, " rows"]], Float[np.ndarray, "rows pos d"]]
Pooling: TypeAlias = Literal["mean", "max", "positions"]

BATCH_SIZE = 64
N_FEATURES = (
    2_048  # of `positions`: the same for wide and narrow encoders, and a probe on 500 images still takes seconds
)
N_FITTED = 512  # images that choose the directions of `positions`


def read_batches(read: Read, rows: Int[np.ndarray, " rows"]) -> Iterator[Float32[np.ndarray, "batch pos d"]]:
    """The vectors at rows, in float32, a few images at a time.

    Raises:
        InputError: a vector that is not finite.
    """
    for start in range(0, len(rows), BATCH_SIZE):
        batch = rows[start : start + BATCH_SIZE]
        vectors = np.asarray(read(batch), dtype=np.float32)
        if not np.isfinite(vectors).all():
            bad = batch[~np.isfinite(vectors).all(axis=(1, 2))]
            raise InputError(f"the vectors of image {bad[0]} are not finite; encode it again, or leave it out")
        yield vectors


def pool(
    read: Read, rows: Int[np.ndarray, " rows"], pooling: Pooling = "mean", n_features: int = N_FEATURES
) -> Float32[np.ndarray, "rows features"]:
    """One vector for each of the images at `rows`, in float32.

    - `mean` and `max` over positions say what is in the image. Where it is they can only say as far as the vectors
      tell it themselves: moving an object to another patch leaves the mean as it was.
    - `positions` keeps them apart, side by side, each position's mean over images removed. With more than `n_features`
      numbers to an image, each position is reduced to the same few directions: those in which positions vary most over
      images (principal components, of at most 512 images spread over `rows`). No label is looked at.

    Raises:
        InputError: no image, or vectors that are not finite.
    """
    if not len(rows):
        raise InputError("there are no images to pool; give some")
    match pooling:
        case "mean":
            pooled = [vectors.mean(axis=1) for vectors in read_batches(read, rows)]
        case "max":
            pooled = [vectors.max(axis=1) for vectors in read_batches(read, rows)]
        case "positions":
            mean, directions = _principal_directions(read, rows, n_features)
            pooled = [((vectors - mean) @ directions).reshape(len(vectors), -1) for vectors in read_batches(read, rows)]
    return np.concatenate(pooled)


def _principal_directions(read: Read, rows: np.ndarray, n_features: int) -> tuple[np.ndarray, np.ndarray]:
    """Means (pos, d) and directions (d, kept), such that pos * kept is at most n_features (and kept at least 1)."""
    fitted = rows[np.unique(np.linspace(0, len(rows) - 1, N_FITTED).astype(int))]
    mean = sum(vectors.sum(axis=0, dtype=np.float64) for vectors in read_batches(read, fitted)) / len(fitted)
    n_pos, d = mean.shape
    mean = mean.astype(np.float32)
    if n_pos * d <= n_features:
        return mean, np.eye(d, dtype=np.float32)
    moment = np.zeros((d, d))
    for vectors in read_batches(read, fitted):
        centred = (vectors - mean).reshape(-1, d)
        moment += centred.T @ centred
    kept = max(1, min(d, n_features // n_pos))
    _, directions = scipy.linalg.eigh(moment, subset_by_index=[d - kept, d - 1])
    return mean, directions.astype(np.float32)
