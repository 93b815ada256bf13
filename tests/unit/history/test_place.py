"""Where a history is: folders, URLs, what else lies there, and storages that fail."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow", reason="a history is Parquet files")
pytest.importorskip("fsspec", reason="a history is where fsspec finds it")
pytest.importorskip("pandas", reason="a history is read into pandas")

from perfsuite import load_history
from perfsuite.errors import PerfError
from perfsuite.history import store
from perfsuite.history.place import Place, write_whole
from perfsuite.history.store import Run


def test_other_things_in_the_folder_are_not_ours(
    place: Place, fill: Callable[..., list[str]]
) -> None:
    """Files, folders, somebody's Parquet and a killed writer's temporary file are left alone."""
    fill(1, 2)
    folder = Path(place.text)
    (folder / "README.md").write_text("hello")
    (folder / "table.parquet").write_bytes(b"PAR1")
    (folder / "20260101T000000000000Z-c1-0123456789ab.parquet.d").mkdir()
    (folder / ".20260101T000000000000Z-c1-0123456789ab.parquet.99.tmp").write_bytes(b"PAR1 half")
    before = sorted(path.name for path in folder.iterdir())

    assert len(load_history(place.text)) == 2

    after = sorted(path.name for path in folder.iterdir())
    assert set(after) - set(before) == {".perfsuite-index"}


def test_a_url_and_a_folder_hold_the_same(make_run: Callable[..., Run], tmp_path: Path) -> None:
    """Object storage by its URL, a file URL, a relative folder."""
    run = make_run(3)
    places = ["memory://bucket/runs", f"file://{tmp_path}/filed", str(tmp_path / "plain")]
    frames = []
    for text in places:
        store.append(Place(text), run)
        frames.append(load_history(text).astype({"processes": str}))
    assert len(frames[0]) == 1
    assert all(frame.equals(frames[0]) for frame in frames)
    assert (tmp_path / "filed" / ".perfsuite-index").is_dir()


@pytest.mark.parametrize("name", ["job[1]", "a*", "b?c", "{x,y}"])
@pytest.mark.parametrize("root", ["memory", "folder"])
def test_a_name_is_no_pattern(
    make_run: Callable[..., Run], tmp_path: Path, root: str, name: str
) -> None:
    """What is written below it is read, and nothing of a neighbour that the pattern fits."""
    below = str(tmp_path) if root == "folder" else f"memory:/{tmp_path}"
    for text in (f"{below}/{name}", f"{below}/job1"):
        for hour in (1, 2):
            store.append(Place(text), make_run(hour))

        assert list(load_history(text)["value"]) == [1, 2]


def test_the_index_of_a_url_lies_in_the_users_cache(
    make_run: Callable[..., Run], cache: Path
) -> None:
    """And none in the storage."""
    store.append(Place("memory://bucket/cached"), make_run(3))
    load_history("memory://bucket/cached")
    (folder,) = (cache / "perfsuite" / "history").iterdir()
    assert list(folder.glob("*.parquet"))


def test_where_nothing_is(tmp_path: Path, flaky: Any) -> None:
    """A missing place is an error that nothing is made of; an empty folder is an empty history."""
    missing, file = tmp_path / "none", tmp_path / "file"
    file.write_text("no folder")
    for text in (str(missing), str(file), "flaky://bucket/none"):
        with pytest.raises(PerfError, match=r"no history is there; --perf-history=.*begins one"):
            load_history(text)
    assert not missing.exists()
    (tmp_path / "empty").mkdir()
    assert len(load_history(str(tmp_path / "empty"))) == 0


@pytest.mark.parametrize("url", ["nowhere://bucket", "s3x://bucket/a"])
def test_an_unknown_storage_is_refused_at_once(url: str) -> None:
    """Before anything is measured, with what is expected."""
    with pytest.raises(PerfError, match=r"(?s)(?:nowhere|s3x).*expected: a folder, or a URL"):
        Place(url).check_writable()


def test_a_folder_that_can_not_be_written_is_refused_at_once(tmp_path: Path) -> None:
    """A file in its place; permissions are tried by test_no_write_permission."""
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(PerfError, match=r"(?s)taken.*Nothing was measured\. Choose another place"):
        Place(str(tmp_path / "taken" / "runs")).check_writable()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_write_permission(
    place: Place, make_run: Callable[..., Run], fill: Callable[..., list[str]], cache: Path
) -> None:
    """Nothing can be appended, and all can be read: the index goes to the user's cache."""
    fill(1)
    Path(place.text).chmod(0o500)
    try:
        with pytest.raises(PerfError, match="cannot append to this history: Permission denied"):
            place.check_writable()
        with pytest.raises(PerfError, match="was not appended: Permission denied"):
            store.append(place, make_run(2))
        assert len(load_history(place.text)) == 1
        assert cache.is_dir()
    finally:
        Path(place.text).chmod(0o700)


def test_no_room_for_an_index_beside_the_history(
    place: Place, fill: Callable[..., list[str]], cache: Path
) -> None:
    """It goes to the user's cache, as that of a folder without write permission."""
    fill(1)
    Path(place.text, ".perfsuite-index").write_text("somebody's file")
    assert len(load_history(place.text)) == 1
    assert list(cache.rglob("*.parquet"))


def test_without_any_folder_for_the_index(
    make_run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says how to give one."""
    store.append(Place("memory://bucket/nowhere"), make_run(3))
    (tmp_path / "taken").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "taken"))
    with pytest.raises(PerfError, match="no folder can be written for its index"):
        load_history("memory://bucket/nowhere")


@pytest.mark.parametrize("operation", ["list", "get"])
def test_a_storage_that_fails_while_reading_gives_no_part(
    flaky: Any, make_run: Callable[..., Run], operation: str
) -> None:
    """An error with the storage's words; afterwards everything is there."""
    for hour in (1, 2):
        store.append(Place("flaky://bucket/runs"), make_run(hour))
    flaky.failing.add(operation)
    with pytest.raises(PerfError, match=f"flaky://bucket/runs: .*broke off a {operation}"):
        load_history("flaky://bucket/runs")
    flaky.failing.clear()
    assert list(load_history("flaky://bucket/runs")["value"]) == [1, 2]


def test_a_storage_that_gives_an_error_in_place_of_a_file_gives_no_part(
    flaky: Any, make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As fsspec did for years, whatever it was asked."""
    for hour in (1, 2):
        store.append(Place("flaky://bucket/runs"), make_run(hour))

    def ranges(self: Any, paths: list[str], *spans: Any, **more: Any) -> list[Any]:
        return [self.cat_file(paths[0]), ConnectionError("broke off")]

    monkeypatch.setattr(flaky, "cat_ranges", ranges)
    with pytest.raises(PerfError, match="flaky://bucket/runs: can not be read: broke off"):
        load_history("flaky://bucket/runs")


def test_a_put_that_fails_half_way_is_skipped_and_named(
    flaky: Any, make_run: Callable[..., Run]
) -> None:
    """A storage may keep the half of an object: it is no run."""
    place = Place("flaky://bucket/runs")
    store.append(place, make_run(1))
    flaky.failing.add("put")
    half = make_run(2)
    with pytest.raises(PerfError, match="was not appended: the storage broke off a put"):
        store.append(place, half)
    with pytest.warns(UserWarning, match=f"1 file skipped:\n  {half.file_name}: damaged"):
        frame = load_history("flaky://bucket/runs")
    assert list(frame["value"]) == [1]
    assert list(frame.attrs["skipped"]) == [half.file_name]


def test_a_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full when the name would change leaves the old file and no other."""

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    write_whole(tmp_path / "a", b"old")
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path / "a", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_library_that_can_not_be_loaded_is_told_at_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is installed, and broken: that is known before anything is measured."""
    monkeypatch.setitem(sys.modules, "perfsuite.history.store", None)
    with pytest.raises(PerfError, match=r"(?s)history\.store.*Nothing was measured"):
        place.check_writable()
    assert not place.folder.exists()


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The error names what is missing and the command that installs it."""
    from perfsuite import history

    monkeypatch.setattr(history, "_LIBRARIES", ("fsspec", "no_such_library"))
    remedy = r"no_such_library(?s:.*)pip install 'perfsuite\[history\]'"
    with pytest.raises(PerfError, match=remedy):
        load_history(str(tmp_path))
