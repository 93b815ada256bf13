"""The table in the terminal: 100 columns, also with the longest names of the documents."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from perfsuite.judging import void
from perfsuite.metrics import METRICS
from perfsuite.report.terminal import lines
from perfsuite.results import Result, Row
from perfsuite.verdict import Verdict
from perfsuite.workloads import Workload, load_catalogue, load_published, smoke_catalogue

WIDEST = 100


def longest(workloads: tuple[Workload, ...], count: int = 12) -> list[str]:
    """The longest ids."""
    return sorted((w.id for w in workloads), key=len)[-count:]


WIDE: dict[str, object] = {
    "value": 1234.5678, "low": 999.9, "high": 2345.6, "baseline": 1111.1111,
    "ratio": 111.111, "ratio_low": 99.9, "ratio_high": 222.2, "limit": 1.05,
    "processes": (1.0,) * 5, "samples": 5000, "ceiling": 1.19, "cached": True,
    "verdict": Verdict.FOREIGN, "note": "the interval 0.950..1.234 straddles the limit 1.050",
}  # fmt: skip


@pytest.mark.parametrize("scale", ["smoke", "full"])
def test_the_table_fits_in_100_columns(
    make_result: Callable[..., Result], make_row: Callable[..., Row], scale: str
) -> None:
    """Every metric with its widest figures, both tiers under their longest ids."""
    full = load_catalogue()
    static = [m.id for m in METRICS.values() if m.name.startswith("static")]
    tiers = {
        "measured": (
            longest(full if scale == "full" else smoke_catalogue(full)),
            [make_row(figure=f, **WIDE) for f in METRICS if f not in static],
        ),
        "static": (longest(full), [make_row(figure=f"{f}@prefill", **WIDE) for f in static]),
    }
    results = [
        make_result(workload=name, engine="torch_llama", tier=tier, rows=tuple(rows), samples={})
        for tier, (names, rows) in tiers.items()
        for name in names
    ]
    printed = list(lines(results, [], []))
    figures = [line for line in printed if line.startswith("  ") and line.endswith(" FOREIGN")]
    assert len(figures) == 12 * len(METRICS)
    assert [line for line in printed if len(line) > WIDEST] == []


def test_published_figures_fit_too(make_result: Callable[..., Result]) -> None:
    """The documents' own figures, worded as they stand beside a full-size workload."""
    folder = Path(__file__).parents[2] / "baselines/published"
    texts = [
        f"{p.metric} {p.value:g} {p.unit} on {p.hardware}, {p.date}"
        for found in load_published(folder).values()
        for p in found
    ]
    assert texts
    printed = list(lines([make_result(published=tuple(texts))], [], []))
    assert [line for line in printed if len(line) > WIDEST] == []


def test_the_table_reads_like_this(
    make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """A heading for each test, a line for each figure, notes and published figures below."""
    results = [
        make_result(workload="llm-x", disturbance="other processes used 40% of the processors"),
        make_result(
            workload="llm-y",
            tier="static",
            rows=(make_row(verdict=Verdict.UNSURE, note="straddles", cached=True),),
            published=("TTFT 9 ms on A100, 2024",),
        ),
        make_result(workload="test_own", engine="", rows=(void("one\ntwo\nthree"),)),
    ]
    printed = list(lines(results, [("llm-z | measured", "a.json")], ["saved 2 tests"]))
    assert printed == [
        "  metric   value   +-    n baseline ratio   +- limit ceil verdict",
        "llm-x on torch_llama",
        "      disturbed: other processes used 40% of the processors",
        "  TTFT     11 ms 1.8% 3x10    10 ms 1.100 2.7% 1.050  42% WORSE",
        "llm-y on torch_llama, compiled",
        "  TTFT     11 ms 1.8% 3x10    10 ms 1.100 2.7% 1.050 42%c UNSURE",
        "      straddles",
        "      published: TTFT 9 ms on A100, 2024",
        "test_own",
        "  contract                                                VOID",
        "      one",
        "      two",
        "GONE: llm-z | measured (a.json) has no test any more",
        "saved 2 tests",
        "1 WORSE, 1 VOID, 1 GONE, 1 UNSURE",
        "  WORSE: beyond the limit, and beyond what noise explains: mend it, or --perf-save",
        "  VOID: the contract was broken, so there is no figure: the message says how",
        "  GONE: a baseline that nothing measures any more",
        "  UNSURE: can not be told from noise; its note says what would settle it",
        "c: the working set is near the cache, so the memory ceiling is no bound",
    ]


def test_results_without_figures_are_headings(
    make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """A test that measured nothing does not shift the lines of the others."""
    results = [
        make_result(workload="a", rows=()),
        make_result(workload="b"),
        make_result(workload="c", rows=()),
    ]
    printed = list(lines(results, [], []))
    starts = [line[:6] for line in printed[1:]]
    assert starts == ["a on t", "b on t", "  TTFT", "c on t", "1 WORS", "  WORS"]
    assert len(list(lines([make_result(rows=())], [], []))) >= 2


def test_a_line_break_in_a_name_moves_nothing(
    make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """Each figure stays under its own test."""
    results = [
        make_result(workload="a", rows=(make_row(figure="call_time/per_call@one\ntwo"),)),
        make_result(workload="b", rows=(make_row(verdict=Verdict.SAME),)),
    ]
    printed = list(lines(results, [], []))
    assert printed[2].startswith("  one two time/call")
    assert printed[4].endswith("SAME")


def test_nothing_to_say_is_nothing() -> None:
    """No header over an empty table."""
    assert list(lines([], [], [])) == []
    assert list(lines([], [], ["a note"])) == ["a note"]


def test_a_waiver_stands_below_its_figure(
    make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """After the note; the verdict stays."""
    row = make_row(note="noisy", waiver="waived until 2026-12-31 by ana: known")
    printed = list(lines([make_result(rows=(row,))], [], []))
    assert printed[2].endswith(" WORSE")
    assert printed[3:5] == ["      noisy", "      waived until 2026-12-31 by ana: known"]


def test_a_count_of_zero_is_told_where_it_changed(
    make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """Ten kinds of collectives that do not occur are no news; one that is gone, or new, is."""
    def row(value: float, baseline: float | None, verdict: Verdict) -> Row:
        figure = "static_all_gather/count"
        return make_row(figure=figure, value=value, baseline=baseline, verdict=verdict)

    rows = (
        row(0.0, 0.0, Verdict.SAME),
        row(0.0, None, Verdict.NEW),
        row(0.0, 2.0, Verdict.BETTER),
        row(2.0, 0.0, Verdict.WORSE),
    )
    text = "\n".join(lines([make_result(rows=rows)], [], []))
    assert text.count("all-gathers") == 2
    assert "1 WORSE, 1 NEW, 1 BETTER, 1 SAME" in text
