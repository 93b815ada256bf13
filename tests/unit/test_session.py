"""How a result is written into a baseline file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from perfsuite.baselines import Baselines, Key, save
from perfsuite.results import Result, Row
from perfsuite.session import file_entry

TTFT = "time_to_first_token/prefill_until_first_token"
PEAK = "peak_memory/allocator"


def test_sessions_are_written_where_there_were_several(
    make_result: Callable[..., Result],
    make_row: Callable[..., Row],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And are found again beside the processes; a figure of one session has none."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rows = (
        make_row(processes=(0.01, 0.02, 0.03), sessions=(1, 2)),
        make_row(figure=PEAK, processes=(7.0, 8.0)),
    )
    entry = file_entry(make_result(rows=rows), "1a2b")
    assert entry["figures"] == {
        TTFT: {"unit": "s", "processes": [0.01, 0.02, 0.03], "sessions": [1, 2]},
        PEAK: {"unit": "bytes", "processes": [7, 8]},
    }
    save(tmp_path, "machine", "suite", {Key("test_a").text: entry}, "all")
    found = Baselines([tmp_path]).find("machine", "suite", Key("test_a"))
    assert found is not None
    assert found.sessions == {TTFT: [1, 2], PEAK: [2]}
    assert found.levels(PEAK) == [7.5]
