"""What the summary advises: the worst first, few lines, nothing where there is nothing to say."""

from __future__ import annotations

from collections.abc import Callable

from perfsuite.report.advice import lines
from perfsuite.results import Result, Row
from perfsuite.verdict import Verdict


def test_a_run_without_news_is_silent(
    make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """Near its best, not better, no waiver."""
    row = make_row(verdict=Verdict.SAME, best=0.011, best_date="2026-01-01")
    assert list(lines([make_result(rows=(row,)), make_result()], accepted=False)) == []


def test_what_drifted_is_told_from_the_worst_on(
    make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """Five of seven by name, with the best, its day and its commit."""
    rows = [
        make_row(drift=1 + n / 10, best=0.01, best_date="2026-05-01T12:00:00", best_commit="1a2b")
        for n in (1, 7, 3, 5, 2, 6, 4)
    ]
    told = list(lines([make_result(rows=tuple(rows))], accepted=True))
    assert told[0] == (
        "drifted: test_a torch_llama TTFT is 1.70 times its best (10 ms, 2026-05-01, commit 1a2b):"
        " small losses that added up, or a baseline that should be restored"
    )
    assert [line.partition(" is ")[2][:4] for line in told[:5]] == [
        "1.70", "1.60", "1.50", "1.40", "1.30",
    ]  # fmt: skip
    assert told[5:] == ["drifted: and 2 more"]


def test_without_git_no_commit_is_told(
    make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """The day is enough."""
    row = make_row(drift=1.2, best=0.01, best_date="2026-05-01")
    (told,) = lines([make_result(rows=(row,))], accepted=True)
    assert "(10 ms, 2026-05-01):" in told


def test_what_got_better_asks_to_be_saved(
    make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """Unless it is being saved."""
    better = make_row(verdict=Verdict.BETTER)
    part = make_row(verdict=Verdict.BETTER, figure=f"{better.figure}@part")
    one, two = make_result(rows=(better,)), make_result(rows=(part, make_row()), engine="")
    assert list(lines([one], accepted=False)) == [
        "1 figure is BETTER beyond its limit: accept it with --perf-save, or a later loss of it"
        " will not be seen:",
        "  test_a torch_llama TTFT",
    ]
    told = list(lines([one, two], accepted=False))
    assert told[0] == (
        "2 figures are BETTER beyond their limits: accept them with --perf-save, or a later loss"
        " of them will not be seen:"
    )
    assert told[2] == "  test_a TTFT (part)"
    assert list(lines([one] * 9, accepted=False))[-2:] == ["  test_a torch_llama TTFT",
                                                          "  and 4 more"]  # fmt: skip
    assert list(lines([one, two], accepted=True)) == []


def test_a_waiver_is_over_when_no_test_needs_it(make_result: Callable[..., Result]) -> None:
    """One that still does is enough to keep it."""
    results = [
        make_result(waivers={"the waiver of a": False, "the waiver of b": False}),
        make_result(waivers={"the waiver of a": True}),
    ]
    assert list(lines(results, accepted=True)) == [
        "the waiver of b is no longer needed: all it covers here is SAME or BETTER; remove it"
    ]
