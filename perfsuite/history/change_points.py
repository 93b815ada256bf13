"""Where the level of a series changed, by Apache Otava. Pure; the one module that imports it.

Otava splits a series where the two sides differ most (Matteson and James 2014, "A nonparametric
approach for multiple change point analysis of multivariate data") as long as Student's test tells
them apart, window by window, and then takes the weakest splits back (Fleming and others 2023,
"Hunter: using change point detection to hunt for performance regressions"). Around it here:
outliers are moved in, the p value knows how far runs resemble their neighbours, and a slope is not
cut into steps.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from statistics import median
from typing import Any

from numpy import abs as magnitude
from numpy import arange, argmin, asarray, linalg, ones, sqrt
from scipy.special import stdtr

from perfsuite.errors import PerfError
from perfsuite.history import noise
from perfsuite.history.drift import Drift, drift

# The p value below which a point counts. Otava's own, 0.001, finds a change at one or two of a
# thousand quiet points, at more where noise has tails: docs/change-points.md has the measured
# trade.
MAX_P = 1e-5
# Of the splits that are tried before the weakest are taken back. A short episode is found only if
# its first end, weak as long as the second is unknown, is let through; this is Otava's own.
WEAK_P = 0.01
WINDOW = 50  # points that are looked at together, as Otava's own
FEWEST = 4  # points that a series must have
_CONSTANT = 4  # an exact figure that changes at over a fourth of its points is as noisy as another


@dataclass(frozen=True)
class ChangePoint:
    """A step from one level to another; levels are medians, in the unit of the values."""

    index: int  # of the first value of the new level
    before: float
    after: float
    p_value: float  # that independent noise of one level would be split so far, at this place


@dataclass(frozen=True)
class Found:
    """What a series shows."""

    points: tuple[ChangePoint, ...] = ()  # by index
    drift: Drift | None = None  # beside the points


def is_installed() -> bool:
    """Whether Otava is."""
    return find_spec("otava") is not None


def require_otava() -> None:
    """Raises PerfError where it is not installed, or is and can not be imported."""
    remedy = (
        "pip install 'perfsuite[history,changes]' in an environment of its own:"
        " Otava asks for an older numpy than most engines do"
    )
    if not is_installed():
        raise PerfError(f"change points need Apache Otava, which is not installed\n{remedy}")
    try:
        import_module("otava.analysis")
    except Exception as problem:
        why = f"{type(problem).__name__}: {problem}"
        raise PerfError(f"Apache Otava can not be imported ({why})\n{remedy}") from problem


def find(values: Sequence[float], *, exact: bool = False) -> Found:
    """The change points of a series of finite values in order of time, and its drift.

    Of a figure that is exact, a compiled fact, every change of value is a change point, without a
    test. A series of fewer than `FEWEST` points has nothing to show.
    Raises PerfError where Otava is not installed.
    """
    require_otava()
    if len(values) < FEWEST:
        return Found()
    if exact and len(changed := _changed(values)) <= len(values) // _CONSTANT:
        return Found(_points(values, dict.fromkeys(changed, 0.0)))
    # A change is a share, and so is noise: a level of twice the time has twice the noise.
    by_share = min(values) > 0
    scale = [math.log(value) for value in values] if by_share else list(values)
    factor = noise.inflation(scale)
    steady = noise.without_outliers(scale)
    split = _split(steady, noise.rescaled(MAX_P, factor))
    of_slope = 1.0 if noise.is_smooth(scale) else factor
    chosen, slope = _told_from_a_slope(steady, sorted(split), of_slope)
    surely = {at: noise.rescaled(split[at], 1 / factor) for at in chosen}
    if by_share:
        slope = replace(slope, before=math.exp(slope.before), after=math.exp(slope.after))
    return Found(_points(values, surely), slope if slope.p_value < MAX_P else None)


def _changed(values: Sequence[float]) -> list[int]:
    return [at for at, (old, new) in enumerate(pairwise(values), 1) if old != new]


def _points(values: Sequence[float], p_values: Mapping[int, float]) -> tuple[ChangePoint, ...]:
    levels = [median(values[a:b]) for a, b in pairwise([0, *p_values, len(values)])]
    sides = zip(p_values.items(), pairwise(levels), strict=True)
    return tuple(ChangePoint(at, before, after, p) for (at, p), (before, after) in sides)


def _split(values: Sequence[float], max_p: float) -> dict[int, float]:
    """Otava's change points: index and p value."""
    from otava import analysis

    with warnings.catch_warnings():
        # Levels without spread, of figures that are exact, divide by zero; the p value is then 0.
        warnings.simplefilter("ignore", RuntimeWarning)
        points = analysis.split(list(values), window_len=WINDOW, max_pvalue=WEAK_P)
        while points != (points := _merged(points, values, max_p)):
            pass  # a point that is taken back makes its neighbours weaker
    return {int(point.index): float(point.stats.pvalue) for point in points}


def _merged(points: Sequence[Any], values: Sequence[float], max_p: float) -> list[Any]:
    """Otava's points without the weakest, with fresh p values.

    Where Otava 0.8 takes a point back, the one before it keeps the p value of the shorter level.
    """
    from otava import analysis

    tester = analysis.TTestSignificanceTester(max_p)
    left = analysis.merge(list(points), values, max_pvalue=max_p, min_magnitude=0.0)
    levels = tester.get_intervals(left)
    return [tester.change_point(point.to_candidate(), values, levels) for point in left]


def _told_from_a_slope(
    values: Sequence[float], points: list[int], factor: float
) -> tuple[list[int], Drift]:
    """The points, or those that are left beside a slope where that describes the series better.

    Better is by Schwarz's criterion (1978, "Estimating the dimension of a model"), and the drift
    that takes the place of steps must be one by its own test.
    """
    left = _beside_a_slope(values, points)
    slope = drift(values, left, factor)
    if left == points:
        return points, slope
    if slope.p_value < MAX_P and _cost(values, left, slope=True) < _cost(values, points):
        return left, slope
    return points, drift(values, points, factor)


def _beside_a_slope(values: Sequence[float], points: Sequence[int]) -> list[int]:
    """Points that are steps still if the series may have a slope too; the weakest goes first."""
    left = list(points)
    while left:
        columns = _columns(len(values), left, slope=True)
        sizes, rest = _fit(values, columns)
        freedom = len(values) - columns.shape[1]
        if freedom < 1 or not rest:
            return left
        errors = sqrt(rest / freedom * linalg.inv(columns.T @ columns).diagonal())
        t = (magnitude(sizes) / errors)[2:]  # after the first level and the slope
        weakest = int(argmin(t))
        if 2 * stdtr(freedom, -t[weakest]) < MAX_P:
            return left
        del left[weakest]
    return left


def _cost(values: Sequence[float], points: Sequence[int], *, slope: bool = False) -> float:
    """Schwarz's criterion, n log(rest / n) + k log n, least for the best; k counts places too."""
    n = len(values)
    _, rest = _fit(values, _columns(n, points, slope=slope))
    k = 1 + slope + 2 * len(points)
    return n * math.log(rest / n) + k * math.log(n) if rest else -math.inf


def _columns(n: int, points: Sequence[int], *, slope: bool) -> Any:
    """A model's columns: the first level, the slope if any, a step for each point."""
    x = arange(n)
    steps = [(x >= point).astype(float) for point in points]
    return asarray([ones(n), *([x / n] if slope else []), *steps]).T


def _fit(values: Sequence[float], columns: Any) -> tuple[Any, float]:
    """Least squares: the sizes of the columns, and the squares that they leave; 0 for rounding."""
    y = asarray(values, float)
    sizes = linalg.lstsq(columns, y, rcond=None)[0]
    rest = float(((y - columns @ sizes) ** 2).sum())
    return sizes, rest if rest > 1e-20 * float((y * y).sum()) else 0.0
