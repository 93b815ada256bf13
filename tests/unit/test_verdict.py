"""Intervals against limits, and which verdicts fail a run."""

from __future__ import annotations

import math
import random

import pytest

from perfsuite.statistics import Interval, exact
from perfsuite.verdict import COMPARED, FAILING, Verdict, fails, judge


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.051, 1.20, Verdict.WORSE),
        (1.05, 1.20, Verdict.UNSURE),  # touching the limit is not beyond it
        (1.00, 1.051, Verdict.UNSURE),
        (0.50, 1.50, Verdict.UNSURE),
        (0.99, 1.05, Verdict.SAME),
        (0.90, 1.04, Verdict.SAME),
        (0.90, 0.953, Verdict.SAME),  # 1 / 1.05 is 0.9524
        (0.90, 0.952, Verdict.BETTER),
    ],
)
def test_the_whole_interval_decides(low: float, high: float, verdict: Verdict) -> None:
    """WORSE and BETTER need all of it beyond the limit, SAME all of it inside."""
    found = judge(Interval(low, (low + high) / 2, high), 1.05)
    assert found.verdict is verdict
    assert found.limit == 1.05


def test_an_unsure_verdict_says_why() -> None:
    """The interval and the limit that it straddles."""
    reason = judge(Interval(1.0, 1.05, 1.1), 1.05).reason
    assert reason == "the interval 1.000..1.100 straddles the limit 1.050"


def test_a_larger_ratio_is_never_judged_milder() -> None:
    """Moving an interval up goes from BETTER over SAME and UNSURE to WORSE, never back."""
    order = [Verdict.BETTER, Verdict.SAME, Verdict.UNSURE, Verdict.WORSE]
    source = random.Random(1)
    for _ in range(300):
        width, limit = source.uniform(0, 0.3), 1 + source.uniform(0, 0.2)
        centers = [0.5 + step / 100 for step in range(100)]
        ranks = [
            order.index(judge(Interval(c * (1 - width), c, c * (1 + width)), limit).verdict)
            for c in centers
        ]
        assert ranks == sorted(ranks)


def test_exact_figures_at_a_limit_of_nothing() -> None:
    """A count that stays is SAME, one more is WORSE, one less BETTER, from 0 to any WORSE."""
    verdicts = [judge(exact(r), 1.0).verdict for r in (1.0, 1001 / 1000, 999 / 1000, 0.0, math.inf)]
    assert verdicts == [
        Verdict.SAME, Verdict.WORSE, Verdict.BETTER, Verdict.BETTER, Verdict.WORSE,
    ]  # fmt: skip


def test_a_limit_without_end_accepts_everything() -> None:
    """An absolute limit as large as the baseline of a throughput."""
    assert judge(Interval(5.0, 9.0, 20.0), math.inf).verdict is Verdict.SAME


@pytest.mark.parametrize("verdict", list(Verdict))
def test_which_verdicts_fail(verdict: Verdict) -> None:
    """WORSE and VOID always; four more under strict; accepting passes all but VOID."""
    strict = {"WORSE", "VOID", "UNSURE", "NEW", "FOREIGN", "GONE"}
    assert fails(verdict, strict=False, accepting=False) is (verdict in {"WORSE", "VOID"})
    assert fails(verdict, strict=True, accepting=False) is (verdict in strict)
    for is_strict in (False, True):
        assert fails(verdict, strict=is_strict, accepting=True) is (verdict == "VOID")


def test_compared_is_what_had_a_baseline() -> None:
    """A run of only NEW, VOID or SHOWN figures has compared nothing."""
    assert set(COMPARED) == {"BETTER", "SAME", "WORSE", "UNSURE"}
    assert set(FAILING) == {"WORSE", "VOID"}
