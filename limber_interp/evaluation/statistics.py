"""How sure a number is: intervals over images, paired differences, and p-values of several comparisons.

Images are what is drawn at random, so images are what is resampled. An interval says how the number would move with
other images of the same kind; it knows nothing of other prompts, other training seeds or another language model.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Shaped
from scipy import stats

from limber_interp.errors import InputError
from limber_interp.records import SHARE, Bounds, Difference, Estimate

N_DRAWS = 9_999  # a p-value from them is a multiple of 1 / 10,000
AT_THE_END = 1e-3  # of what a metric can reach: sentence BLEU has 1e-9 to 1e-4 where no 4-gram is right
KEPT_AT_ONCE = 2**22  # resampled values: 32 MiB


def bootstrap(
    values: Shaped[np.ndarray, " images"],
    seed: int = 0,
    n_draws: int = N_DRAWS,
    level: float = 0.95,
    bounds: Bounds | None = SHARE,
) -> Estimate:
    """The mean over images and its interval. An image whose value is NaN is not counted.

    The interval is the bias-corrected and accelerated one (Efron 1987), which moves with the skew of the values. Where
    all lie at one end of what the metric can reach (within a thousandth), resampling says nothing, and it is Wilson's
    (1927) for a share, stretched to that range: no metric between two bounds varies more than one that is at either
    bound. So CIDEr-D, from 0 to 10, of 0 in 24 images has an interval from 0 to 1.38. Where all have another value its
    width is zero.

    So a share of 5 % in 24 images is covered in 99 % of all cases (the percentile interval: 71 %), one of 20 % in 96 %
    (93 %). Like every bootstrap it is too narrow for few values with a long tail: 24 log-normal ones, 91 % (87 %).

    The same seed gives the same draws to all metrics over the same number of images.

    Args:
        bounds: the lowest and the highest value that an image can have; None where it has no such ends.

    Raises:
        InputError: a value that is infinite.
    """
    values = _finite(values)
    return bootstrap_ratio(values, np.where(np.isnan(values), 0.0, 1.0), seed, n_draws, level, bounds)


def bootstrap_ratio(
    numerator: Shaped[np.ndarray, " images"],
    denominator: Shaped[np.ndarray, " images"],
    seed: int = 0,
    n_draws: int = N_DRAWS,
    level: float = 0.95,
    bounds: Bounds | None = SHARE,
) -> Estimate:
    """The sum of one count over the sum of another, such as micro recall: nouns found by nouns to be found.

    Interval, seed, bounds (of an image's ratio) and errors as in `bootstrap`; both counts of an image stay together. An
    image with nothing below the line is not counted.
    """
    numerator, denominator = _finite(numerator), _finite(denominator)
    counted = denominator != 0
    numerator, denominator = numerator[counted], denominator[counted]
    n = len(numerator)
    if bounds is not None and n > 1:
        for share, end in zip(SHARE, bounds, strict=True):
            if (np.abs(numerator / denominator - end) <= AT_THE_END * (bounds[1] - bounds[0])).all():
                wilson = stats.binomtest(round(share * n), n).proportion_ci(level, method="wilson")
                low, high = (bounds[0] + (bounds[1] - bounds[0]) * float(of) for of in (wilson.low, wilson.high))
                return Estimate(float(numerator.sum() / denominator.sum()), low, high, n, level)
    return _interval(numerator, denominator, seed, n_draws, level)


def paired(
    a: Shaped[np.ndarray, " images"],
    b: Shaped[np.ndarray, " images"],
    seed: int = 0,
    n_draws: int = N_DRAWS,
    level: float = 0.95,
) -> Difference:
    """The mean of a - b over the images that have both, its interval, and a p-value from flipping signs.

    Where neither is better, exchanging a and b on an image changes nothing but the sign of its difference. p is the
    share of random exchanges, the one that was observed among them, whose mean difference is as far from zero: so it
    is never zero. With few images all exchanges are made. It asks about *this* mean: two things that fail on different
    images can have none.

    Raises:
        InputError: a and b are not of the same images, or a value is infinite.
    """
    if len(a) != len(b):
        raise InputError(
            f"paired: {len(a)} and {len(b)} values; give those of the same images, NaN where there is none"
        )
    differences = _finite(a) - _finite(b)
    differences = differences[~np.isnan(differences)]
    estimate = _interval(differences, np.ones_like(differences), seed, n_draws, level)
    return Difference(estimate, _sign_flip_p(differences, seed, n_draws))


def holm(p_values: Sequence[float] | Float[np.ndarray, " comparisons"]) -> Float[np.ndarray, " comparisons"]:
    """p-values corrected for how many there are, in their order (Holm 1979): where those below 0.05 are called
    differences, the chance that any of them is none is at most 5 %. NaNs are no comparisons and stay NaN.
    """
    p = np.asarray(p_values, dtype=np.float64)
    corrected = np.full_like(p, math.nan)
    compared = np.flatnonzero(~np.isnan(p))
    order = compared[np.argsort(p[compared], kind="stable")]
    # The smallest is compared with 0.05 / n, the next one with 0.05 / (n - 1), … until the first that is not below
    steps = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected


def _interval(numerator: np.ndarray, denominator: np.ndarray, seed: int, n_draws: int, level: float) -> Estimate:
    n = len(numerator)
    value = float(numerator.sum() / denominator.sum()) if n else math.nan
    if n < 2:
        return Estimate(value, math.nan, math.nan, n, level)
    ratios = numerator / denominator
    if ratios.min() == ratios.max():
        return Estimate(value, value, value, n, level)
    interval = stats.bootstrap(
        (numerator, denominator),
        lambda above, below, axis: above.sum(axis=axis) / below.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=n_draws,
        batch=max(1, KEPT_AT_ONCE // n),
        confidence_level=level,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(value, float(interval.low), float(interval.high), n, level)


def _sign_flip_p(differences: np.ndarray, seed: int, n_draws: int) -> float:
    n = len(differences)
    if n == 0:
        return math.nan
    if n == 1:
        return 1.0  # either sign is as far from zero
    return float(
        stats.permutation_test(
            (differences,),
            lambda drawn, axis: np.abs(drawn.mean(axis=axis)),
            permutation_type="samples",
            alternative="greater",
            vectorized=True,
            n_resamples=n_draws,
            batch=max(1, KEPT_AT_ONCE // n),
            rng=np.random.default_rng(seed),
        ).pvalue
    )


def _finite(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if np.isinf(values).any():
        raise InputError(
            f"statistics: the value of image {int(np.argmax(np.isinf(values)))} is infinite; NaN is for none"
        )
    return values
