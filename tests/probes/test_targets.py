import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limber_interp.probes.targets import matched_words, permutation_p


def test_permutation_p_by_hand():
    others = np.array([1, 5, 5, 9])
    assert [permutation_p(x, others) for x in (0.0, 1.0, 5.0, 9.0)] == [1 / 5, 2 / 5, 4 / 5, 1.0]
    assert permutation_p(1.0, np.array([])) is None


@given(st.lists(st.integers(1, 30), min_size=2, max_size=40))
def test_exchangeable_values_reject_no_more_often_than_they_may(values):
    """Whichever of the values is the observed one: at most a share of p of them has a p-value of p or less."""
    array = np.array(values)
    p = np.array([permutation_p(float(array[i]), np.delete(array, i)) for i in range(len(array))])
    for level in set(p.tolist()):
        assert (p <= level).mean() <= level + 1e-12


@pytest.mark.parametrize(("n", "expected"), [(99, [0, 2, 5, 8]), (2, [2, 5]), (1, [2])])
def test_matched_words(n, expected):
    """Words of two letters and more with their leading space, nearest in id first; of two as near the lower id."""
    strings = [" the", "dog", " an", " dog", " x", " Katze", " 3d", "", " été", " a b", " do\n"]
    assert matched_words(strings, 3, n) == expected
