"""Comparisons against limits, and which verdicts fail a run."""

from __future__ import annotations

import math
import random

import pytest

from perfsuite.statistics import ALARMS, UNKNOWN_SESSION, Comparison, Interval, compare_pairs, exact
from perfsuite.verdict import COMPARED, FAILING, Judgement, Verdict, fails, judge, judge_exact


def found(low: float, estimate: float, high: float, noise: float = 1.04) -> Comparison:
    """A comparison whose noise reaches that ratio."""
    return Comparison(Interval(low, estimate, high), math.log(noise), spread=0.02)


def unknown(low: float, estimate: float, high: float) -> Comparison:
    """One whose sessions' spread nobody knows; its processes have no noise."""
    return Comparison(Interval(low, estimate, high), 0.0, spread=0.01, sessions_known=False)


@pytest.mark.parametrize(
    ("low", "estimate", "high", "verdict"),
    [
        (1.03, 1.051, 1.20, Verdict.WORSE),  # the estimate decides, the interval is for people
        (1.03, 1.050, 1.20, Verdict.UNSURE),  # touching the limit is not beyond it
        (1.00, 1.04, 1.051, Verdict.UNSURE),
        (0.50, 1.00, 1.50, Verdict.UNSURE),
        (0.99, 1.02, 1.05, Verdict.SAME),
        (0.90, 1.00, 1.04, Verdict.SAME),
        (0.50, 0.90, 1.04, Verdict.SAME),  # better, though not surely by the limit
        (0.90, 0.93, 0.953, Verdict.SAME),  # 1 / 1.05 is 0.9524
        (0.90, 0.93, 0.952, Verdict.BETTER),
    ],
)
def test_beyond_the_limit_is_worse_inside_is_same(
    low: float, estimate: float, high: float, verdict: Verdict
) -> None:
    """WORSE by the estimate where noise is smaller than the limit; the others by the interval."""
    judgement = judge(found(low, estimate, high), 1.05)
    assert judgement.verdict is verdict
    assert (judgement.limit, judgement.alarm) == (1.05, 1.05)
    assert judgement.may_settle is (verdict is Verdict.UNSURE)


def test_what_noise_reaches_is_not_worse() -> None:
    """Beyond a limit of 5 %, and noise reaches 20 %: more processes may settle it."""
    inside = judge(found(1.10, 1.19, 1.30, noise=1.20), 1.05)
    assert inside.verdict is Verdict.UNSURE
    assert inside.may_settle
    assert inside.alarm == pytest.approx(1.20)
    assert judge(found(1.10, 1.21, 1.30, noise=1.20), 1.05).verdict is Verdict.WORSE


def test_an_unsure_verdict_says_what_it_would_have_seen() -> None:
    """What noise reaches, and that a quarter of noise's error more is seen in nine of ten runs."""
    judgement = judge(found(1.0, 1.05, 1.1, noise=1.08), 1.05)
    assert judgement.detectable == pytest.approx(1.08 * math.exp(1.2816 * 0.02), rel=1e-5)
    assert judgement.reason == "noise reaches 1.080; a change to 1.108 or more would have been seen"


def test_an_excuse_is_taken_off_before_a_loss_counts() -> None:
    """Half of the machine was others': a loss below twice the limit may be theirs."""
    for estimate, verdict in ((2.09, Verdict.UNSURE), (2.11, Verdict.WORSE)):
        judgement = judge(found(1.9, estimate, 2.3), 1.05, excuse=2.0)
        assert judgement.verdict is verdict
        assert judgement.alarm == pytest.approx(2.10)
        assert judgement.detectable == pytest.approx(2.10 * math.exp(1.2816 * 0.02), rel=1e-5)


def test_an_excuse_makes_nothing_better_or_same() -> None:
    """It only takes WORSE away."""
    for interval in ((0.8, 0.9, 0.94), (0.9, 1.0, 1.04), (0.9, 1.0, 1.1)):
        plain, excused = (judge(found(*interval), 1.05, excuse).verdict for excuse in (1.0, 3.0))
        assert plain is excused


@pytest.mark.parametrize(
    ("low", "estimate", "high", "verdict", "may_settle"),
    [
        (2.00, 2.11, 2.20, Verdict.WORSE, False),  # beyond twice the limit
        (1.06, 1.50, 2.05, Verdict.UNSURE, False),  # surely beyond the limit
        (1.04, 1.50, 2.05, Verdict.UNSURE, False),
        (0.99, 1.00, 1.04, Verdict.SAME, False),
        (0.90, 0.92, 0.95, Verdict.BETTER, False),
    ],
)
def test_without_known_sessions_only_a_large_factor_is_worse(
    low: float, estimate: float, high: float, verdict: Verdict, may_settle: bool
) -> None:
    """What lies between is UNSURE, and no more processes of this session settle it."""
    judgement = judge(unknown(low, estimate, high), 1.05)
    assert judgement.verdict is verdict
    assert judgement.may_settle is may_settle
    assert judgement.alarm == pytest.approx(1.05 * UNKNOWN_SESSION)


def test_without_known_sessions_the_reason_names_the_remedies() -> None:
    """How far another session may go; where the interval decides, that it straddles the limit."""
    assert judge(unknown(1.06, 1.5, 2.0), 1.05).reason == (
        "beyond the limit here, but another session may explain up to 2.10:"
        " --perf-calibrate, three saves or --perf-against settle it"
    )
    straddles = "the interval 1.000..1.100 straddles the limit 1.050"
    assert judge(unknown(1.0, 1.05, 1.1), 1.05).reason == straddles


def test_one_pair_is_unsure_whatever_it_says() -> None:
    """Its noise is not known; no number without end is told."""
    judgement = judge(compare_pairs([math.log(9.0)], ALARMS), 1.05)
    assert judgement.verdict is Verdict.UNSURE
    assert judgement.may_settle
    assert judgement.reason == (
        "too few processes: the noise between them may explain any loss (--perf-processes)"
    )


def test_a_decided_verdict_has_no_reason() -> None:
    """Its numbers are in the line of the ratio."""
    intervals = ((1.1, 1.2, 1.3), (0.9, 1.0, 1.04), (0.8, 0.9, 0.94))
    assert {judge(found(*interval), 1.05).reason for interval in intervals} == {""}


def test_a_larger_ratio_is_never_judged_milder() -> None:
    """Moving an interval up goes from BETTER over SAME and UNSURE to WORSE, never back."""
    order = [Verdict.BETTER, Verdict.SAME, Verdict.UNSURE, Verdict.WORSE]
    source = random.Random(1)
    for _ in range(300):
        width, limit = source.uniform(0, 0.3), 1 + source.uniform(0, 0.2)
        noise, known = 1 + source.uniform(0, 0.3), source.random() < 0.5
        ranks = []
        for center in (0.5 + step / 50 for step in range(150)):
            interval = Interval(center * (1 - width), center, center * (1 + width))
            comparison = Comparison(interval, math.log(noise), 0.01, sessions_known=known)
            ranks.append(order.index(judge(comparison, limit).verdict))
        assert ranks == sorted(ranks)
        assert ranks[-1] == 3


def test_exact_figures_at_a_limit_of_nothing() -> None:
    """A count that stays is SAME, one more is WORSE, one less BETTER, from 0 to any WORSE."""
    ratios = (1.0, 1001 / 1000, 999 / 1000, 0.0, math.inf)
    assert [judge_exact(exact(ratio), 1.0).verdict for ratio in ratios] == [
        Verdict.SAME, Verdict.WORSE, Verdict.BETTER, Verdict.BETTER, Verdict.WORSE,
    ]  # fmt: skip


def test_exact_figures_need_no_second_look() -> None:
    """The alarm is the limit, what is seen is whatever passes it."""
    for ratio in (0.5, 1.0, 1.02):
        judgement = judge_exact(exact(ratio), 1.01)
        assert (judgement.limit, judgement.alarm, judgement.detectable) == (1.01, 1.01, 1.01)
        assert not judgement.may_settle


def test_a_limit_without_end_accepts_everything() -> None:
    """An absolute limit as large as the baseline of a throughput."""
    assert judge(found(5.0, 9.0, 20.0), math.inf).verdict is Verdict.SAME
    assert judge(unknown(5.0, 9.0, 20.0), math.inf).verdict is Verdict.SAME
    assert judge_exact(exact(9.0), math.inf).verdict is Verdict.SAME


def test_a_judgement_without_a_baseline_has_no_numbers() -> None:
    """What is NEW or SHOWN."""
    new = Judgement(Verdict.NEW)
    assert (new.ratio, new.limit, new.alarm, new.detectable, new.may_settle) == (None,) * 4 + (
        False,
    )


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
