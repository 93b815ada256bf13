"""perfsuite gates the performance of LLM inference with pytest.

    plugin      the pytest hooks; reached by its entry point
    workloads   the documents as data
    suite       the documents' tests, imported in one line: `from perfsuite.suite import *`

Arrows: options, limits, metrics, statistics, verdict, roofline, shares, results are pure and import
nothing above them; plugin imports nothing until --perf; worker, procedures, runtimes and static
live in worker processes; nothing here imports a tensor framework in the pytest process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perfsuite.frame import load_results
    from perfsuite.history.frame import load_history

__all__ = ["load_history", "load_results"]


def __getattr__(name: str) -> Any:
    if name == "load_results":
        from perfsuite.frame import load_results

        return load_results
    if name == "load_history":
        from perfsuite.history.frame import load_history

        return load_history
    raise AttributeError(f"module 'perfsuite' has no attribute {name!r}")
