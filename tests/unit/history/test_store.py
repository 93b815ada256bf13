"""One run as one file: what is in it, what its name is, and files that are not whole."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow", reason="a history is Parquet files")
pytest.importorskip("fsspec", reason="a history is where fsspec finds it")
pytest.importorskip("pandas", reason="a history is read into pandas")

import pyarrow as pa
import pyarrow.parquet as pq

from perfsuite import load_history
from perfsuite.errors import PerfError
from perfsuite.history import store
from perfsuite.history.place import Place
from perfsuite.history.revision import Revision
from perfsuite.history.store import Run, Unreadable
from perfsuite.judging import void
from perfsuite.results import Result, Row
from perfsuite.verdict import Verdict

TTFT = "time_to_first_token/prefill_until_first_token"
NOW = datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=UTC)


def test_every_column_of_a_result(
    place: Place, make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """What identifies it, its figure, its verdict, and the state of the code."""
    shown = make_row(figure=f"{TTFT}@warm", verdict=Verdict.SHOWN, low=None, ratio=math.inf)
    result = make_result(rows=(make_row(), shown), config={"b": 2, "a": [1]}, disturbance="busy")
    revision = Revision("abc123", NOW, "topic/x")
    run_id = store.append(place, store.of_results([result], revision))

    first, second = load_history(place.text).to_dict("records")

    assert first["run"] == run_id
    assert (first["commit"], first["commit_time"], first["branch"]) == ("abc123", NOW, "topic/x")
    for name in ("machine", "suite", "workload", "engine", "scale", "tier", "toolchain"):
        assert first[name] == getattr(result, name), name
    assert (first["metric"], first["part"], first["unit"]) == (TTFT, "", "s")
    assert (first["value"], first["low"], first["high"]) == (0.011, 0.0108, 0.0112)
    assert list(first["processes"]) == [0.0109, 0.011, 0.0111]
    assert (first["samples"], first["verdict"], first["ratio"]) == (30, "WORSE", 1.1)
    assert (first["baseline"], first["ceiling"], first["void"]) == (0.010, 0.42, False)
    assert json.loads(first["config"]) == {"a": [1], "b": 2}
    assert (first["disturbance"], first["test"]) == ("busy", result.nodeid)
    assert first["source"] == "perfsuite"
    assert (second["part"], second["verdict"], second["ratio"]) == ("warm", "SHOWN", math.inf)
    assert math.isnan(second["low"])


def test_a_broken_contract_is_recorded_with_all_its_rows(
    place: Place, make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """VOID has no value; the other figures of the same test are marked as of no use."""
    broken = make_result(rows=(make_row(), void("wrong tokens")))
    store.append(place, store.of_results([broken], Revision()))

    frame = load_history(place.text)

    assert list(frame["metric"]) == [TTFT, "contract"]
    assert list(frame["verdict"]) == ["WORSE", "VOID"]
    assert list(frame["void"]) == [True, True]
    assert frame["value"].isna().tolist() == [False, True]


def test_names_sort_by_time_and_are_never_equal(make_run: Callable[..., Run]) -> None:
    """Also of two runs of one commit at one moment; odd commits make no odd names."""
    odd = Revision("0AB/../é+changes", None, "")
    runs = [make_run(hour, revision=odd) for hour in (3, 1, 2, 1)]
    names = [run.file_name for run in runs]
    assert len(set(names)) == 4
    assert [name[:22] for name in sorted(names)] == sorted(name[:22] for name in names)
    assert all(name[22:].startswith("-0abchanges-") for name in names), names
    assert make_run(0, revision=Revision()).id[22:].startswith("-none-")


def test_a_run_without_rows_is_one(place: Place) -> None:
    """Nothing is in it, and it can be read."""
    store.append(place, Run([], Revision()))
    assert len(load_history(place.text)) == 0


def test_any_text_can_be_stored(place: Place, make_run: Callable[..., Run]) -> None:
    """Markup, quotes, newlines, right-to-left marks as they are; no bytes, no error."""
    odd = "<b>\"'\n\u202e\x00\U0001f600é"
    store.append(place, make_run(1, workload=odd, engine="\ud83d half", config="\udcff"))
    (row,) = load_history(place.text, workload=odd).to_dict("records")
    assert (row["workload"], row["engine"], row["config"]) == (odd, "\\ud83d half", "\\udcff")


def test_every_truncation_is_damage(make_run: Callable[..., Run]) -> None:
    """No half of a file is read as a whole one, wherever it ends."""
    data = store.encoded(make_run(0, *map(float, range(300))))
    for end in [0, 1, 4, 8, *range(100, len(data), 97), len(data) - 1]:
        with pytest.raises(Unreadable, match="damaged"):
            store.decoded(data[:end])
    assert store.decoded(data).num_rows == 300


def test_a_changed_byte_changes_no_figure(make_run: Callable[..., Run]) -> None:
    """Pages have checksums: a value that is not what was written is never returned."""
    data = store.encoded(make_run(0, *(1 / n for n in range(1, 300))))
    values = store.decoded(data)["value"]
    metadata = pq.read_metadata(io.BytesIO(data)).row_group(0)
    (column,) = (c for c in map(metadata.column, range(metadata.num_columns))
                 if c.path_in_schema == "value")  # fmt: skip
    start = column.dictionary_page_offset or column.data_page_offset
    damaged = 0
    for at in range(start, start + column.total_compressed_size, 41):
        try:
            found = store.decoded(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])["value"]
        except Unreadable:
            damaged += 1
        else:
            assert found.equals(values), f"byte {at} of {len(data)}"
    assert damaged > 20


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def test_a_newer_format_and_others_files_are_named(make_run: Callable[..., Run]) -> None:
    """A version above ours, a table of somebody, a table of ours that lacks a column."""
    whole = store.decoded(store.encoded(make_run(0)))
    newer = whole.replace_schema_metadata({"perfsuite_history": str(store.FORMAT + 1)})
    with pytest.raises(Unreadable, match=r"format 2 is newer than this perfsuite reads \(1\)"):
        store.decoded(_parquet(newer))
    with pytest.raises(Unreadable, match="not a run that perfsuite wrote"):
        store.decoded(_parquet(pa.table({"a": [1]})))
    less = whole.drop_columns(["value"]).replace_schema_metadata({"perfsuite_history": "1"})
    with pytest.raises(Unreadable, match="not a run"):
        store.decoded(_parquet(less))
    words = whole.replace_schema_metadata({"perfsuite_history": "new"})
    with pytest.raises(Unreadable, match="damaged"):
        store.decoded(_parquet(words))


def test_a_run_that_is_not_taken_is_kept_and_can_be_appended_later(
    flaky: Any, make_run: Callable[..., Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error has both places and the command; the command then works, once."""
    from perfsuite.__main__ import main

    flaky.failing.add("put")
    run = make_run(7)
    with pytest.raises(PerfError) as refused:
        store.append_or_keep(Place("flaky://bucket/runs"), run, tmp_path / "kept")
    said = str(refused.value)
    assert "flaky://bucket/runs: " in said
    assert "the storage broke off a put" in said
    command = said.partition("python -m perfsuite ")[2].split()
    assert command == [
        "import", str(tmp_path / "kept" / run.file_name), "--history=flaky://bucket/runs"
    ]  # fmt: skip

    flaky.failing.clear()
    with pytest.warns(UserWarning, match="1 file skipped"):  # the half that the storage kept
        assert len(load_history("flaky://bucket/runs")) == 0
    assert main(command) == 0
    assert list(load_history("flaky://bucket/runs")["run"]) == [run.id]
    assert main(command) == 0
    assert "already there" in capsys.readouterr().out
    assert len(load_history("flaky://bucket/runs")) == 1


def test_a_count_of_any_size_is_a_number(
    place: Place, make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """Operations are counted in whole numbers, some beyond those that a float holds exactly."""
    large = 2**53 + 1
    figures = ("value", "low", "high", "baseline")
    row = make_row(processes=(large, 1.5), **dict.fromkeys(figures, large))
    store.append(place, store.of_results([make_result(rows=(row,))], Revision()))

    (found,) = load_history(place.text).to_dict("records")

    assert [found[name] for name in figures] == [float(large)] * 4
    assert list(found["processes"]) == [float(large), 1.5]


def test_neither_taken_nor_kept(
    flaky: Any, make_run: Callable[..., Run], tmp_path: Path
) -> None:
    """Both failures are told."""
    flaky.failing.add("put")
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(PerfError, match=r"(?s)broke off a put.*nor kept in .*taken"):
        store.append_or_keep(Place("flaky://bucket/runs"), make_run(), tmp_path / "taken")
