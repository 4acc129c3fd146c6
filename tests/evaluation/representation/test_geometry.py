import math

import numpy as np
import pytest

from limber_interp.errors import InputError
from limber_interp.evaluation.representation import geometry
from limber_interp.evaluation.representation.geometry import effective_rank

RANDOM = np.random.default_rng(0)
VECTORS = (RANDOM.normal(size=(100, 3, 8)) + RANDOM.normal(size=8)).astype(np.float32)


def test_effective_rank_of_known_spectra():
    assert effective_rank(np.ones(5)) == pytest.approx(5)
    assert effective_rank(np.array([3.0, 0.0, 0.0])) == pytest.approx(1)
    # Shares 1/2, 1/4, 1/4: an entropy of log(2) / 2 + log(4) / 2 = 1.5 log 2
    assert effective_rank(np.array([2.0, 1.0, 1.0])) == pytest.approx(2**1.5)
    assert math.isnan(effective_rank(np.zeros(3)))


def test_singular_values_are_those_of_the_centred_vectors():
    found = geometry(VECTORS.__getitem__, np.arange(100))
    centred = (VECTORS - VECTORS.mean(axis=0)).reshape(-1, 8)
    assert found.effective_rank == pytest.approx(effective_rank(np.linalg.svd(centred, compute_uv=False)), rel=1e-4)
    assert found.most == 8
    assert geometry(VECTORS.__getitem__, np.arange(2)).most == 3


def test_mean_cosines_are_those_of_all_pairs_of_vectors_of_different_images():
    found = geometry(VECTORS.__getitem__, np.arange(100))
    for vectors, estimate in (
        (VECTORS, found.anisotropy),
        (VECTORS - VECTORS.mean(axis=0), found.anisotropy_centred),
    ):
        unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
        cosines = np.einsum("ipd,jqd->ijpq", unit, unit)
        assert estimate.value == pytest.approx(cosines[~np.eye(100, dtype=bool)].mean(), abs=1e-6)
    assert found.anisotropy.value > 0.2 > abs(found.anisotropy_centred.value)


def test_norms():
    """Lengths 1 and 3 at the two positions of every image: a mean of 2, whatever images are drawn."""
    vectors = RANDOM.normal(size=(40, 2, 5))
    vectors *= np.array([1, 3])[:, None] / np.linalg.norm(vectors, axis=-1, keepdims=True)
    found = geometry(vectors.__getitem__, np.arange(40))
    assert (found.norm.value, found.norm.low, found.norm.high) == pytest.approx((2, 2, 2), abs=1e-5)
    np.testing.assert_allclose(found.norm_quantiles, [1, 1, 2, 3, 3], atol=1e-5)


def test_one_direction():
    """All vectors are multiples of one: the cosine is 1, and there is one direction, also of what is left."""
    direction = RANDOM.normal(size=6)
    lengths = RANDOM.uniform(1, 2, size=(50, 2, 1))
    found = geometry((lengths * direction).__getitem__, np.arange(50))
    assert found.anisotropy.value == pytest.approx(1, abs=1e-5)
    assert found.effective_rank == pytest.approx(1, abs=0.01)


@pytest.mark.slow
def test_coverage_of_anisotropy():
    """Gaussian vectors around (0.5, 0.5, …): the truth is |E u|² for a unit vector u, from a million of them."""
    random = np.random.default_rng(0)
    many = random.normal(0.5, 1, size=(1_000_000, 8))
    truth = ((many / np.linalg.norm(many, axis=1, keepdims=True)).mean(axis=0) ** 2).sum()
    covers = []
    for _ in range(500):
        found = geometry(random.normal(0.5, 1, size=(60, 1, 8)).__getitem__, np.arange(60)).anisotropy
        covers.append(found.low <= truth <= found.high)
    assert 0.93 <= np.mean(covers) <= 0.97


def test_one_image_has_no_geometry():
    with pytest.raises(InputError, match="needs at least 2 images; found 1"):
        geometry(VECTORS.__getitem__, np.arange(1))
