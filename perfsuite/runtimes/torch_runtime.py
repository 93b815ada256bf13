"""torch: wait, allocator peak, ceiling probes, compilations."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from perfsuite.errors import EngineUnavailable
from perfsuite.roofline import Ceilings

_PROBE_BYTES = 256 * 2**20
_PROBE_SIZE = {"cpu": 1024, "cuda": 8192}
_PACE_SIZE = {"cpu": 384, "cuda": 2048}


def wait(result: object) -> None:
    """Block until the GPUs in use have finished; CPU operators have finished when they return."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def peak_memory(call: Callable[[], object], device: str) -> int:
    """The largest sum of live tensor bytes while `call` runs, what lived before included."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device))
    before = _live_bytes()
    with torch.profiler.profile(profile_memory=True, acc_events=True) as profile:
        call()
    return before + _largest_rise(profile)


def _live_bytes() -> int:
    """Bytes of the storages of all tensors that Python holds."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if issubclass(type(thing), torch.Tensor):  # isinstance asks objects that warn when asked
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def _largest_rise(profile: torch.profiler.profile) -> int:
    """The highest level that the allocator's events reach, from the level at the start."""
    profiler: Any = profile.profiler  # torch's stubs do not know what it holds
    events = [e for e in profiler.kineto_results.events() if e.name() == "[memory]"]
    level = highest = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        level += event.nbytes()
        highest = max(highest, level)
    return highest


@cache
def ceilings(device: str, dtype: str) -> Ceilings:
    """Read bandwidth by a reduction, peak by a square matrix product, the best of several runs.

    Probed once a process: the first time that something is measured on this device and type.
    """
    kind = device.partition(":")[0]
    values = torch.ones(_PROBE_BYTES // 4, device=device)
    read_s = _best_s(lambda: values.sum())
    size = _PROBE_SIZE[kind]
    square = torch.ones(size, size, device=device, dtype=_dtype(dtype))
    product_s = _best_s(lambda: square @ square)
    return Ceilings(bandwidth=_PROBE_BYTES / read_s, peak=2 * size**3 / product_s)


def pace(device: str) -> tuple[str, float]:
    """Operations per second of float32 products on all threads, the median of seven runs."""
    size = _PACE_SIZE[device.partition(":")[0]]
    square = torch.ones(size, size, device=device)
    runs = sorted(_best_s(lambda: square @ square, runs=1) for _ in range(7))
    return "machine_pace/matrix_products", 2 * size**3 / runs[3]


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise EngineUnavailable(f"torch has no dtype {name!r}")
    return found


def _best_s(call: Callable[[], object], runs: int = 7) -> float:
    best = float("inf")
    for _ in range(runs):
        wait(None)
        start = time.perf_counter()
        call()
        wait(None)
        best = min(best, time.perf_counter() - start)
    return best


def compilations() -> int:
    """Frames that torch.compile has compiled in this process; 0 while nothing has imported it."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    return int(dynamo.counters["frames"]["total"]) if dynamo else 0
