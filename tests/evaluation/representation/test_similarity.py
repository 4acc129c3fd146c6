import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limber_interp.errors import InputError
from limber_interp.evaluation.representation import cka, neighbour_overlap, similarity

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(80, 30)) * np.geomspace(1, 0.1, 30)
MEASURES = {"linear CKA": cka, "nearest-neighbour overlap": neighbour_overlap}


@pytest.mark.parametrize("measure", MEASURES.values(), ids=list(MEASURES))
@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 100))
def test_turned_scaled_and_moved_is_the_same(measure, scale: float, seed: int):
    random = np.random.default_rng(seed)
    turn = np.linalg.qr(random.normal(size=(30, 30)))[0]
    y = scale * (X @ turn + random.normal(size=30))
    assert measure(X, y) == pytest.approx(1)


@pytest.mark.parametrize("measure", MEASURES.values(), ids=list(MEASURES))
def test_symmetric_and_blind_to_the_order_of_things(measure):
    y = X[:, :5] + 0.3 * RANDOM.normal(size=(80, 5))
    order = RANDOM.permutation(80)
    assert measure(X, y) == pytest.approx(measure(y, X))
    assert measure(X[order], y[order]) == pytest.approx(measure(X, y))
    assert 0.2 < measure(X, y) < 0.95


def test_cka_is_the_ratio_of_unbiased_hsic():
    """Song et al. (2012), eq. 5, written out."""

    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        n = len(k)
        k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
        total = np.trace(k @ m) + k.sum() * m.sum() / (n - 1) / (n - 2) - 2 / (n - 2) * (k @ m).sum()
        return total / (n * (n - 3))

    y = RANDOM.normal(size=(80, 7)) + X[:, :7]
    k, m = X @ X.T, y @ y.T
    assert cka(X, y) == pytest.approx(hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m)))


def test_unrelated_features_are_near_zero_however_wide_they_are():
    """The biased estimate of these is 500 / (500 + 100) = 0.83."""
    x, y = RANDOM.normal(size=(2, 100, 500))
    assert cka(x, y) == pytest.approx(0, abs=0.05)


def test_neighbours_by_hand():
    """Things on a circle, 4 to 7 opposite to 0 to 3, so that their mean is its centre. By x those 10 degrees apart are
    0-1, 2-3, 4-5 and 6-7. In y 3 and 7 have changed places: 0-1 and 4-5 stay, which is half of all nearest neighbours.
    """

    def at(*degrees: float) -> np.ndarray:
        angle = np.radians(degrees)
        points = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return np.concatenate([points, -points])

    x, y = at(0, 10, 90, 100), at(0, 10, 90, 280)
    assert neighbour_overlap(x, y, k=1) == pytest.approx(1 / 2)
    assert neighbour_overlap(x, y, k=7) == pytest.approx(1), "all others are near"


def test_what_all_share_does_not_decide_who_is_near():
    """A large vector that is added to all makes all cosines close to 1, and the lengths decide."""
    assert neighbour_overlap(X, X + 1_000) == pytest.approx(1)


@pytest.mark.parametrize("measure", MEASURES)
def test_every_pair_stands_beside_chance(measure: str):
    noise = RANDOM.normal(size=(80, 40))
    record = similarity({"x": X, "like x": X + 0.1 * RANDOM.normal(size=X.shape), "noise": noise}, measure, "encoding")
    assert (record.measure, record.place, record.names) == (measure, "encoding", ("x", "like x", "noise"))
    np.testing.assert_allclose(np.diag(record.values), 1)
    np.testing.assert_array_equal(record.values, record.values.T)
    assert record.values[0, 1] == pytest.approx(MEASURES[measure](X, X + 0), abs=0.5)
    assert record.values[0, 1] > record.chance[0, 1] + 0.3
    expected = 0 if measure == "linear CKA" else 10 / 79
    np.testing.assert_allclose(record.chance, expected, atol=0.03)
    assert record.values[0, 2] == pytest.approx(record.chance[0, 2], abs=0.06)
    again = similarity({"x": X, "noise": noise}, measure, "encoding")
    assert again.chance[0, 1] == record.chance[0, 2], "the same seed, the same shuffles"


@pytest.mark.parametrize("measure", MEASURES)
def test_what_does_not_vary_is_like_nothing(measure: str):
    record = similarity({"x": X, "constant": np.full((80, 3), 0.1, dtype=np.float32)}, measure, "encoding")
    assert math.isfinite(record.values[0, 0])
    assert np.isnan(record.values[1]).all()


def test_mistakes_are_told():
    with pytest.raises(InputError, match="linear CKA needs at least 4 images or words; found 3"):
        cka(X[:3], X[:3])
    with pytest.raises(InputError, match="10 neighbours of 10 images or words; ask for 1 to 9"):
        neighbour_overlap(X[:10], X[:10])
    with pytest.raises(InputError, match="not of the same things: {'x': 80, 'y': 79}"):
        similarity({"x": X, "y": X[1:]}, "linear CKA", "encoding")
