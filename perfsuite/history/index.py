"""A cache of a history's rows, so that one workload's trend needs none of the runs' files.

Segments are Parquet files of many runs each, sorted by workload; a segment's metadata names the
files whose rows it has, with their sizes, and those that could not be read, with the reason. New
files make a new segment; many small ones are merged. A segment that is damaged, or that has a file
that changed or is gone, is dropped, and its files are read again: nothing here is worth keeping.
One process at a time works on an index; the lock ends with the process that holds it.
"""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from perfsuite.errors import PerfError
from perfsuite.history.place import Place, write_whole
from perfsuite.history.store import FORMAT, SCHEMA, Unreadable, decoded

_LAYOUT = f"2.{FORMAT}"  # of segments: one of another layout is dropped
_BATCH = 500  # files in a full segment
_MOST_SMALL = 16  # segments that are not full, before they are merged
_ROWS_IN_GROUP = 5_000  # what is read at least to find one workload
_SORTED_BY = SCHEMA.names.index("workload")
_LOCK_S = 600.0
_TRIES = 2  # with the second, damaged segments have been made again


@dataclass(frozen=True)
class Segment:
    """One file of the index."""

    path: Path
    sizes: Mapping[str, int]  # of the history's files that it stands for
    skipped: Mapping[str, str]  # why, of those among them that could not be read


def read(
    place: Place, columns: Sequence[str] = tuple(SCHEMA.names), **equal: str | None
) -> tuple[pa.Table, dict[str, str]]:
    """The rows of a history whose columns have these values, and the files that were skipped.

    Rows are in the order of their runs' times and ids; values that are None are not asked for.
    Raises PerfError where the place can not be listed or read, or no index can be kept.
    """
    wanted = {name: value for name, value in equal.items() if value is not None}
    with _held(place) as folder:
        listing = place.files()
        for _ in range(_TRIES):
            segments = _updated(folder, place, listing)
            found = _tables(segments, columns, wanted)
            if found is not None:
                break
        else:
            raise PerfError(f"{folder}: damaged again as soon as it was written")
    empty = pa.schema([SCHEMA.field(name) for name in columns]).empty_table()
    skipped = {name: why for segment in segments for name, why in segment.skipped.items()}
    rows = pa.concat_tables([empty, *found]).unify_dictionaries()
    return _by_time(rows), dict(sorted(skipped.items()))


def _by_time(rows: pa.Table) -> pa.Table:
    """Sorted by the runs' ids, which begin with their times; as they are without ids."""
    if "run" not in rows.column_names:
        return rows
    return rows.take(pc.sort_indices(rows["run"].cast(pa.string())))


@contextmanager
def _held(place: Place) -> Iterator[Path]:
    """The index's folder, for this process alone."""
    folder = _writable(place)
    try:
        with FileLock(folder / "lock", timeout=_LOCK_S):
            for left in folder.glob(".*.tmp"):  # by a process that was killed while it wrote
                left.unlink()
            yield folder
    except Timeout:
        raise PerfError(f"{folder}: locked by another process for {_LOCK_S:.0f} s") from None
    except OSError as problem:
        raise PerfError(f"{folder}: no index can be kept: {problem.strerror or problem}") from None


def _writable(place: Place) -> Path:
    for folder in place.index_folders():
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ".gitignore").write_text("*\n", encoding="utf-8")
            return folder
    raise PerfError(f"{place.text}: no folder can be written for its index: set XDG_CACHE_HOME")


def _updated(folder: Path, place: Place, listing: Mapping[str, int]) -> list[Segment]:
    """The segments that together stand for every file of the listing."""
    segments = _disjoint([s for path in folder.glob("*.parquet") if (s := _kept(path, listing))])
    known = {name for segment in segments for name in segment.sizes}
    fresh = [name for name in listing if name not in known]
    for start in range(0, len(fresh), _BATCH):
        names = fresh[start : start + _BATCH]
        segments.append(_indexed(folder, place, {name: listing[name] for name in names}))
    small = [segment for segment in segments if len(segment.sizes) < _BATCH]
    if len(small) <= _MOST_SMALL:
        return segments
    whole = _merged(folder, small)
    if whole is None:  # the files of a segment that was dropped are to be read again
        return _updated(folder, place, listing)
    return [*(segment for segment in segments if segment not in small), whole]


def _disjoint(segments: Sequence[Segment]) -> list[Segment]:
    """The largest without a file in common; a kill while merging leaves both, old and merged."""
    found: list[Segment] = []
    known: set[str] = set()
    for segment in sorted(segments, key=lambda one: -len(one.sizes)):
        if known.isdisjoint(segment.sizes):
            found.append(segment)
            known.update(segment.sizes)
        else:
            segment.path.unlink()
    return found


def _kept(path: Path, listing: Mapping[str, int]) -> Segment | None:
    """A segment of the folder; one that can not be used any more is removed."""
    try:
        about = json.loads((pq.read_schema(path).metadata or {})[b"segment"])
        if about["layout"] == _LAYOUT and about["sizes"].items() <= listing.items():
            return Segment(path, about["sizes"], about["skipped"])
    except (pa.ArrowException, OSError, ValueError, KeyError):
        pass
    path.unlink()
    return None


def _indexed(folder: Path, place: Place, sizes: Mapping[str, int]) -> Segment:
    """A new segment of files of the history."""
    tables, skipped = [SCHEMA.empty_table()], {}
    for name, data in place.read(list(sizes)).items():
        try:
            tables.append(decoded(data))
        except Unreadable as problem:
            skipped[name] = str(problem)
    return _written(folder, pa.concat_tables(tables), sizes, skipped)


def _merged(folder: Path, small: Sequence[Segment]) -> Segment | None:
    """One segment in place of many; None where one of them is damaged, and dropped."""
    tables = _tables(small, SCHEMA.names, {})
    if tables is None:
        return None
    sizes = {name: size for segment in small for name, size in segment.sizes.items()}
    skipped = {name: why for segment in small for name, why in segment.skipped.items()}
    whole = _written(folder, pa.concat_tables(tables), sizes, skipped)
    for segment in small:
        segment.path.unlink()
    return whole


def _tables(
    segments: Sequence[Segment], columns: Sequence[str], equal: Mapping[str, str]
) -> list[pa.Table] | None:
    """The wanted rows of each segment; None where any is damaged, and all such are removed."""
    tables = [_rows(segment, columns, equal) for segment in segments]
    found = [table for table in tables if table is not None]
    return found if len(found) == len(tables) else None


def _rows(
    segment: Segment, columns: Sequence[str], equal: Mapping[str, str]
) -> pa.Table | None:
    """The wanted rows of a segment; one that is damaged is removed."""
    try:
        file = pq.ParquetFile(segment.path, page_checksum_verification=True)
        groups = _groups(file.metadata, equal.get("workload"))
        rows = file.read_row_groups(groups, columns=list({*columns, *equal}))
    except (pa.ArrowException, OSError):
        segment.path.unlink()
        return None
    for name, value in equal.items():
        rows = rows.filter(pc.equal(rows[name].cast(pa.string()), value))
    return rows.select(columns)


def _groups(metadata: pq.FileMetaData, workload: str | None) -> list[int]:
    """The row groups that may hold a workload; None: all of them."""
    every = list(range(metadata.num_row_groups))
    if workload is None:
        return every
    bounds = [metadata.row_group(group).column(_SORTED_BY).statistics for group in every]
    return [
        group for group, known in zip(every, bounds, strict=True)
        if not (known and known.has_min_max) or known.min <= workload <= known.max
    ]  # fmt: skip


def _written(
    folder: Path, table: pa.Table, sizes: Mapping[str, int], skipped: Mapping[str, str]
) -> Segment:
    """The rows, sorted by workload, under a name that no segment has."""
    path = folder / f"{secrets.token_hex(8)}.parquet"
    about = {"layout": _LAYOUT, "sizes": dict(sizes), "skipped": dict(skipped)}
    whole = table.unify_dictionaries().combine_chunks()
    by_workload = whole.take(pc.sort_indices(whole["workload"].cast(pa.string())))
    buffer = io.BytesIO()
    pq.write_table(
        by_workload.replace_schema_metadata({"segment": json.dumps(about)}), buffer,
        row_group_size=_ROWS_IN_GROUP, compression="zstd", write_page_checksum=True,
    )  # fmt: skip
    write_whole(path, buffer.getvalue())
    return Segment(path, sizes, skipped)
