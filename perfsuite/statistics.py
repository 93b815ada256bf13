"""Samples to the interval of a ratio. Pure: no clock, no file, no random number.

The unit of replication is the process: repeats inside one process share its memory layout, its
thread placement and its clock state, and say nothing about the next process. So the samples of a
process are reduced to their median, and an interval is made of the processes' medians alone.

Few processes estimate their own spread badly. The spread is therefore moderated towards a prior,
as in Smyth 2004 ("Linear models and empirical Bayes methods", section 3): `s^2 = (d0 s0^2 + d
s^2) / (d0 + d)`, compared with Student's t on `d0 + d` degrees of freedom. The prior is the spread
of medians between processes that shared two-core machines show, and is honest about one process
against one: its interval is wide.

What no interval of one session holds is the drift between sessions: a shared machine runs for
minutes at another pace. `drift_allowance` says what it may explain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

PRIOR_SPREAD = 0.03  # relative standard deviation of a process's median
PRIOR_FREEDOM = 4  # the prior weighs as much as this many degrees of freedom

# Student's t, one-sided 99 %, for 1 to 30 degrees of freedom (Abramowitz & Stegun, table 26.10).
_T99 = (
    31.821, 6.965, 4.541, 3.747, 3.365, 3.143, 2.998, 2.896, 2.821, 2.764,
    2.718, 2.681, 2.650, 2.624, 2.602, 2.583, 2.567, 2.552, 2.539, 2.528,
    2.518, 2.508, 2.500, 2.492, 2.485, 2.479, 2.473, 2.467, 2.462, 2.457,
)  # fmt: skip
_Z99 = 2.3263
# Relative standard deviation of a session's level, by kind of device, where nobody calibrated it.
# On shared two-core machines equal code was seen 1.29 times as slow an hour later.
DRIFT = {"cpu": 0.10, "cuda": 0.02, "tpu": 0.02}


@dataclass(frozen=True)
class Interval:
    """An estimate with its two 99 % one-sided bounds."""

    low: float
    estimate: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the width relative to the estimate: 0.02 reads "give or take 2 %"."""
        return (self.high - self.low) / 2 / self.estimate if self.estimate else 0.0


def t_99(freedom: int) -> float:
    """Student's t quantile at 0.99; beyond 30 degrees the normal one with two corrections."""
    if freedom <= len(_T99):
        return _T99[freedom - 1]
    first = (_Z99**3 + _Z99) / (4 * freedom)
    second = (5 * _Z99**5 + 16 * _Z99**3 + 3 * _Z99) / (96 * freedom**2)
    return _Z99 + first + second


def median_interval(processes: Sequence[float]) -> Interval:
    """The level of one side: the middle of its processes' medians, with bounds.

    `processes` are positive medians, one for each process.
    """
    center = math.fsum(math.log(p) for p in processes) / len(processes)
    margin = _margin([processes], 1 / len(processes))
    return _from_logs(center, margin)


def ratio_interval(over: Sequence[float], under: Sequence[float]) -> Interval:
    """The interval of over / under from the medians of both sides' processes.

    Logarithms make the ratio a difference and the spread relative. Both sides are taken to have
    the same spread, which is pooled.
    """
    center = _log_mean(over) - _log_mean(under)
    margin = _margin([over, under], 1 / len(over) + 1 / len(under))
    return _from_logs(center, margin)


def exact(value: float) -> Interval:
    """The interval of a figure without noise: a compiled fact."""
    return Interval(value, value, value)


def drift_allowance(spread: float) -> float:
    """The ratio that two sessions of equal code pass in one of a hundred comparisons.

    `spread` is the relative standard deviation of a session's level; baseline and target are one
    session each, so their ratio spreads by sqrt(2) of it.
    """
    return math.exp(_Z99 * math.sqrt(2) * spread)


def process_medians(samples_of_processes: Sequence[Sequence[float]]) -> list[float]:
    """One median for each process that delivered samples."""
    return [median(samples) for samples in samples_of_processes if samples]


def _log_mean(values: Sequence[float]) -> float:
    return math.fsum(math.log(v) for v in values) / len(values)


def _margin(sides: Sequence[Sequence[float]], inverse_counts: float) -> float:
    freedom = sum(len(side) - 1 for side in sides)
    squares = math.fsum((math.log(v) - _log_mean(side)) ** 2 for side in sides for v in side)
    pooled = (PRIOR_FREEDOM * PRIOR_SPREAD**2 + squares) / (PRIOR_FREEDOM + freedom)
    return t_99(PRIOR_FREEDOM + freedom) * math.sqrt(pooled * inverse_counts)


def _from_logs(center: float, margin: float) -> Interval:
    return Interval(math.exp(center - margin), math.exp(center), math.exp(center + margin))
