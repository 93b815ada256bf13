"""The documents' tests. A project takes them all in one line of a test file:

    from perfsuite.suite import *

and each becomes an item for every workload, engine and tier.
"""

from __future__ import annotations

from typing import Any

import pytest

__all__ = ["test_hydragen", "test_jetstream", "test_llm", "test_torchao"]


@pytest.mark.perf(workloads="jetstream-*")
def test_jetstream(perf: Any, perf_engine: Any, perf_workload: Any) -> None:
    """The rows of JetStream's benchmark tables: prefill and decode of a full batch."""
    perf(perf_engine, perf_workload)


@pytest.mark.perf(workloads="hydragen-*")
def test_hydragen(perf: Any, perf_engine: Any, perf_workload: Any) -> None:
    """Hydragen's sweeps: many completions of one shared prefix, and its attention alone."""
    perf(perf_engine, perf_workload)


@pytest.mark.perf(workloads="torchao-*")
def test_torchao(perf: Any, perf_engine: Any, perf_workload: Any) -> None:
    """Long contexts of torchao: peak memory and speed at one user."""
    perf(perf_engine, perf_workload)


@pytest.mark.perf(workloads="llm-*")
def test_llm(perf: Any, perf_engine: Any, perf_workload: Any) -> None:
    """The four metrics of LLM inference: latency and throughput of prompt and token phase."""
    perf(perf_engine, perf_workload)
