"""Stored results in pandas."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import perfsuite
from perfsuite.errors import PerfError
from perfsuite.judging import void
from perfsuite.report.json_file import write
from perfsuite.results import Result, Row

pytest.importorskip("pandas", reason="results are loaded into pandas")

TTFT = "time_to_first_token/prefill_until_first_token"


def test_a_row_for_each_test_and_figure(
    make_result: Callable[..., Result], make_row: Callable[..., Row], tmp_path: Path
) -> None:
    """Identity, figure, part, statistics and all samples, from several files in order."""
    rows = (make_row(), make_row(figure=f"{TTFT}@warm", value=0.5))
    write(tmp_path / "a.json", [make_result(rows=rows)], [], tmp_path)
    write(tmp_path / "b.json", [make_result(rows=(void("no"),), samples={})], [], tmp_path)
    frame = perfsuite.load_results(tmp_path / "a.json", str(tmp_path / "b.json"))
    assert list(frame["metric"]) == [TTFT, TTFT, "contract"]
    assert list(frame["part"]) == ["", "warm", ""]
    assert list(frame["verdict"]) == ["WORSE", "WORSE", "VOID"]
    assert frame["value"].iloc[1] == 0.5
    assert frame["value"].isna().tolist() == [False, False, True]
    assert frame["values"].iloc[0] == [[0.0109, 0.0109], [0.011, 0.011], [0.0111, 0.0111]]
    assert set(frame["machine"]) == {"cpu-model-2x-x86_64"}
    assert {"workload", "engine", "tier", "scale", "suite", "nodeid", "date", "toolchain",
            "ratio", "ratio_low", "ratio_high", "limit", "baseline", "low", "high", "samples",
            "disturbance", "seconds"} <= set(frame.columns)  # fmt: skip


def test_no_files_are_an_empty_frame() -> None:
    """Nothing loaded, nothing in it."""
    assert len(perfsuite.load_results()) == 0


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", '"x"', '{"perfsuite_format": "new"}', '{"perfsuite_format": null}',
        '{"perfsuite_format": 1}', '{"perfsuite_format": 1, "results": [{}]}',
        '{"perfsuite_format": 1, "results": [{"rows": [{}]}]}',
    ],
)  # fmt: skip
def test_another_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    """One error of ours, whatever is wrong with it."""
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(PerfError, match="not a file that --perf-json wrote") as refused:
        perfsuite.load_results(path)
    assert str(path) in str(refused.value)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    """As any other that cannot be read."""
    with pytest.raises(PerfError, match=r"none\.json"):
        perfsuite.load_results(tmp_path / "none.json")


def test_a_newer_format_is_not_guessed_at(tmp_path: Path) -> None:
    """It is named with the one that is read here."""
    path = tmp_path / "newer.json"
    path.write_text(json.dumps({"perfsuite_format": 2, "results": []}))
    with pytest.raises(PerfError, match=r"format 2 is newer .*\(1\)"):
        perfsuite.load_results(path)
