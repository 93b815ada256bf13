"""Samples to the interval of a ratio. Pure: no clock, no file, no random number.

Noise has levels. Samples inside one process share its memory layout and thread placement, processes
of one session share the hour's state of the machine. So the samples of a process are reduced to
their median, and intervals are made of processes within sessions: the unit of replication is the
highest level that varies (Kalibera and Jones 2013, "Rigorous benchmarking in reasonable time").

Everything is done in logarithms: a ratio becomes a difference and a spread is relative.

**What is controlled** is the alarm at ratio 1: `ALARMS` is the probability that a run in which
nothing changed calls anything WORSE. It is divided over the figures of the run (Bonferroni, valid
under any dependence between them) and over the looks at one figure, which are fixed in advance
(Lan and DeMets 1983, the spending function of Pocock's kind; the parts are used without their
correlation, which errs to the safe side).

**The session part** is never in the samples of one session. It comes from sessions of equal code:
`spreads` splits it into an effect that all figures of a session share, which is one event for the
whole run, and one of each figure's own, whose variance is moderated over the figures (Smyth 2004,
"Linear models and empirical Bayes methods", sections 3 and 6.2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from numpy import diff, geomspace, minimum, sqrt
from scipy.optimize import brentq
from scipy.special import digamma, ndtri, polygamma, stdtr, stdtrit

Sessions = Sequence[Sequence[float]]  # of each session, a median for each process

ALARMS = 0.01  # accepted probability that an unchanged run calls anything WORSE
CONFIDENCE = 0.95  # of each bound of an interval that is shown
POWER = 0.90  # with which the smallest detectable change is seen
LOOKS = (1 / 3, 2 / 3, 1.0)  # information that each look at a stored comparison has
PAIR_LOOKS = (1 / 4, 1 / 2, 1.0)  # and at base and head in turn
# A factor that no session was seen to explain: on shared two-core machines equal code ran up to
# 1.35 times as slow an hour later. Where the spread between sessions is unknown, only a loss beyond
# this factor is called one.
UNKNOWN_SESSION = 2.0
PRIOR_SPREAD = 0.03  # relative standard deviation of a process's median, where nothing is known
PRIOR_FREEDOM = 4  # the prior weighs as much as this many degrees of freedom
# A probe is the best of three, and of none: what it left of a figure's spread is too little by what
# the best of four is by chance. So the alarms, the run's too, are divided by four (Bonferroni).
_PROBE_CHOICES = 4
_LARGEST_PRIOR = 20.0  # figures of one session are correlated: fewer than they look
_ENOUGH_FIGURES = 5  # from which a common session effect can be told from the figures' own
_TINIEST = 1e-6  # relative; no spread is taken to be smaller
_LARGEST = 700.0  # logarithm of a ratio; a float ends soon after it
# Upper tail probabilities over which a common effect is averaged, close together where it is large.
_EDGES = geomspace(1e-7, 1.0, 241)
_TAILS, _WEIGHTS = sqrt(_EDGES[1:] * _EDGES[:-1]), diff(_EDGES)


@dataclass(frozen=True)
class Interval:
    """An estimate with its two one-sided bounds, each of `CONFIDENCE`."""

    low: float
    estimate: float
    high: float


@dataclass(frozen=True)
class Spread:
    """What sessions of equal code showed of one figure: relative standard deviations."""

    sessions: int
    processes: int  # of each session
    common: float  # of the effect that a session has on all figures
    own: float  # of its level beside that, the spread of its processes' mean included; 0: unknown
    freedom: float  # degrees of freedom of `own`
    process: float  # between the processes of a session; 0 where it is not known
    probe: str = ""  # the probe of the machine by which the figure is corrected, if any


@dataclass(frozen=True)
class Comparison:
    """A ratio, and what noise alone reaches in one of 1 / alarms runs."""

    ratio: Interval
    margin: float  # logarithm: noise that this look must be beyond
    spread: float  # standard error of the ratio's logarithm
    sessions_known: bool = True

    def alarm(self, limit: float) -> float:
        """The ratio from which this is WORSE: beyond the limit, and beyond what noise explains."""
        noise = math.exp(self.margin) if self.margin < _LARGEST else math.inf
        return max(limit, noise) if self.sessions_known else limit * UNKNOWN_SESSION * noise

    def detectable(self, limit: float) -> float:
        """The smallest true ratio that would have been called WORSE with probability `POWER`."""
        return self.alarm(limit) * math.exp(float(ndtri(POWER)) * self.spread)


def exact(value: float) -> Interval:
    """The interval of a figure without noise: a compiled fact."""
    return Interval(value, value, value)


def process_medians(samples_of_processes: Sequence[Sequence[float]]) -> list[float]:
    """One median for each process that delivered samples."""
    return [median(samples) for samples in samples_of_processes if samples]


def level(sessions: Sessions) -> float:
    """The logarithm of one side's level: the mean over its processes."""
    return fmean(math.log(value) for session in sessions for value in session)


def level_interval(processes: Sequence[float]) -> Interval:
    """The level of one side with the bounds that its processes give it."""
    variance, freedom = _process_variance([processes])
    return _interval(level([processes]), math.sqrt(variance / len(processes)), freedom)


def compare(
    target: Sessions, base: Sessions, spread: Spread | None, alarms: float, look: int = 0
) -> Comparison:
    """The ratio target / base, judged with the spread between sessions where it is known.

    `alarms` is this figure's part of `ALARMS`; `look` counts from 0.
    """
    center = level(target) - level(base)
    counts = [sum(map(len, side)) for side in (target, base)]
    part = spent(alarms, LOOKS, look)
    if spread is None:
        pooled, freedom = _process_variance([*target, *base])
        error = math.sqrt(pooled * sum(1 / count for count in counts))
        margin = _t(1 - part, freedom) * error
        return Comparison(_interval(center, error, freedom), margin, error, sessions_known=False)
    choices = _PROBE_CHOICES if spread.probe else 1
    part /= choices
    if spread.own:
        variance, freedom = _own_variance(spread, counts, [len(target), len(base)], part)
        of_interval: float = spread.sessions - 1
    else:
        variance, freedom = _variance_here([*target, *base], counts)
        of_interval = freedom
    common = spread.common * math.sqrt(1 / len(target) + 1 / len(base))
    own, known = math.sqrt(variance), spread.sessions - 1
    margin = _margin(own, freedom, common, known, part, ALARMS / choices)
    error = math.sqrt(variance + common**2)
    return Comparison(_interval(center, error, of_interval), margin, error)


def compare_pairs(log_ratios: Sequence[float], alarms: float, look: int = 0) -> Comparison:
    """The ratio of pairs of fresh processes that were measured in turn, one value a pair.

    A session's effect is on both sides of a pair and cancels. Student's t on the pairs alone.
    """
    center = fmean(log_ratios)
    freedom = len(log_ratios) - 1
    if freedom < 1:
        return Comparison(Interval(0.0, math.exp(center), math.inf), math.inf, math.inf)
    squares = math.fsum((value - center) ** 2 for value in log_ratios)
    error = max(math.sqrt(squares / freedom / len(log_ratios)), _TINIEST)
    margin = _t(1 - spent(alarms, PAIR_LOOKS, look), freedom) * error
    return Comparison(_interval(center, error, freedom), margin, error)


def spent(alarms: float, looks: Sequence[float], look: int) -> float:
    """What one look may spend of `alarms`: the increment of alarms * log(1 + (e - 1) t)."""
    before = looks[look - 1] if look else 0.0
    return alarms * (_spent_until(looks[look]) - _spent_until(before))


def known_drift(drift: float) -> Spread:
    """A spread between sessions that somebody states, as a common effect known for certain.

    It says nothing of processes: their spread comes from those that are compared.
    """
    return Spread(sessions=10**6, processes=1, common=drift, own=0.0, freedom=0.0, process=0.0)


def spreads(figures: Mapping[str, Sessions]) -> dict[str, Spread]:
    """The spread of each figure from sessions of equal code, the same number for every figure.

    Values count in one direction: throughputs come as their reciprocals, so that a slow session
    raises all. Two sessions at least; Student's t is wide for few.
    """
    levels = {name: [level([session]) for session in of] for name, of in figures.items()}
    deviations = {name: [v - fmean(values) for v in values] for name, values in levels.items()}
    count = len(next(iter(levels.values())))
    common = [0.0] * count
    if len(levels) >= _ENOUGH_FIGURES:
        common = [fmean(rows) for rows in zip(*deviations.values(), strict=True)]
    lost = 1 - 1 / len(levels) if any(common) else 1.0  # what taking the mean away took of each
    own = {
        name: math.fsum((d - c) ** 2 for d, c in zip(row, common, strict=True)) / (count - 1) / lost
        for name, row in deviations.items()
    }
    prior_freedom, prior = _prior(list(own.values()), count - 1)
    shared = math.sqrt(math.fsum(c**2 for c in common) / (count - 1))
    found = {}
    for name, variance in own.items():
        freedom = prior_freedom + count - 1
        moderated = (prior_freedom * prior + (count - 1) * variance) / freedom
        found[name] = Spread(
            sessions=count,
            processes=min(map(len, figures[name])),
            common=shared,
            own=max(math.sqrt(moderated), _TINIEST),
            freedom=freedom,
            process=_within(figures[name]),
        )
    return found


def between_sessions(sessions: Sessions) -> float:
    """The plain standard deviation of the sessions' levels."""
    levels = [level([session]) for session in sessions]
    center = fmean(levels)
    return math.sqrt(math.fsum((v - center) ** 2 for v in levels) / (len(levels) - 1))


def _prior(variances: Sequence[float], freedom: int) -> tuple[float, float]:
    """Degrees of freedom and value of the variance that the figures share (Smyth, section 6.2)."""
    if len(variances) < _ENOUGH_FIGURES:
        return 0.0, 0.0
    half = freedom / 2
    shift = math.log(half) - float(digamma(half))
    logs = [math.log(max(variance, _TINIEST**2)) + shift for variance in variances]
    center = fmean(logs)
    excess = math.fsum((v - center) ** 2 for v in logs) / (len(logs) - 1)
    excess -= float(polygamma(1, half))
    if excess <= 0:
        return _LARGEST_PRIOR, math.exp(center)
    half_prior = min(_inverse_trigamma(excess), _LARGEST_PRIOR / 2)
    return 2 * half_prior, math.exp(center + float(digamma(half_prior)) - math.log(half_prior))


def _inverse_trigamma(value: float) -> float:
    """The x at which trigamma(x) is `value`, by Newton's method (Smyth, appendix)."""
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, x))
        x += step
        if abs(step) < 1e-9 * x:
            break
    return x


def _within(sessions: Sessions) -> float:
    """The standard deviation between processes of one session, pooled; 0 for single ones."""
    freedom = sum(len(session) - 1 for session in sessions)
    return math.sqrt(_squares(sessions) / freedom) if freedom else 0.0


def _own_variance(
    spread: Spread, counts: Sequence[int], sessions: Sequence[int], alarms: float
) -> tuple[float, float]:
    """Variance of a log ratio beside the common effect, and its degrees of freedom.

    More processes than the calibration had narrow the process part alone. The difference of two
    estimated variances is as uncertain as the larger of them (Satterthwaite 1946): where that costs
    more than it gains, the variance stays as it was calibrated.
    """
    own = spread.own**2
    between = max(own - spread.process**2 / spread.processes, 0.0)
    variance = between * sum(1 / s for s in sessions)
    variance += spread.process**2 * sum(1 / n for n in counts)
    estimated = own * sum(1 / s for s in sessions)
    freedom = max(spread.freedom * min(1.0, (variance / estimated) ** 2), 1.0)
    ways = [(variance, freedom), (max(variance, estimated), spread.freedom)]
    return min(ways, key=lambda way: _t(1 - alarms, way[1]) * math.sqrt(way[0]))


def _variance_here(sessions: Sessions, counts: Sequence[int]) -> tuple[float, float]:
    """Variance of a log ratio by the processes alone, and its degrees of freedom.

    Without the prior, which would promise too much of noisy ones; by it where all are single.
    """
    freedom = sum(len(session) - 1 for session in sessions)
    within, freedom = (_within(sessions), freedom) if freedom else (PRIOR_SPREAD, PRIOR_FREEDOM)
    return max(within, _TINIEST) ** 2 * sum(1 / n for n in counts), freedom


def _margin(
    own: float, freedom: float, common: float, known: int, alarms: float, run: float = ALARMS
) -> float:
    """What the sum of a figure's own and the common effect reaches by chance.

    The common effect c, of `known` degrees of freedom, is one event for all figures of the run, the
    own effects are one each. With n = run / alarms of these, the smallest u for which the mean over
    c of min(1, n * P(own > u - c)) is `run`, the accepted alarms of all figures.
    """
    alone = _t(1 - alarms, freedom) * own
    if not common:
        return alone
    shifts = common * stdtrit(known, 1 - _TAILS)

    def excess(margin: float) -> float:
        beyond = stdtr(freedom, (shifts - margin) / own) * (run / alarms)
        return float(minimum(beyond, 1.0) @ _WEIGHTS) - run

    highest = alone + _t(1 - run / 4, known) * common
    while excess(highest) > 0:
        highest *= 2
    return float(brentq(excess, 0.0, highest, xtol=1e-5)) if excess(0.0) > 0 else 0.0


def _process_variance(sessions: Sessions) -> tuple[float, float]:
    """The variance of a process's median, moderated towards the prior, and its freedom."""
    freedom = sum(len(session) - 1 for session in sessions)
    pooled = PRIOR_FREEDOM * PRIOR_SPREAD**2 + _squares(sessions)
    return pooled / (PRIOR_FREEDOM + freedom), PRIOR_FREEDOM + freedom


def _squares(sessions: Sessions) -> float:
    logs = [[math.log(value) for value in session] for session in sessions]
    centers = [fmean(session) for session in logs]
    rows = zip(logs, centers, strict=True)
    return math.fsum((value - center) ** 2 for session, center in rows for value in session)


def _spent_until(information: float) -> float:
    return math.log(1 + (math.e - 1) * information)


def _t(probability: float, freedom: float) -> float:
    """Student's t quantile; scipy's, which takes fractions of a degree."""
    return float(stdtrit(freedom, probability))


def _interval(center: float, error: float, freedom: float) -> Interval:
    half = _t(CONFIDENCE, freedom) * error
    return Interval(math.exp(center - half), math.exp(center), math.exp(center + half))
