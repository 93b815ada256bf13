"""When the gate did what it should at a known share, and what is said when it did not."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from perfsuite import self_test
from perfsuite.results import Result, Row
from perfsuite.verdict import Verdict

TPOT = "time_per_output_token/excluding_first_token"
PROMPT = "prompt_throughput/batch"
MEMORY = "peak_memory/allocator"
PACE = "machine_pace/matrix_products"
SHARE = 0.1
MakeRow = Callable[..., Row]


def _lines(rows: Sequence[Row], share: float = SHARE) -> list[str]:
    message = self_test.failure(rows, share)
    assert message is not None
    lines = message.splitlines()
    assert len(lines) <= 6
    assert all(0 < len(line) <= 200 + len("SELF-TEST: ") for line in lines)
    return lines


def test_all_times_worse_is_what_a_share_should_show(make_row: MakeRow) -> None:
    """Memory, new or the same, and the machine's own pace have no say."""
    rows = (
        make_row(),
        make_row(figure=PROMPT),
        make_row(figure=MEMORY, verdict=Verdict.SAME),
        make_row(figure=f"{MEMORY}@part", verdict=Verdict.NEW),
        make_row(figure=PACE, verdict=Verdict.SHOWN, limit=None),
    )
    assert self_test.misses(rows, SHARE) == []
    assert self_test.failure(rows, SHARE) is None


@pytest.mark.parametrize("verdict", [Verdict.SAME, Verdict.UNSURE, Verdict.BETTER])
def test_one_figure_that_is_not_worse_fails(make_row: MakeRow, verdict: Verdict) -> None:
    """With its ratio, its limit, its verdict and what can be done."""
    rows = (make_row(), make_row(figure=f"{TPOT}@second", verdict=verdict, note="the note"))
    assert _lines(rows) == [
        f"SELF-TEST: TPOT (second) is {verdict} though slowed by 10%:"
        " the gate can not see 10% here",
        "ratio 1.100 [1.070, 1.130], limit 1.050 (above 1 is worse)",
        "the note",
        "remedy: more measuring (--perf-budget), a known machine (--perf-calibrate), a lower"
        " --perf-limit, or a larger share",
    ]


def test_all_figures_that_were_not_seen_are_named(make_row: MakeRow) -> None:
    """The first with its ratio, the others with their verdicts; notes are cut."""
    rows = (
        make_row(verdict=Verdict.UNSURE, note="x" * 500),
        make_row(figure=TPOT, verdict=Verdict.SAME, note="y " * 500),
    )
    assert _lines(rows)[0].startswith("SELF-TEST: TTFT is UNSURE")
    assert _lines(rows)[-1] == "also TPOT is SAME"


def test_the_smallest_change_that_can_be_seen_is_said_where_it_is_known(make_row: MakeRow) -> None:
    """A row that tells it is quoted."""
    row = make_row(verdict=Verdict.UNSURE, detectable=1.18)
    assert "the smallest change that it can see here is 18%" in _lines([row])


def test_a_share_within_the_limit_is_a_contradiction_whatever_the_verdict(
    make_row: MakeRow,
) -> None:
    """A gate that accepts 5 % must pass 5 %; both remedies are named by numbers."""
    for verdict in (Verdict.SAME, Verdict.UNSURE, Verdict.WORSE):
        rows = (make_row(figure=TPOT, limit=1.01), make_row(figure=PROMPT, verdict=verdict))
        assert _lines(rows, 0.05)[:2] == [
            "SELF-TEST: prompt may lose 5% (limit 1.050): a slowing by 5% is none that the gate"
            " should see",
            "remedy: a lower limit, like --perf-limit=throughput:2%, or a larger share, like"
            " --perf-self-test=10%",
        ]
    assert self_test.failure([make_row()], 0.0501) is None


def test_no_larger_share_is_named_than_the_option_takes(make_row: MakeRow) -> None:
    """A limit of 500 % leaves the lower limit as a remedy."""
    assert (
        _lines([make_row(limit=6.0)], 0.5)[1] == "remedy: a lower limit, like --perf-limit=time:20%"
    )


def test_at_no_share_whatever_is_not_worse_passes(make_row: MakeRow) -> None:
    """UNSURE is no alarm."""
    verdicts = (Verdict.SAME, Verdict.UNSURE, Verdict.BETTER)
    rows = [make_row(verdict=verdict) for verdict in verdicts]
    assert self_test.failure(rows, 0.0) is None


def test_at_no_share_a_worse_figure_is_a_false_alarm(make_row: MakeRow) -> None:
    """Of memory too; the limit is no contradiction to 0 %."""
    rows = (make_row(verdict=Verdict.SAME), make_row(figure=MEMORY))
    lines = _lines(rows, 0.0)
    assert lines[0] == "SELF-TEST: peak memory is WORSE though nothing was slowed"
    assert "--perf-calibrate" in lines[-1]


@pytest.mark.parametrize("share", [0.0, SHARE])
@pytest.mark.parametrize("verdict", [Verdict.NEW, Verdict.FOREIGN])
def test_without_a_baseline_there_is_nothing_to_test(
    make_row: MakeRow, share: float, verdict: Verdict
) -> None:
    """At no share either: a green test was measured against something."""
    rows = (make_row(verdict=Verdict.WORSE if share else Verdict.SAME),
            make_row(figure=TPOT, verdict=verdict, ratio=None, limit=None))  # fmt: skip
    assert _lines(rows, share)[0] == f"SELF-TEST: TPOT is {verdict}: no baseline to test against"


def test_a_figure_that_was_not_measured_was_not_seen_either(make_row: MakeRow) -> None:
    """GONE has a baseline and did not turn WORSE."""
    gone = Row(TPOT, Verdict.GONE, note="this run did not measure it")
    assert _lines((make_row(), gone))[0] == "SELF-TEST: TPOT is GONE: this run did not measure it"
    assert self_test.failure((make_row(verdict=Verdict.SAME), gone), 0.0) is None


@pytest.mark.parametrize("share", [0.0, SHARE])
def test_a_test_without_a_time_fails(make_row: MakeRow, share: float) -> None:
    """Nothing was slowed, so that nothing can be shown."""
    rows = (make_row(figure=MEMORY, verdict=Verdict.SAME),)
    assert _lines(rows, share) == [
        "SELF-TEST: no time or throughput was measured: nothing to slow"
    ]  # fmt: skip
    assert self_test.misses((), share)


@pytest.mark.parametrize("share", [0.0, SHARE])
def test_a_broken_contract_fails_at_every_share(make_row: MakeRow, share: float) -> None:
    """The row is the one that the gate tells of."""
    void = Row("contract", Verdict.VOID, note="planted")
    assert self_test.misses((make_row(), void), share) == [void]


def test_the_summary_counts_tests_and_the_verdicts_of_those_that_failed(make_row: MakeRow) -> None:
    """Each test once, by its first figure that was not seen."""
    red, unsure = (make_row(),), (make_row(verdict=Verdict.UNSURE), make_row(verdict=Verdict.SAME))
    within = (make_row(limit=1.2),)
    assert self_test.summary([red, red], SHARE) == (
        "self-test: 10% slower: 2 of 2 tests turned red as they should"
    )
    assert self_test.summary([red, unsure, unsure, within], SHARE) == (
        "self-test: 10% slower: 1 of 4 tests turned red as they should;"
        " 3 did not (UNSURE 2, limit 1)"
    )


def test_the_summary_at_no_share_counts_what_is_unsure(make_row: MakeRow) -> None:
    """An UNSURE figure passes, and is told."""
    same, unsure = (make_row(verdict=Verdict.SAME),), (make_row(verdict=Verdict.UNSURE),)
    assert self_test.summary([same, unsure, (make_row(),)], 0.0) == (
        "self-test: 0% slower: 2 of 3 tests stayed green as they should; 1 did not (WORSE 1);"
        " 1 with a figure that is UNSURE"
    )


def test_the_header_says_what_is_done_on_purpose() -> None:
    """Before anything runs, so that nobody takes the figures for the engine's."""
    assert "slowed by 2.5% on purpose" in self_test.header(0.025)
    assert "slowed by 0% in the same wrapping" in self_test.header(0.0)


def test_a_result_carries_that_it_is_of_a_self_test(make_result: Callable[..., Result]) -> None:
    """What the measuring process said of its spinning wins over what was asked for."""
    asked = self_test.marked(make_result(facts={"batch": 1}), SHARE)
    assert asked.facts == {"batch": 1, "self_test": {"share": SHARE}}
    really = {"share": SHARE, "spun": 0.101}
    spun = self_test.marked(make_result(facts={"self_test": really}), SHARE)
    assert spun.facts == {"self_test": really}
