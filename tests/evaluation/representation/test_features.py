import numpy as np
import pytest

from limber_interp.datasets import open_dataset
from limber_interp.encodings import encode, open_encodings
from limber_interp.errors import InputError
from limber_interp.evaluation.representation import pool
from limber_interp.models.limber import Limber

RANDOM = np.random.default_rng(0)
ALL = np.arange(150)
VECTORS = RANDOM.normal(size=(150, 4, 6)).astype(np.float16)


def test_pooling_by_hand():
    vectors = np.array([[[1.0, 8.0], [3.0, 2.0]], [[5.0, 6.0], [7.0, 0.0]]], dtype=np.float32)
    rows = np.array([1, 0])
    np.testing.assert_array_equal(pool(vectors.__getitem__, rows, "mean"), [[6, 3], [2, 5]])
    np.testing.assert_array_equal(pool(vectors.__getitem__, rows, "max"), [[7, 6], [3, 8]])
    # Means of the two positions are (3, 7) and (5, 1)
    np.testing.assert_array_equal(pool(vectors.__getitem__, rows, "positions"), [[2, -1, 2, -1], [-2, 1, -2, 1]])


def test_few_images_are_read_at_once():
    read: list[int] = []

    def reading(rows: np.ndarray) -> np.ndarray:
        read.append(len(rows))
        return VECTORS[rows]

    pooled = pool(reading, ALL)
    assert read == [64, 64, 22]
    assert pooled.dtype == np.float32
    np.testing.assert_allclose(pooled, VECTORS.astype(np.float32).mean(axis=1), rtol=1e-6)


def test_positions_are_reduced_to_the_directions_in_which_they_vary():
    """All that images differ by lies in two of the six dimensions, and each position has a mean of its own, which is
    larger: eight numbers, two for each of four positions, keep all distances between images."""
    plane = np.linalg.qr(RANDOM.normal(size=(6, 2)))[0]
    vectors = (RANDOM.normal(size=(150, 4, 2)) @ plane.T + 50 * RANDOM.normal(size=(4, 6))).astype(np.float32)
    pooled = pool(vectors.__getitem__, ALL, "positions", n_features=8)
    assert pooled.shape == (150, 8)
    whole = vectors.reshape(150, -1)
    np.testing.assert_allclose(
        np.linalg.norm(pooled[0] - pooled[1:], axis=1), np.linalg.norm(whole[0] - whole[1:], axis=1), rtol=1e-4
    )
    assert pool(vectors.__getitem__, ALL, "positions", n_features=2).shape == (150, 4), "one for each position at least"


def test_encodings_on_disk_are_read_by_their_indices(tiny: Limber, folder, tmp_path):
    dataset = open_dataset(folder)
    encode(tiny.encoder, dataset, tmp_path / "encodings", shard_size=4)
    encodings = open_encodings(tmp_path / "encodings", tiny.encoder)
    rows = np.array([8, 0, 5])
    found = pool(encodings.encoding, rows)
    expected = tiny.encode([dataset[row].image for row in rows.tolist()]).mean(dim=1)
    np.testing.assert_allclose(found, expected, atol=1e-3)  # shards are float16
    assert np.abs(found[0] - found[1]).max() > 0.01


def test_what_cannot_be_pooled_is_told():
    with pytest.raises(InputError, match="there are no images to pool"):
        pool(VECTORS.__getitem__, np.arange(0))
    broken = VECTORS.copy()
    broken[70, 1, 2] = np.inf
    with pytest.raises(InputError, match="the vectors of image 70 are not finite"):
        pool(broken.__getitem__, ALL)
