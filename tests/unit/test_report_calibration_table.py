"""What a calibration tells people: a table of 100 columns, and what it means."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from perfsuite.calibration import Finding
from perfsuite.metrics import METRICS
from perfsuite.report.calibration_table import lines
from perfsuite.statistics import Spread

TTFT = "time_to_first_token/prefill_until_first_token"
SPREAD = Spread(sessions=10, processes=5, common=0.01, own=0.01, freedom=20.0, process=0.015)


@pytest.fixture
def finding() -> Callable[..., Finding]:
    """A quiet figure; any field may be given."""

    def make(**changes: object) -> Finding:
        plain = Finding(
            "test_a | measured", TTFT, SPREAD, between=0.014, noise=1.043, detectable=1.061,
            limit=1.05, suggested=1.05, naive_alarms=0.01,
        )  # fmt: skip
        return replace(plain, **changes)  # type: ignore[arg-type]

    return make


def table(*findings: Finding, base: int = 1) -> list[str]:
    return list(lines(findings, Path("baselines/cpu-a.calibration.json"), 10, base))


def test_a_figure_is_a_line_under_its_test(finding: Callable[..., Finding]) -> None:
    """Spreads, noise, what is seen, both limits and the probe."""
    first, header, key, row, *_ = table(finding())
    assert first == "calibration: 10 sessions, written to baselines/cpu-a.calibration.json"
    words = "figure sessions processes noise sees limit suggested probe"
    assert header.split() == words.split()
    assert key == "test_a | measured"
    assert row.split() == ["TTFT", "1.4%", "1.5%", "4.3%", "6.1%", "5.0%", "5.0%"]


def test_figures_of_one_test_stand_together(finding: Callable[..., Finding]) -> None:
    """The key is told once; a named call comes before its title; a probe by its title."""
    probed = replace(SPREAD, probe="machine_pace/matrix_products@load")
    found = table(
        finding(),
        finding(figure="call_time/per_call@load", spread=probed),
        finding(key="test_b | measured"),
    )
    rows = found[2:7]
    assert [row.startswith("  ") for row in rows] == [False, True, True, False, True]
    assert rows[2].startswith("  load time/call ")
    assert rows[2].endswith("machine pace")
    assert rows[3] == "test_b | measured"


def test_a_line_has_no_more_than_100_columns(finding: Callable[..., Finding]) -> None:
    """With every title, the longest too, and numbers of any size."""
    probe = replace(SPREAD, probe="machine_pace/memory_copy", process=3.0)
    found = [
        finding(
            figure=figure, spread=probe, between=12.0, noise=math.inf, detectable=math.inf,
            suggested=math.inf, limit=3.0,
        )
        for figure in METRICS
    ]  # fmt: skip
    assert max(map(len, table(*found))) <= 100


def test_large_shares_are_whole_per_cents(finding: Callable[..., Finding]) -> None:
    """Noise without end is told as it is."""
    row = table(finding(noise=2.5, detectable=math.inf, suggested=1.9994))[3]
    assert row.split()[3:] == ["150%", "inf%", "5.0%", "99.9%"]


def test_the_words_say_what_is_promised(finding: Callable[..., Finding]) -> None:
    """One in a hundred runs for all figures; how often plain thresholds would alarm."""
    text = "\n".join(table(finding(naive_alarms=0.25), finding(naive_alarms=0.5), base=1))
    assert "at 1% a run for all figures together" in text
    assert "against a baseline of 1 session;" in text
    assert "at most 0.01 by these verdicts,\n0.75 by plain thresholds at the limits" in text
    assert "against a baseline of 10 sessions;" in "\n".join(table(finding(), base=10))


def test_without_two_sessions_nothing_is_told_as_found() -> None:
    """And that no file was written."""
    assert table() == ["calibration: nothing was measured in two sessions; no file was written"]
