"""A number with its interval, and the difference between two."""

from dataclasses import dataclass
from typing import TypeAlias

from limber_interp.records.base import Record

Bounds: TypeAlias = tuple[float, float]  # the lowest and the highest value that a metric can have
SHARE: Bounds = (0.0, 1.0)


@dataclass(frozen=True)
class Estimate(Record):
    """A statistic over images, and its bootstrap interval.

    Attributes:
        low, high: ends of the interval; NaN where there are fewer than two images.
        n: images that were counted.
        level: the interval's.
    """

    value: float
    low: float
    high: float
    n: int
    level: float = 0.95


@dataclass(frozen=True)
class Difference(Record):
    """Of two things measured on the same images.

    Attributes:
        estimate: the mean difference.
        p: two-sided, of no difference; not corrected for other comparisons. NaN where there is no image.
    """

    estimate: Estimate
    p: float
