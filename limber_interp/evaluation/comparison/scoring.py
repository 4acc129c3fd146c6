"""From a number per image to what a table shows: estimates, their intervals, and paired differences."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from jaxtyping import Float

from limber_interp.evaluation.statistics import bootstrap, bootstrap_ratio, holm, paired
from limber_interp.records import Contrast, Estimate, Metric, Score


@dataclass(frozen=True)
class Sample:
    """A number of each entry for each image; NaN where there is none.

    Attributes:
        weights: of the images, where one stands for several things (questions); None: all weigh the same.
    """

    values: Float[np.ndarray, "entry image"]
    weights: Float[np.ndarray, " image"] | None = None


@dataclass(frozen=True)
class Measured:
    """One metric of all entries.

    Attributes:
        chance: of each entry, see `Metric.chance`.
        groups: (by what, which group) -> the values within it.
        per_image: whether the images are those that are captioned, in their order.
    """

    metric: Metric
    sample: Sample
    chance: Float[np.ndarray, " entry"] | None = None
    groups: Mapping[tuple[str, str], Sample] = field(default_factory=dict)
    per_image: bool = True


@dataclass(frozen=True)
class Described:
    """One metric that is estimated as a whole, for the entries that have it."""

    metric: Metric
    estimates: Mapping[str, Estimate]


def scores(measured: Measured, entries: Sequence[str], seed: int) -> Iterator[Score]:
    """Each entry's, over all and in each group."""
    metric = measured.metric.name
    chance = np.full(len(entries), np.nan) if measured.chance is None else measured.chance
    for row, entry in _with_values(measured, entries):
        yield Score(entry, metric, _estimate(measured, measured.sample, row, seed), float(chance[row]))
        for (by, group), sample in measured.groups.items():
            yield Score(entry, metric, _estimate(measured, sample, row, seed), by=by, group=group)


def contrasts(measured: Measured, entries: Sequence[str], seed: int) -> Iterator[Contrast]:
    """Of every pair of entries, over the images that both have a value for."""
    pairs = list(combinations(_with_values(measured, entries), 2))
    values, weights = measured.sample.values, measured.sample.weights
    if weights is not None:  # so that the mean is the weighted one; an image without weight has no value
        values = values * weights / weights[weights > 0].mean()
    found = [paired(values[a], values[b], seed) for (a, _), (b, _) in pairs]
    corrected = holm([difference.p for difference in found])
    for ((_, first), (_, second)), difference, p in zip(pairs, found, corrected.tolist(), strict=True):
        yield Contrast(measured.metric.name, first, second, difference, p)


def _with_values(measured: Measured, entries: Sequence[str]) -> list[tuple[int, str]]:
    """Row and name of the entries that have any: one without an image has no representation of it."""
    return [(row, name) for row, name in enumerate(entries) if not np.isnan(measured.sample.values[row]).all()]


def _estimate(measured: Measured, sample: Sample, row: int, seed: int) -> Estimate:
    bounds = measured.metric.bounds
    if sample.weights is None:
        return bootstrap(sample.values[row], seed, bounds=bounds)
    values = np.nan_to_num(sample.values[row]) * sample.weights
    return bootstrap_ratio(values, sample.weights, seed, bounds=bounds)
