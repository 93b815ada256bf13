"""An interval of the ratio against its limit becomes a verdict with a reason. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from perfsuite.statistics import Interval


class Verdict(StrEnum):
    """What a figure turned out to be; WORSE and VOID fail a test, four more fail when strict."""

    BETTER = "BETTER"  # the whole interval is beyond the limit on the good side
    SAME = "SAME"  # the whole interval is inside the limit
    WORSE = "WORSE"  # the whole interval is beyond the limit
    UNSURE = "UNSURE"  # the interval straddles the limit
    VOID = "VOID"  # the contract was broken: no figure
    NEW = "NEW"  # no baseline has this key
    FOREIGN = "FOREIGN"  # only another machine class or definition has it
    GONE = "GONE"  # a baseline without an item
    SHOWN = "SHOWN"  # recorded, never judged: the metric is not gated


FAILING = frozenset({Verdict.WORSE, Verdict.VOID})
FAILING_WHEN_STRICT = FAILING | {Verdict.UNSURE, Verdict.NEW, Verdict.FOREIGN, Verdict.GONE}
COMPARED = frozenset({Verdict.BETTER, Verdict.SAME, Verdict.WORSE, Verdict.UNSURE})


@dataclass(frozen=True)
class Judgement:
    """A verdict, and the ratio and the largest accepted ratio where there is a baseline."""

    verdict: Verdict
    ratio: Interval | None = None
    limit: float | None = None
    reason: str = ""


def judge(ratio: Interval, limit: float) -> Judgement:
    """The verdict for an interval of the ratio (below 1 is better) and the largest accepted ratio.

    SAME asks only that nothing got worse than the limit; BETTER that all of it got better by more
    than the same factor.
    """
    if ratio.low > limit:
        return Judgement(Verdict.WORSE, ratio, limit)
    if ratio.high < 1 / limit:
        return Judgement(Verdict.BETTER, ratio, limit)
    if ratio.high <= limit:
        return Judgement(Verdict.SAME, ratio, limit)
    reason = f"the interval {ratio.low:.3f}..{ratio.high:.3f} straddles the limit {limit:.3f}"
    return Judgement(Verdict.UNSURE, ratio, limit, reason)


def fails(verdict: Verdict, *, strict: bool, accepting: bool) -> bool:
    """Whether this verdict fails a run; a run that accepts new figures passes a WORSE."""
    if accepting and verdict is not Verdict.VOID:
        return False
    return verdict in (FAILING_WHEN_STRICT if strict else FAILING)
