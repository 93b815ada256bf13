"""Slow change that no single step shows: ten losses of half a percent. Pure.

The test is Mann and Kendall's: of how many pairs of values is the later one the larger. It asks for
no distribution and no straight line. Pairs are taken within levels only and added up over them, as
over the seasons of Hirsch, Slack and Smith 1982 ("Techniques of trend analysis for monthly water
quality data"), so that a step that was found already is no drift. The size is Theil's and Sen's:
the median of the slopes of the same pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from numpy import arange, array_split, asarray, concatenate, median, sign, triu_indices
from scipy.special import ndtr

from perfsuite.history.noise import rescaled

_FEWEST = 8  # points in a level that are looked at; fewer pairs tell nothing at such p values
_MOST = 1000  # and the most: pairs grow with the square, so a longer level is taken in means


@dataclass(frozen=True)
class Drift:
    """A slow change over all points of a series, steps left out."""

    before: float  # the middle value of the series, less half of the change
    after: float  # and with half of it
    p_value: float  # two-sided


def drift(values: Sequence[float], points: Sequence[int], factor: float) -> Drift:
    """The drift within the levels that begin at `points`, however weak; its p value tells.

    factor is `noise.inflation` of the series.
    """
    levels = [values[start:end] for start, end in pairwise([0, *points, len(values)])]
    long = [level for level in levels if len(level) >= _FEWEST]
    middle = float(median(values))
    if not long:
        return Drift(middle, middle, 1.0)
    slopes, later = zip(*map(_pairs, long), strict=True)
    deviation = math.sqrt(sum(_variance(min(len(level), _MOST)) for level in long))
    nearer = max(abs(sum(later)) - 1, 0)  # continuity: the sum moves by steps of 2
    p_value = float(2 * ndtr(-nearer / deviation))
    half = float(median(concatenate(slopes))) * (len(values) - 1) / 2
    return Drift(middle - half, middle + half, rescaled(p_value, 1 / factor))


def _pairs(level: Sequence[float]) -> tuple[Sequence[float], int]:
    """Of all pairs in a level: the slopes, and how many more rise than fall."""
    blocks = min(len(level), _MOST)
    x, y = (
        asarray([part.mean() for part in array_split(line, blocks)])
        for line in (arange(len(level)), asarray(level, float))
    )
    first, second = triu_indices(blocks, 1)
    rises = y[second] - y[first]
    return rises / (x[second] - x[first]), int(sign(rises).sum())


def _variance(points: int) -> float:
    """Of the sum of signs without ties; ties make it smaller, so that they cost power only."""
    return points * (points - 1) * (2 * points + 5) / 18
