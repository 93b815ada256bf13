"""The cells of a figure and the counts of a run."""

from __future__ import annotations

import math
from collections.abc import Callable

from perfsuite.judging import void
from perfsuite.report.table import HEADER, cells, counts
from perfsuite.results import Result, Row
from perfsuite.verdict import Verdict


def test_a_compared_time(make_row: Callable[..., Row]) -> None:
    """Value and ratio with what they may be off by, processes x samples, limit and ceiling."""
    assert dict(zip(HEADER[:3], cells(make_row())[:3], strict=True)) == {
        "metric": "TTFT", "value": "11 ms", "+-": "1.8%",
    }  # fmt: skip
    assert cells(make_row())[3:] == (
        "3x10", "10 ms", "1.100", "2.7%", "1.050", "42%", "WORSE",
    )  # fmt: skip


def test_an_exact_figure_has_no_width(make_row: Callable[..., Row]) -> None:
    """Neither samples nor a ceiling; its part stands before its title."""
    row = make_row(
        figure="static_traffic/operands_and_results@decode", value=2e9, low=2e9, high=2e9,
        baseline=1e9, ratio=2.0, ratio_low=2.0, ratio_high=2.0, limit=1.0, ceiling=None,
    )  # fmt: skip
    assert cells(row) == (
        "decode traffic", "2 GB", "", "", "1 GB", "2.000", "", "1.000", "", "WORSE",
    )  # fmt: skip


def test_a_new_figure_has_nothing_to_compare(make_row: Callable[..., Row]) -> None:
    """Value and verdict alone."""
    row = make_row(
        verdict=Verdict.NEW, baseline=None, ratio=None, ratio_low=None, ratio_high=None, limit=None
    )
    assert cells(row)[4:] == ("", "", "", "", "42%", "NEW")


def test_a_void_figure_has_no_value() -> None:
    """Its name and its verdict."""
    assert cells(void("no tokens")) == ("contract", *[""] * 8, "VOID")


def test_extremes_have_cells_too(make_row: Callable[..., Row]) -> None:
    """From nothing to something, from something to nothing, a limit without end."""
    infinite = make_row(ratio=math.inf, ratio_low=math.inf, ratio_high=math.inf)
    assert cells(infinite)[5:7] == ("inf", "")
    nothing = make_row(
        figure="static_operators/dispatched", value=0.0, low=0.0, high=0.0,
        ratio=0.0, ratio_low=0.0, ratio_high=0.0,
    )  # fmt: skip
    assert cells(nothing)[1:7] == ("0 calls", "", "", "0 calls", "0.000", "")
    assert cells(make_row(limit=math.inf))[7] == "inf"


def test_a_ceiling_that_is_no_bound_is_marked(make_row: Callable[..., Row]) -> None:
    """A `c` where the working set is near the cache."""
    assert cells(make_row(cached=True, ceiling=1.3))[8] == "130%c"


def test_a_name_stays_on_its_line(make_row: Callable[..., Row]) -> None:
    """Line breaks and runs of blanks in the name of a part are single blanks."""
    assert cells(make_row(figure="call_time/per_call@a\n  b\t"))[0] == "a b time/call"


def test_counts_are_worst_first(
    make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """Only what occurred, GONE included."""
    verdicts = [Verdict.SAME, Verdict.NEW, Verdict.WORSE, Verdict.SAME, Verdict.UNSURE]
    result = make_result(rows=tuple(make_row(verdict=v) for v in verdicts))
    assert counts([result, result], 3) == "2 WORSE, 3 GONE, 2 UNSURE, 2 NEW, 4 SAME"
    assert counts([], 0) == ""


def test_waived_losses_are_counted_beside_all(
    make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """They stay losses."""
    rows = (make_row(waiver="waived"), make_row(), make_row(verdict=Verdict.SAME))
    assert counts([make_result(rows=rows)], 0) == "2 WORSE (1 waived), 1 SAME"
