"""The table for a job summary: nothing in a name is markup, and it fits."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from perfsuite.report import markdown
from perfsuite.report.markdown import render, write
from perfsuite.report.table import HEADER
from perfsuite.results import Result, Row
from perfsuite.verdict import Verdict


def table(text: str) -> list[list[str]]:
    """The cells of each row, entities read back, as GitHub's renderer splits them."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    cells = [re.split(r"(?<!\\)\|", row)[1:-1] for row in rows]
    return [[html.unescape(cell.strip()) for cell in row] for row in cells]


def test_a_report_is_a_table_of_figures(make_result: Callable[..., Result]) -> None:
    """Counts first, then a row for each figure, then what is gone."""
    text = render([make_result()], [("llm-z | measured", "a.json")])
    assert text.startswith("## perf\n\n1 WORSE, 1 GONE\n")
    rows = table(text)
    assert rows[0] == ["test", *HEADER]
    assert rows[2] == [
        "test_a torch_llama measured", "TTFT", "11 ms", "1.8%", "3x10", "10 ms", "1.100", "2.7%",
        "1.050", "42%", "WORSE",
    ]  # fmt: skip
    assert len(rows) == 3
    assert text.endswith("\n\n- GONE: llm-z &#124; measured (a.json)\n")


@pytest.mark.parametrize(
    "name",
    [
        "test[a|b]", "test[a\\|b]", "<script>alert(1)</script>", "<!--", "a&lt;b", "**bold** *it*",
        "[text](http://example.org)", "![i](http://example.org)", "\\", "a & b",
    ],
)  # fmt: skip
def test_a_name_is_only_text(make_result: Callable[..., Result], name: str) -> None:
    """It is shown as it is, in one cell, whatever characters it has."""
    text = render([make_result(workload=name, engine="", tier="")], [(name, name)])
    rows = table(text)
    assert [len(row) for row in rows] == [11, 11, 11]
    assert rows[2][0] == name
    for markup in ("<", "[", "*", "\\"):
        assert markup not in text


def test_line_breaks_and_backticks_become_plain(make_result: Callable[..., Result]) -> None:
    """Neither can be shown inside a cell."""
    text = render([make_result(workload="a\nb\r\nc `d`", engine="", tier="")], [])
    assert table(text)[2][0] == "a b  c 'd'"
    assert len(table(text)) == 3


def test_an_empty_run_says_so() -> None:
    """No table without figures."""
    assert "nothing was measured" in render([], [])
    assert table(render([], [])) == []


def test_reports_are_appended(make_result: Callable[..., Result], tmp_path: Path) -> None:
    """What other steps wrote stays; folders are made."""
    path = tmp_path / "deep/summary.md"
    write(path, [make_result()], [], tmp_path)
    write(path, [make_result(workload="second")], [], tmp_path)
    text = path.read_text()
    assert text.count("## perf") == 2
    assert "second" in text


def test_a_report_too_large_keeps_what_failed_and_all_counts(
    make_result: Callable[..., Result],
    make_row: Callable[..., Row],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """GitHub drops a summary above its limit altogether."""
    monkeypatch.setattr(markdown, "_LARGEST_BYTES", 3000)
    fine = (make_row(verdict=Verdict.SAME),)
    results = [make_result(workload=f"fine_{i}", rows=fine) for i in range(50)]
    results += [make_result(workload=f"slow_{i}") for i in range(3)]
    write(tmp_path / "a.md", results, [], tmp_path)
    text = (tmp_path / "a.md").read_text()
    assert "3 WORSE, 50 SAME" in text
    assert "3 of 3 failing tests" in text
    assert "fine_" not in text
    assert all(f"slow_{i}" in text for i in range(3))


@pytest.mark.parametrize("gone", [0, 1000])
def test_even_if_everything_failed_it_fits(
    make_result: Callable[..., Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    gone: int,
) -> None:
    """As many as there is room for; the counts are of all."""
    monkeypatch.setattr(markdown, "_LARGEST_BYTES", 6000)
    results = [make_result(workload=f"slow_{i}") for i in range(100)]
    path = tmp_path / "a.md"
    write(path, results, [(f"key {i}", "file") for i in range(gone)], tmp_path)
    text = path.read_text()
    assert len(text.encode()) <= 6000
    assert "100 WORSE" in text
    assert (f"{gone} GONE" in text) is bool(gone)
    assert "of 100 failing tests" in text
    assert "slow_0" in text


def test_a_waiver_stands_beside_its_verdict(
    make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """In the same cell, and no markup either."""
    row = make_row(waiver="waived until 2026-12-31 by ana: *a|b*")
    assert table(render([make_result(rows=(row,))], []))[2][-1] == (
        "WORSE, waived until 2026-12-31 by ana: *a|b*"
    )
