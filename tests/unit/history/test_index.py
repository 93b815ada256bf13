"""The index is only a cache: whatever becomes of it, the history's rows are what is read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow", reason="a history is Parquet files")
pytest.importorskip("fsspec", reason="a history is where fsspec finds it")
pytest.importorskip("pandas", reason="a history is read into pandas")

import pyarrow.parquet as pq

from perfsuite import load_history
from perfsuite.errors import PerfError
from perfsuite.history import index, store
from perfsuite.history.place import Place
from perfsuite.history.store import Run


def _values(place: Place, **equal: Any) -> list[float]:
    return list(load_history(place.text, **equal)["value"])


def _segments(place: Place) -> list[Path]:
    return sorted(Path(place.text, ".perfsuite-index").glob("*.parquet"))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The names of the history's files in each reading of them."""
    seen: list[list[str]] = []
    read = Place.read

    def watched(self: Place, names: list[str]) -> dict[str, bytes]:
        seen.append(list(names))
        return read(self, names)

    monkeypatch.setattr(Place, "read", watched)
    return seen


def test_a_file_is_read_once(
    place: Place, fill: Callable[..., list[str]], reads: list[list[str]]
) -> None:
    """New files are taken in; those that are known are not opened again."""
    first = fill(1, 2, 3)
    assert _values(place) == [1, 2, 3]
    assert _values(place) == [1, 2, 3]
    later = fill(2.5)
    assert _values(place) == [1, 2, 2.5, 3]
    assert reads == [[f"{one}.parquet" for one in first], [f"{one}.parquet" for one in later]]


def test_files_are_read_in_batches(
    place: Place, fill: Callable[..., list[str]], reads: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """So that memory does not grow with the history."""
    monkeypatch.setattr(index, "_BATCH", 4)
    fill(*range(10))
    assert _values(place) == list(range(10))
    assert [len(names) for names in reads] == [4, 4, 2]
    assert len(_segments(place)) == 3


def test_small_segments_are_merged(
    place: Place, fill: Callable[..., list[str]], reads: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """An append and a trend at a time leave few segments, without reading any run twice."""
    monkeypatch.setattr(index, "_MOST_SMALL", 3)
    for hour in range(12):
        fill(hour)
        assert _values(place) == list(range(hour + 1))
        assert len(_segments(place)) <= 3
    assert [len(names) for names in reads] == [1] * 12


def test_only_what_was_asked_for(place: Place, make_run: Callable[..., Run]) -> None:
    """By workload, metric, engine and branch, in row groups that hold many workloads."""
    for hour in range(3):
        rows = [
            make_run(hour, float(n), workload=f"w{n:02}", engine=f"e{n % 2}", metric=f"m{n % 3}")
            for n in range(40)
        ]
        store.append(place, Run([row for run in rows for row in run.rows], rows[0].revision,
                                time=rows[0].time))  # fmt: skip
    assert _values(place, workload="w07") == [7, 7, 7]
    assert len(_values(place, engine="e1")) == 60
    assert len(_values(place, metric="m0", engine="e0")) == 21
    assert _values(place, workload="w07", engine="e0") == []
    assert len(_values(place, branch="main")) == 120
    assert _values(place, branch="other") == _values(place, workload="w") == []


def test_one_workload_is_found_without_reading_all(place: Place, make_run: Callable[..., Run],
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups whose bounds exclude it are not read."""
    monkeypatch.setattr(index, "_ROWS_IN_GROUP", 10)
    rows = [row for n in range(30) for row in make_run(0, *[float(n)] * 5, workload=f"w{n}").rows]
    store.append(place, Run(rows, make_run(0).revision))
    assert len(_values(place)) == 150
    (segment,) = _segments(place)
    assert pq.read_metadata(segment).num_row_groups == 15
    assert len(index._groups(pq.read_metadata(segment), "w11")) <= 2
    assert _values(place, workload="w11") == [11] * 5


def test_a_kill_while_merging_doubles_nothing(
    place: Place, fill: Callable[..., list[str]], tmp_path: Path
) -> None:
    """The merged segment is there and some of the old ones are too."""
    for hour in range(3):
        fill(hour)
        assert _values(place) == list(range(hour + 1))
    small = {path: path.read_bytes() for path in _segments(place)}
    for path in small:
        path.unlink()
    assert _values(place) == [0, 1, 2]
    (merged,) = _segments(place)
    for path, data in small.items():
        path.write_bytes(data)
    assert _values(place) == [0, 1, 2]
    assert _segments(place) == [merged]


def test_a_killed_writer_of_the_index_leaves_nothing(
    place: Place, fill: Callable[..., list[str]]
) -> None:
    """Its temporary file goes with the next reading."""
    fill(1)
    _values(place)
    left = Path(place.text, ".perfsuite-index", ".0123.parquet.99.tmp")
    left.write_bytes(b"half")
    assert _values(place) == [1]
    assert not left.exists()


def test_a_full_disk_is_an_error_that_names_the_index(
    place: Place, fill: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the history is as it was."""

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    fill(1)
    monkeypatch.setattr(index, "write_whole", full)
    with pytest.raises(PerfError, match=r"\.perfsuite-index: no index can be kept: No space left"):
        load_history(place.text)
    monkeypatch.undo()
    assert _values(place) == [1]


@pytest.mark.parametrize("damage", ["empty", "half", "page", "other", "layout"])
def test_a_damaged_index_is_made_again(
    place: Place, fill: Callable[..., list[str]], damage: str
) -> None:
    """Whatever lies there, the rows are the history's."""
    fill(*range(5))
    assert _values(place) == list(range(5))
    (segment,) = _segments(place)
    _harm(segment, damage)
    assert _values(place) == list(range(5))
    assert _segments(place) != [segment]


@pytest.mark.parametrize("damage", ["half", "pages"])
def test_damage_that_is_met_while_merging_leaves_nothing_out(
    place: Place, fill: Callable[..., list[str]], damage: str
) -> None:
    """One segment more than may be small, and one of them can not be read any more."""
    for hour in range(index._MOST_SMALL):
        fill(hour)
        assert _values(place) == list(range(hour + 1))
    assert len(_segments(place)) == index._MOST_SMALL
    _harm(_segments(place)[3], damage)
    fill(index._MOST_SMALL)
    assert _values(place) == list(range(index._MOST_SMALL + 1))


def test_an_index_that_is_damaged_again_and_again_is_an_error(
    place: Place, fill: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never a part of the rows as if it were all."""
    fill(1, 2)
    monkeypatch.setattr(index, "write_whole", lambda path, data: path.write_bytes(b"PAR1"))
    with pytest.raises(PerfError, match=r"\.perfsuite-index: damaged again as soon as"):
        load_history(place.text)


def _harm(segment: Path, damage: str) -> None:
    data = segment.read_bytes()
    if damage == "page":
        column = pq.read_metadata(segment).row_group(0).column(0)
        at = column.data_page_offset + column.total_compressed_size // 2
        segment.write_bytes(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
    elif damage == "pages":
        segment.write_bytes(data[:4] + bytes(byte ^ 255 for byte in data[4:60]) + data[60:])
    elif damage == "other":
        pq.write_table(pq.read_table(segment).replace_schema_metadata({}), segment)
    elif damage == "layout":
        older = {"segment": '{"layout": "0", "sizes": {}, "skipped": {}}'}
        pq.write_table(pq.read_table(segment).replace_schema_metadata(older), segment)
    else:
        segment.write_bytes(data[: len(data) // 2] if damage == "half" else b"")


def test_a_file_that_is_gone_or_changed_is_followed(
    place: Place, fill: Callable[..., list[str]], make_run: Callable[..., Run]
) -> None:
    """A run that somebody removed is in no trend; a truncated one that was mended is back."""
    one, two, three = (Path(place.text, f"{run}.parquet") for run in fill(1, 2, 3))
    whole = three.read_bytes()
    three.write_bytes(whole[:-9])
    with pytest.warns(UserWarning, match="1 file skipped"):
        assert _values(place) == [1, 2]
    three.write_bytes(whole)
    assert _values(place) == [1, 2, 3]
    one.unlink()
    assert _values(place) == [2, 3]
    two.unlink()
    three.unlink()
    assert _values(place) == []


def test_what_is_skipped_is_told_every_time(
    place: Place, fill: Callable[..., list[str]], reads: list[list[str]]
) -> None:
    """Named with the reason and counted, from the index too."""
    fill(1)
    names = [f"20260101T0{n}0000000000Z-c1-0123456789ab.parquet" for n in range(7)]
    for name in names:
        Path(place.text, name).write_bytes(b"PAR1")
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"7 files skipped:") as warned:
            frame = load_history(place.text)
        assert list(frame.attrs["skipped"]) == names
        assert str(warned[0].message).endswith("\n  and 2 more")
        assert list(frame["value"]) == [1]
    assert len(reads) == 1


_USER = """
import sys
from perfsuite import load_history
from perfsuite.history import store
from perfsuite.history.place import Place
from perfsuite.history.revision import Revision
place, number = Place(sys.argv[1]), int(sys.argv[2])
for n in range(6):
    row = {"workload": "w", "value": 1.0, "void": False, "metric": f"m{number}"}
    store.append(place, store.Run([row], Revision()))
    seen = load_history(place.text, metric=f"m{number}")
    assert len(seen) == n + 1, len(seen)
"""


def test_several_read_and_write_at_once(place: Place) -> None:
    """Each sees at least its own runs at once, and in the end all are there once."""
    users = [
        subprocess.Popen([sys.executable, "-c", _USER, place.text, str(number)],
                         stderr=subprocess.PIPE, text=True)
        for number in range(3)
    ]  # fmt: skip
    for user in users:
        _, said = user.communicate(timeout=120)
        assert user.returncode == 0, said
    frame = load_history(place.text)
    assert len(frame) == frame["run"].nunique() == 18
