"""The runs of the past: each one a Parquet file, written once, in a folder or an object storage.

    place, store   where a history is; one run as one file, appended
    revision       commit, its time, its branch
    index          a cache of all files' rows, sorted by workload
    frame          `load_history`
    trend          one series of each figure, in the order of the commits (pure)
    overview       which workloads there are; trend_text: trends in a terminal
    importing      results of pytest-benchmark and of vLLM's benchmarks as runs

Change points, drift and what they have to know of noise are modules of their own beside these. The
libraries are an extra: none is imported before a history is asked for.
"""

from __future__ import annotations

from importlib.util import find_spec

from perfsuite.errors import PerfError

_LIBRARIES = ("pyarrow", "fsspec", "pandas")


def require_libraries(*more: str) -> None:
    """Raises PerfError where the extra, or one more library of it, is not installed."""
    missing = [name for name in (*_LIBRARIES, *more) if find_spec(name) is None]
    if missing:
        raise PerfError(
            f"a history needs {', '.join(missing)}, which is not installed\n"
            "pip install 'perfsuite[history]'"
        )
