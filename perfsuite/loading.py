"""An engine opened under watch: what its loading takes at most."""

from __future__ import annotations

from typing import Any

from perfsuite.runtimes import loaded, resident, runtime
from perfsuite.sampling import Block
from perfsuite.workloads import Workload


def opened(offer: Any, workload: Workload, device: str) -> tuple[Any, Block]:
    """The engine, and the figures of its loading.

    The framework is imported before: it is no part of the load. A figure of 0 is left out, since
    no memory can be that small: of an engine that allocates nothing, or where nothing is known.
    """
    tools = runtime(getattr(offer, "framework", loaded()))
    before = resident.size_bytes() if resident.reset_peak() else None
    engine, tensors = tools.opened(lambda: offer.open(workload, device), device)
    peak = resident.peak_bytes()
    figures = {
        "load_memory/allocator": tensors,
        "load_memory/process_rise": peak - before if peak and before else None,
    }
    return engine, {name: float(size) for name, size in figures.items() if size}
