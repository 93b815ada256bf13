"""A comparison against its limit becomes a verdict with a reason. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # results travel through workers, which need no statistics
    from perfsuite.statistics import Comparison, Interval


class Verdict(StrEnum):
    """What a figure turned out to be; WORSE and VOID fail a test, four more fail when strict."""

    BETTER = "BETTER"  # the whole interval is beyond the limit on the good side
    SAME = "SAME"  # the whole interval is inside the limit
    WORSE = "WORSE"  # beyond the limit, and beyond what noise explains
    UNSURE = "UNSURE"  # neither can be told
    VOID = "VOID"  # the contract was broken: no figure
    NEW = "NEW"  # no baseline has this key
    FOREIGN = "FOREIGN"  # only another machine class or definition has it
    GONE = "GONE"  # a baseline without an item
    SHOWN = "SHOWN"  # recorded, never judged: the metric is not gated


FAILING = frozenset({Verdict.WORSE, Verdict.VOID})
FAILING_WHEN_STRICT = FAILING | {Verdict.UNSURE, Verdict.NEW, Verdict.FOREIGN, Verdict.GONE}
COMPARED = frozenset({Verdict.BETTER, Verdict.SAME, Verdict.WORSE, Verdict.UNSURE})

_ANY_LOSS = 100.0  # noise that may reach so far leaves nothing to be told by number


@dataclass(frozen=True)
class Judgement:
    """A verdict; the ratio and the largest accepted ratio where there is a baseline."""

    verdict: Verdict
    ratio: Interval | None = None
    limit: float | None = None
    alarm: float | None = None  # the ratio from which this comparison says WORSE
    detectable: float | None = None  # the smallest ratio it would have seen
    reason: str = ""
    may_settle: bool = False  # whether more processes could decide it


def judge_exact(ratio: Interval, limit: float) -> Judgement:
    """The verdict for figures without noise: any ratio beyond the limit counts."""
    found = Verdict.BETTER if ratio.estimate < 1 / limit else Verdict.SAME
    verdict = Verdict.WORSE if ratio.estimate > limit else found
    return Judgement(verdict, ratio, limit, alarm=limit, detectable=limit)


def judge(found: Comparison, limit: float, excuse: float = 1.0) -> Judgement:
    """The verdict for a comparison (below 1 is better) and the largest accepted ratio.

    `excuse` is the factor that a disturbance of this run alone explains. SAME asks only that
    nothing got worse than the limit; BETTER that all of it got better by more than the same factor.
    """
    ratio, alarm = found.ratio, found.alarm(limit) * excuse
    detectable = found.detectable(limit) * excuse

    def verdict(name: Verdict, reason: str = "", *, may_settle: bool = False) -> Judgement:
        return Judgement(name, ratio, limit, alarm, detectable, reason, may_settle)

    if ratio.estimate > alarm:
        return verdict(Verdict.WORSE)
    if ratio.high < 1 / limit:
        return verdict(Verdict.BETTER)
    if ratio.high <= limit:
        return verdict(Verdict.SAME)
    # Where the spread between sessions is unknown, more processes of this one settle little.
    unknown = not found.sessions_known
    return verdict(
        Verdict.UNSURE, _doubt(ratio, limit, alarm, detectable, unknown), may_settle=not unknown
    )


def _doubt(
    ratio: Interval, limit: float, alarm: float, detectable: float, unknown: bool
) -> str:
    if unknown and ratio.low > limit:
        return (
            f"beyond the limit here, but another session may explain up to {alarm:.2f}:"
            " --perf-calibrate, three saves or --perf-against settle it"
        )
    if unknown:
        return f"the interval {ratio.low:.3f}..{ratio.high:.3f} straddles the limit {limit:.3f}"
    if alarm > _ANY_LOSS:
        return "too few processes: the noise between them may explain any loss (--perf-processes)"
    return f"noise reaches {alarm:.3f}; a change to {detectable:.3f} or more would have been seen"


def fails(verdict: Verdict, *, strict: bool, accepting: bool) -> bool:
    """Whether this verdict fails a run; a run that accepts new figures passes a WORSE."""
    if accepting and verdict is not Verdict.VOID:
        return False
    return verdict in (FAILING_WHEN_STRICT if strict else FAILING)
