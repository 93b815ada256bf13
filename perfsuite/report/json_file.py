"""Every figure with its samples as JSON.

`results` is the whole truth, one object for each test, and what `perfsuite.load_results` reads.
`benchmarks` repeats times and throughputs in the form of pytest-benchmark's JSON, so that
github-action-benchmark and bencher read the file through their adapters for it: there a
throughput is given as the seconds that one token takes, so that its `ops` are tokens per second.
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from perfsuite.environment import commit, toolchain
from perfsuite.metrics import METRICS
from perfsuite.results import Result, Row

FORMAT = 1


def write(
    path: Path, results: Sequence[Result], gone: Sequence[tuple[str, str]], root: Path
) -> None:
    """Replace the file by this run's results; what is not a finite number stands as null."""
    document = {
        "perfsuite_format": FORMAT,
        "version": metadata.version("perfsuite"),
        "datetime": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine_info": {"machine": platform.machine(), "toolchain": toolchain()},
        "commit_info": {"id": commit(root)},
        "results": [result.as_dict() for result in results],
        "gone": [{"key": key, "file": file} for key, file in gone],
        "benchmarks": [b for result in results for b in _benchmarks(result)],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    text = json.dumps(_finite(document), indent=1, allow_nan=False)
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _finite(value: Any) -> Any:
    """The value with null for NaN and infinity, which JSON has no words for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value


def _benchmarks(result: Result) -> list[dict[str, Any]]:
    timed = [row for row in result.rows if _is_timed(row)]
    return [_benchmark(result, row) for row in timed]


def _is_timed(row: Row) -> bool:
    of = METRICS.get(row.metric_id)  # a broken contract has a row, but no metric
    if row.value is None or of is None:
        return False
    return of.gated and of.kind in _TIMED and not of.derived  # a ratio takes no seconds


_TIMED = ("time", "throughput")


def _benchmark(result: Result, row: Row) -> dict[str, Any]:
    samples = [value for process in result.samples[row.figure] for value in process]
    if METRICS[row.metric_id].kind == "throughput":
        samples = [1 / value for value in samples]
    mean = fmean(samples)
    return {
        "group": result.suite,
        "name": f"{result.workload} {row.figure}",
        "fullname": f"{result.nodeid} {row.figure}",
        "params": None,
        "extra_info": {"verdict": row.verdict.value, "ratio": row.ratio, "engine": result.engine},
        "stats": {
            "min": min(samples),
            "max": max(samples),
            "mean": mean,
            "stddev": stdev(samples) if len(samples) > 1 else 0.0,
            "median": median(samples),
            "rounds": len(samples),
            "iterations": 1,
            "total": sum(samples),
            "ops": 1 / mean,
        },
    }
