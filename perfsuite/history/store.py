"""One run as one Parquet file: written once under a name of its own, never changed.

Writers need no server and no lock, since no two of them have a name in common. The rows are those
of the results, figures in the metric's own unit; the file's metadata has the format's version.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from perfsuite.errors import PerfError
from perfsuite.history.place import Place, write_whole
from perfsuite.history.revision import Revision
from perfsuite.metrics import METRICS
from perfsuite.results import Result, Row

FORMAT = 1
OURS = "perfsuite"  # the source of what was measured here
_VERSION = b"perfsuite_history"

_TEXT = pa.dictionary(pa.int32(), pa.string())
_TIME = pa.timestamp("us", "UTC")
_NUMBER = pa.float64()
SCHEMA = pa.schema(
    {
        "run": _TEXT, "time": _TIME, "commit": _TEXT, "commit_time": _TIME, "branch": _TEXT,
        "machine": _TEXT, "suite": _TEXT, "workload": _TEXT, "engine": _TEXT, "scale": _TEXT,
        "tier": _TEXT, "metric": _TEXT, "part": _TEXT, "unit": _TEXT,
        "value": _NUMBER, "low": _NUMBER, "high": _NUMBER,
        "processes": pa.list_(_NUMBER), "samples": pa.int64(),
        "verdict": _TEXT, "ratio": _NUMBER, "baseline": _NUMBER, "ceiling": _NUMBER,
        "void": pa.bool_(), "disturbance": _TEXT, "toolchain": _TEXT, "config": _TEXT,
        "test": _TEXT, "source": _TEXT,
    }
)  # fmt: skip


_NUMBERS = frozenset(column.name for column in SCHEMA if column.type == _NUMBER)


class Unreadable(Exception):
    """Why a file is not a run that can be read here; its text follows the file's name."""


@dataclass(frozen=True)
class Run:
    """Rows that were measured together, as mappings of column to value."""

    rows: Sequence[Mapping[str, Any]]
    revision: Revision
    source: str = OURS
    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    # 12 hexadecimal digits; two runs of one microsecond and commit with equal ones are the same
    unique: str = field(default_factory=lambda: secrets.token_hex(6))

    @property
    def id(self) -> str:
        """Unique, and sorted by time."""
        moment = self.time.astimezone(UTC).strftime("%Y%m%dT%H%M%S%fZ")
        commit = re.sub("[^0-9a-z]", "", self.revision.commit.lower())[:20] or "none"
        return f"{moment}-{commit}-{self.unique}"

    @property
    def file_name(self) -> str:
        """The file that it is, or is going to be."""
        return f"{self.id}.parquet"


def of_results(results: Sequence[Result], revision: Revision) -> Run:
    """The run that gave these results, those of broken contracts (VOID) too."""
    rows = [_columns(result, row) for result in results for row in result.rows]
    return Run(rows, revision, unique=_digest(results))


def _digest(results: Sequence[Result]) -> str:
    """Of results that come back from --perf-json the same, so that they are not taken twice."""
    told = [
        [result.nodeid, result.machine, result.date, row.figure, *map(str, row.processes)]
        for result in results
        for row in result.rows
    ]
    return hashlib.sha256(json.dumps(sorted(told)).encode()).hexdigest()[:12]


def append(place: Place, run: Run) -> str:
    """Write a run into a history; its id. Raises PerfError, and then nothing of it is read."""
    place.put(run.file_name, encoded(run))
    return run.id


def append_or_keep(place: Place, run: Run, folder: Path) -> str:
    """As `append`; a run that the history does not take is kept in a folder, and the error says so.

    Raises PerfError with what went wrong and where the run is now.
    """
    try:
        return append(place, run)
    except PerfError as problem:
        kept = folder / run.file_name
        try:
            write_whole(kept, encoded(run))
        except OSError as other:
            raise PerfError(f"{problem}\nnor kept in {kept}: {other.strerror or other}") from None
        raise PerfError(
            f"{problem}\nkept in {kept}; to append it: "
            f"python -m perfsuite import {kept} --history={place.text}"
        ) from None


def encoded(run: Run) -> bytes:
    """The bytes of a run's file."""
    head = {
        "run": run.id,
        "time": run.time,
        "commit": run.revision.commit,
        "commit_time": run.revision.time,
        "branch": run.revision.branch,
        "source": run.source,
    }
    schema = SCHEMA.with_metadata({_VERSION: str(FORMAT).encode()})
    rows = [_storable({**row, **head}) for row in run.rows]
    table = pa.Table.from_pylist(rows, schema=schema)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def _storable(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _column(name, value) for name, value in row.items()}


def _column(name: str, value: Any) -> Any:
    """Escapes for what UTF-8 has no bytes for; whole numbers as the nearest that a column holds."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if name == "processes":
        return [one if one is None else float(one) for one in value]
    return float(value) if name in _NUMBERS and value is not None else value


def decoded(data: bytes) -> pa.Table:
    """The rows of a file's bytes; raises Unreadable for one that is damaged, newer or another's."""
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        version = int((file.schema_arrow.metadata or {})[_VERSION])
        if version > FORMAT:
            raise Unreadable(f"format {version} is newer than this perfsuite reads ({FORMAT})")
        return file.read().select(SCHEMA.names).cast(SCHEMA)
    except KeyError:
        raise Unreadable("not a run that perfsuite wrote") from None
    except (pa.ArrowException, OSError, ValueError) as problem:
        raise Unreadable(f"damaged: {_first_line(problem)}") from None


def _first_line(problem: Exception) -> str:
    return (str(problem).splitlines() or [type(problem).__name__])[0][:120]


def _columns(result: Result, row: Row) -> dict[str, Any]:
    of = METRICS.get(row.metric_id)  # a broken contract has a row, but no metric
    identity = {
        name: getattr(result, name)
        for name in ("machine", "suite", "workload", "engine", "scale", "tier", "disturbance",
                     "toolchain")
    }  # fmt: skip
    figures = {
        name: getattr(row, name)
        for name in ("part", "value", "low", "high", "samples", "ratio", "baseline", "ceiling")
    }
    return {
        **identity,
        **figures,
        "metric": row.metric_id,
        "unit": of.unit if of else "",
        "processes": list(row.processes),
        "verdict": row.verdict.value,
        "void": result.is_void,
        "config": as_json(result.config),
        "test": result.nodeid,
    }


def as_json(values: Mapping[str, Any]) -> str:
    """A configuration as text that is the same for the same values."""
    return json.dumps(dict(values), sort_keys=True, default=str)
