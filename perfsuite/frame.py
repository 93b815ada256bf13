"""Stored results as a pandas DataFrame."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfsuite.report.stored import read
from perfsuite.results import Result

if TYPE_CHECKING:
    import pandas

_OF_RESULT = (
    "workload", "engine", "tier", "scale", "suite", "machine", "nodeid", "date", "toolchain",
    "disturbance", "seconds",
)  # fmt: skip


def load_results(*files: str | Path) -> pandas.DataFrame:
    """The figures of --perf-json files, a row per test and figure.

    Columns: what identifies the test; metric, part, verdict; value, low, high in the metric's
    unit; ratio with bounds and limit; baseline; samples (their count) and values (one list of
    samples for each process). Raises PerfError for a file that is not one of ours or is newer.
    """
    import pandas

    return pandas.DataFrame([row for file in files for row in _rows(Path(file))])


def _rows(file: Path) -> list[dict[str, Any]]:
    results = read(file).results
    return [_flat(result, row) for result in results for row in result.as_dict()["rows"]]


def _flat(result: Result, row: dict[str, Any]) -> dict[str, Any]:
    metric, _, part = row.pop("figure").partition("@")
    identity = {name: getattr(result, name) for name in _OF_RESULT}
    figure = f"{metric}@{part}" if part else metric
    return {**identity, "metric": metric, "part": part, **row, "values": result.samples.get(figure)}
