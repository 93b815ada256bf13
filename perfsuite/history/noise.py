"""What noise is in a history: outliers, and runs that resemble the run before them. Pure.

A test of levels takes the points for independent and of one spread. A history is not so: one run of
twenty meets a busy machine, and the state of a machine lasts for some runs. Both are estimated from
differences of neighbours, in which a step is one odd value among many: neither a step nor a slow
slope passes for noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from numpy import asarray, clip, diff
from scipy.special import ndtr, ndtri

_TO_DEVIATION = 1.4826  # median absolute deviation to standard deviation, of normal noise
REACH = 5  # points on either side that a point is held against
_NOISE_REACH = 25  # points on either side whose noise it may have
_FARTHEST = 2.0  # standard deviations from the middle of its neighbours that a point may have
_SEEN = 3.0  # / sqrt(points): two standard errors, below which a correlation is taken for chance
_STRONGEST = 0.95
_SMOOTH = 8  # steps, all of one direction, which noise of 9 points has once in 180,000 series


def spread(values: Sequence[float]) -> float:
    """The standard deviation of the noise; 0 where more than half of the neighbours are equal."""
    if len(values) < 3:
        return 0.0
    return float(_TO_DEVIATION * median(abs(diff(asarray(values, float)))) / math.sqrt(2))


def without_outliers(values: Sequence[float]) -> list[float]:
    """Every value, moved to at most two standard deviations from the median of its neighbours.

    That is Hampel's identifier with the outliers moved in, not out (Hampel 1974, "The influence
    curve and its role in robust estimation"). The deviation is that of the series or of the points
    around, of which the larger: where noise has grown, values would else be smoothed into levels.
    A new level is no outlier once it fills half of the neighbourhood, at the end of a series with
    three points. Values without noise stay.
    """
    if not (usual := spread(values)):
        return list(values)
    steady = []
    for at, value in enumerate(values):
        middle = median(_around(values, at, REACH))
        farthest = _FARTHEST * max(usual, spread(_around(values, at, _NOISE_REACH)))
        steady.append(min(max(value, middle - farthest), middle + farthest))
    return steady


def _around(values: Sequence[float], at: int, reach: int) -> Sequence[float]:
    return values[max(0, at - reach) : at + reach + 1]


def inflation(values: Sequence[float]) -> float:
    """By what the standard error of a level grows because runs resemble the run before; at least 1.

    sqrt((1 + r) / (1 - r)) for a first-order correlation r (Bayley and Hammersley 1946, "The
    effective number of independent observations"). Of differences of such noise the correlation is
    (r - 1) / 2, which gives r. Only what is beyond two standard errors counts, as a short history
    would else be told from noise by nothing at all.
    """
    steps = diff(asarray(values, float))
    if not (widest := 3 * _TO_DEVIATION * median(abs(steps)) if len(steps) > 2 else 0.0):
        return 1.0
    steps = clip(steps - median(steps), -widest, widest)
    if not (squares := float((steps * steps).sum())):
        return 1.0  # a straight line
    r = 1 + 2 * float((steps[1:] * steps[:-1]).sum()) / squares
    r = min(max(r - _SEEN / math.sqrt(len(values)), 0.0), _STRONGEST)
    return math.sqrt((1 + r) / (1 - r))


def is_smooth(values: Sequence[float]) -> bool:
    """Whether a series never turns, as noise would: what resembles the run before is its growth."""
    steps = diff(asarray(values, float))
    return len(steps) >= _SMOOTH and bool((steps >= 0).all() or (steps <= 0).all())


def rescaled(p_value: float, factor: float) -> float:
    """The two-sided p value of a normal deviate that is `factor` times as far out."""
    return float(2 * ndtr(factor * ndtri(p_value / 2)))
