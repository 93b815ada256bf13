"""torch: wait, memory (torch_memory.py), ceilings, probes of the moment, compilations."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import cache
from statistics import median

import torch

from perfsuite.errors import EngineUnavailable
from perfsuite.intervals import elapsed
from perfsuite.roofline import Ceilings
from perfsuite.runtimes.host_probes import (
    INTERPRETER_LOOP,
    MEMORY_COPY,
    interpreter_loop,
    memory_copy,
)
from perfsuite.runtimes.torch_memory import opened as opened
from perfsuite.runtimes.torch_memory import peak as peak

MATRIX_PRODUCTS = "machine_pace/matrix_products"

_PROBE_BYTES = 256 * 2**20
_PROBE_SIZE = {"cpu": 1024, "cuda": 8192}
_RUNS = 7
_PACE_SIZE = {"cpu": 384, "cuda": 2048}
_COPY_BYTES = 128 * 2**20  # on a GPU; source and target together exceed its cache


def wait(result: object) -> None:
    """Block until the result's GPU has finished, the current one where the result names none.

    CPU operators have finished when they return.
    """
    if torch.cuda.is_initialized():
        torch.cuda.synchronize(_gpu_of(result))


def _gpu_of(result: object) -> torch.device | None:
    device = getattr(result, "device", None)
    return device if isinstance(device, torch.device) and device.type == "cuda" else None


@cache
def ceilings(device: str, dtype: str) -> Ceilings:
    """Read bandwidth by a reduction, peak by a square matrix product, the best of several runs.

    Probed once a process: the first time that something is measured on this device and type.
    """
    kind = device.partition(":")[0]
    values = torch.ones(_PROBE_BYTES // 4, device=device)
    read_s = min(_seconds(values.sum, values) for _ in range(_RUNS))
    size = _PROBE_SIZE[kind]
    square = torch.ones(size, size, device=device, dtype=_dtype(dtype))
    product_s = min(_seconds(lambda: square @ square, square) for _ in range(_RUNS))
    return Ceilings(bandwidth=_PROBE_BYTES / read_s, peak=2 * size**3 / product_s)


def probes(device: str) -> dict[str, float]:
    """Interpreting on the host; copying and products on the device, the medians of several runs."""
    on_gpu = device.startswith("cuda")
    return {
        INTERPRETER_LOOP: interpreter_loop(),
        MEMORY_COPY: _device_copy(device) if on_gpu else memory_copy(),
        MATRIX_PRODUCTS: _matrix_products(device),
    }


def _device_copy(device: str) -> float:
    """Bytes per second copied within the GPU's memory."""
    source = torch.ones(_COPY_BYTES // 4, device=device)
    target = torch.empty_like(source)
    runs = [_seconds(lambda: target.copy_(source), source) for _ in range(_RUNS)]
    return _COPY_BYTES / median(runs)


def _matrix_products(device: str) -> float:
    """Operations per second of small float32 products, on all threads of a CPU."""
    size = _PACE_SIZE[device.partition(":")[0]]
    square = torch.ones(size, size, device=device)
    runs = [_seconds(lambda: square @ square, square) for _ in range(_RUNS)]
    return 2 * size**3 / median(runs)


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise EngineUnavailable(f"torch has no dtype {name!r}")
    return found


def _seconds(call: Callable[[], torch.Tensor], operand: torch.Tensor) -> float:
    """Seconds of a call, from when its operand's device has nothing else to do."""
    wait(operand)
    start = time.perf_counter()
    wait(call())
    return elapsed(start, time.perf_counter())


def compilations() -> int:
    """Frames that torch.compile has compiled in this process; 0 while nothing has imported it."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    return int(dynamo.counters["frames"]["total"]) if dynamo else 0
