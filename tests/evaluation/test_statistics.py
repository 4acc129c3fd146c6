import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from limber_interp.errors import InputError
from limber_interp.evaluation.statistics import bootstrap, bootstrap_ratio, holm, paired

N_TRIALS = 500


def test_a_mean_and_its_interval_by_hand():
    """Four values, 0 0 1 1: sums of four draws are binomial, and 0 and 4 each have a probability of 1/16 = 6.25 %, more
    than the 2.5 % outside of each end. There is no skew to correct, so the interval goes from 0 to 1."""
    found = bootstrap(np.array([0.0, 0.0, 1.0, 1.0]))
    assert (found.value, found.low, found.high, found.n, found.level) == (0.5, 0.0, 1.0, 4, 0.95)
    # Between the sixteenths: P(sum <= 1) = 5/16, so that ends of 20 % each are at 1/4 and 3/4
    narrow = bootstrap(np.array([0.0, 0.0, 1.0, 1.0]), level=0.6)
    assert (narrow.low, narrow.high) == (0.25, 0.75)


def test_the_interval_is_close_to_the_textbooks_where_the_textbook_holds():
    values = np.random.default_rng(0).normal(3, 2, 400)
    half = 1.96 * values.std(ddof=1) / math.sqrt(400)
    found = bootstrap(values)
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)


def test_the_seed_decides():
    values = np.random.default_rng(0).normal(size=30)
    assert bootstrap(values, seed=1) == bootstrap(values, seed=1)
    assert bootstrap(values, seed=1) != bootstrap(values, seed=2)


def test_the_same_seed_gives_the_same_draws_to_each_metric():
    """Another scale and another offset are another metric of the same images: its interval is the first one's."""
    values = np.random.default_rng(0).normal(size=30)
    first, second = bootstrap(values), bootstrap(10 * values + 3)
    assert (second.low, second.high) == pytest.approx((10 * first.low + 3, 10 * first.high + 3))


def test_an_image_without_a_value_is_not_counted():
    values = np.array([0.1, 0.5, 0.2, 0.9])
    assert bootstrap(np.array([0.1, np.nan, 0.5, 0.2, 0.9, np.nan])) == bootstrap(values)


def test_too_few_images():
    nothing, one = bootstrap(np.full(3, np.nan)), bootstrap(np.array([2.0]))
    assert nothing.n == 0
    assert math.isnan(nothing.value)
    assert (one.value, one.n) == (2.0, 1)
    assert math.isnan(one.low)
    assert math.isnan(one.high)


@pytest.mark.parametrize("share", [0, 1])
def test_all_or_none_is_no_certainty(share: int):
    """Wilson's interval of 0 in 24: from 0 to z² / (n + z²) = 3.841 / 27.841 = 0.138."""
    found = bootstrap(np.full(24, share))
    assert found.value == share
    assert sorted((abs(found.low - share), abs(found.high - share))) == pytest.approx([0, 3.8415 / 27.8415], abs=1e-4)


@pytest.mark.parametrize("weights", [1, 3])
def test_all_or_none_of_a_metric_of_another_range(weights: int):
    """The share's interval, [0, 0.138] for 0 in 24 images, was given to CIDEr-D too, which lies between 0 and 10: if
    one caption in eight has 10 points, the mean is 1.25, and there is none among 24 in 4 % of all cases."""
    zeros, n = np.zeros(24), np.full(24, weights)
    low, high = 0, 3.8415 / 27.8415
    found = bootstrap_ratio(zeros, n, bounds=(0.0, 10.0))
    assert (found.value, found.low, found.high) == pytest.approx((0, 10 * low, 10 * high), abs=1e-3)
    found = bootstrap_ratio(10 * n, n, bounds=(0.0, 10.0))
    assert (found.value, found.low, found.high) == pytest.approx((10, 10 - 10 * high, 10), abs=1e-3)
    found = bootstrap_ratio(-n, n, bounds=(-1.0, 1.0))  # as a cosine: the range is 2 wide
    assert (found.value, found.low, found.high) == pytest.approx((-1, -1, -1 + 2 * high), abs=1e-3)
    assert bootstrap(zeros) == bootstrap(zeros, bounds=(0.0, 1.0))


def test_all_but_nothing_is_no_certainty_either():
    """The reference implementation's BLEU-4 of a caption without a right 4-gram is not 0 but up to 1e-4; resampled, 24
    of them looked surer than 24 zeros."""
    found = bootstrap(np.linspace(1e-9, 1e-4, 24))
    assert found.value == pytest.approx(5e-5, rel=1e-4)
    assert (found.low, found.high) == pytest.approx((0, 3.8415 / 27.8415), abs=1e-4)
    surer = bootstrap(np.linspace(1e-9, 1e-2, 24))
    assert surer.high < 0.01


def test_ones_are_nothing_special_to_a_metric_of_another_range():
    for value, bounds in ((1, (0.0, 10.0)), (0, (-1.0, 1.0)), (0, None), (1, None)):
        found = bootstrap(np.full(24, value), bounds=bounds)
        assert (found.value, found.low, found.high) == (value, value, value)


def test_a_constant_of_another_value():
    found = bootstrap(np.full(5, 0.3))
    assert (found.low, found.high) == (found.value, found.value) == pytest.approx((0.3, 0.3))


def test_a_ratio_is_of_sums():
    """Found 1 of 1 and 1 of 3: micro recall is 2/4, and the mean of the two recalls would be 2/3."""
    found = bootstrap_ratio(np.array([1, 1, 0]), np.array([1, 3, 0]))
    assert (found.value, found.n) == (0.5, 2)


def test_a_ratio_keeps_the_counts_of_an_image_together():
    """Counts that are the same share of every image: whatever is drawn has that share."""
    true = np.array([2, 4, 6, 10])
    found = bootstrap_ratio(true / 2, true)
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


def test_a_ratio_where_every_image_counts_the_same_is_a_mean():
    values = np.random.default_rng(0).integers(0, 4, 20)
    ratio, mean = bootstrap_ratio(values, np.full(20, 3)), bootstrap(values / 3)
    assert (ratio.low, ratio.high) == pytest.approx((mean.low, mean.high))


def test_paired_by_hand():
    """Differences 1, 1, 1: of the eight exchanges two, all and none, leave the mean as far from zero."""
    found = paired(np.array([2.0, 3.0, 4.0]), np.array([1.0, 2.0, 3.0]))
    assert found.p == 2 / 8
    assert (found.estimate.value, found.estimate.low, found.estimate.high) == (1.0, 1.0, 1.0)
    # 3, -1, 1 has a mean of 1. Sums of ±3 ±1 ±1: ±5 once, ±3 twice, ±1 once, so 6 of 8 are 3 or more away from zero
    assert paired(np.array([3.0, 0.0, 1.0]), np.array([0.0, 1.0, 0.0])).p == 6 / 8


def test_paired_wants_both_values_of_an_image():
    a, b = np.array([1.0, np.nan, 3.0, 5.0]), np.array([0.0, 1.0, np.nan, 2.0])
    found = paired(a, b)
    assert (found.estimate.value, found.estimate.n) == (2.0, 2)
    assert paired(b, a).estimate.value == -2.0
    assert paired(a, b).p == paired(b, a).p
    nothing = paired(a[1:3], b[1:3])
    assert math.isnan(nothing.p)
    assert nothing.estimate.n == 0


def test_no_difference_at_all():
    found = paired(np.ones(40), np.ones(40))
    assert (found.p, found.estimate.value, found.estimate.low, found.estimate.high) == (1.0, 0.0, 0.0, 0.0)


def test_what_all_images_share_drops_out_of_a_paired_difference():
    """Images differ by much more than the two models do: unpaired, the difference would drown."""
    random = np.random.default_rng(0)
    image = random.normal(0, 10, 100)
    found = paired(image + 0.5 + random.normal(0, 0.5, 100), image)
    assert found.estimate.low > 0.3
    assert found.p == 1 / 10_000, "as small as the draws allow, and not zero"


def test_an_infinite_value_is_told():
    with pytest.raises(InputError, match="image 1 is infinite"):
        bootstrap(np.array([0.0, np.inf]))


def test_holm_by_hand():
    """0.01 × 4, 0.013 × 3 (not below the one before: 0.04), 0.03 × 2, and 0.04 × 1 (not below 0.06)."""
    np.testing.assert_allclose(holm([0.04, 0.01, 0.03, 0.013]), [0.06, 0.04, 0.06, 0.04])
    np.testing.assert_allclose(holm([0.04, math.nan, 0.01]), [0.04, math.nan, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.9]), [1.0, 1.0])
    assert len(holm([])) == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_no_correction_and_bonferronis(p_values: list[float]):
    p, corrected = np.array(p_values), holm(p_values)
    assert (corrected >= p).all()
    assert (corrected <= np.minimum(1, p * len(p))).all()
    assert (np.diff(corrected[np.argsort(p, kind="stable")]) >= 0).all(), "the order stays"


Draw = Callable[[np.random.Generator], np.ndarray]
KINDS: dict[str, tuple[Draw, float]] = {
    "normal": (lambda random: random.normal(2, 3, 200), 2.0),
    "share": (lambda random: random.random(200) < 0.2, 0.2),
}


@pytest.mark.parametrize("share", [0.05, 0.2, 0.3, 0.5])
def test_exact_coverage_of_a_share_of_few_images(share: float):
    """The interval of each number of successes in 24, weighed by how often it comes: no trials are drawn. It jumps with
    the share, as that of every interval of a share does; what matters is that it is not below 95 % by more than that.
    """
    successes = np.arange(25)
    found = [bootstrap(np.arange(24) < k) for k in successes]
    covers = [one.low - 1e-9 <= share <= one.high + 1e-9 for one in found]
    assert stats.binom.pmf(successes, 24, share)[covers].sum() > 0.94


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_coverage(kind: str):
    draw, truth = KINDS[kind]
    assert 0.93 <= _coverage(lambda random: bootstrap(draw(random), n_draws=1_999), truth) <= 0.97


@pytest.mark.slow
def test_coverage_of_a_ratio():
    """Each image has 1 to 3 nouns, each found with a probability of 0.6, or of 0.2 where the whole image is hard: what
    is found of one image goes together, and the truth is their mean."""

    def trial(random: np.random.Generator):
        true = random.integers(1, 4, 200)
        found = random.binomial(true, np.where(random.random(200) < 0.5, 0.2, 0.6))
        return bootstrap_ratio(found, true, n_draws=1_999)

    assert 0.93 <= _coverage(trial, 0.4) <= 0.97


@pytest.mark.slow
def test_coverage_of_a_difference():
    """Scores that share the image's difficulty; a is better by 0.3."""

    def trial(random: np.random.Generator):
        image = random.normal(0, 2, 200)
        return paired(image + random.normal(0.3, 1, 200), image + random.normal(0, 1, 200), n_draws=1_999).estimate

    assert 0.93 <= _coverage(trial, 0.3) <= 0.97


@pytest.mark.slow
def test_p_values_of_no_difference_are_uniform():
    """Then 5 % of them are below 0.05, whatever the values are: here heavy-tailed."""
    random = np.random.default_rng(0)
    p = [paired(random.standard_t(3, 60), random.standard_t(3, 60), n_draws=999).p for _ in range(N_TRIALS)]
    assert stats.kstest(p, "uniform").pvalue > 0.05
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.02)


def _coverage(trial: Callable, truth: float) -> float:
    random = np.random.default_rng(1)
    found = [trial(random) for _ in range(N_TRIALS)]
    return float(np.mean([one.low <= truth <= one.high for one in found]))
