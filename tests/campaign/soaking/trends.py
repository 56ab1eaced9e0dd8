"""Is a series of samples flat? Least squares over its second half, with the limits stated."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

WINDOW = 120.0
"""Seconds of which the least value counts: what is held between tasks, not what a task takes for a moment."""
SHARE = 0.10
"""The share of its mean by which a series may grow over its second half."""
LEAST_WINDOWS = 5
"""A second half with fewer windows is too short for a verdict."""


@dataclass(frozen=True)
class Trend:
    """The growth over the second half of a series.

    :ivar mean: of the least values of its windows. :ivar growth: the slope of their least squares line, times the
        seconds from the first window to the last. :ivar limit: the greatest growth that counts as flat.
    """

    mean: float
    growth: float
    limit: float
    windows: int

    @property
    def flat(self) -> bool | None:
        """None: too short for a verdict."""
        return None if self.windows < LEAST_WINDOWS else self.growth <= self.limit


def trend(seconds: Sequence[float], values: Sequence[float], floor: float, window: float = WINDOW) -> Trend:
    """Return the trend of the second half of a series.

    :param seconds: the times of the samples, increasing. :param floor: growth up to this is flat, whatever the mean.
    :param window: in seconds; 0: each sample counts.
    """
    middle = (seconds[0] + seconds[-1]) / 2 if seconds else 0.0
    least: dict[float, float] = {}
    for at, value in zip(seconds, values, strict=True):
        if at >= middle:
            start = (at - middle) // window if window else at
            least[start] = min(least.get(start, value), value)
    points = sorted(least.items())
    mean = statistics.fmean(least.values()) if least else 0.0
    growth = 0.0
    if len(points) > 1:
        slope = statistics.linear_regression(*zip(*points, strict=True)).slope
        growth = slope * (points[-1][0] - points[0][0])
    return Trend(mean, growth, max(floor, SHARE * mean), len(points))
