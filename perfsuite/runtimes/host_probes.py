"""Probes of the host that need nothing but Python: how fast it interprets, and how fast it copies.

They are short, so that they fit beside the blocks, and repeated, so that one interruption does not
show. What they say is only ever compared with themselves on the same machine class.
"""

from __future__ import annotations

import time
from functools import cache
from statistics import median

from perfsuite.devices import last_level_cache_bytes
from perfsuite.intervals import elapsed

INTERPRETER_LOOP = "machine_pace/interpreter_loop"
MEMORY_COPY = "machine_pace/memory_copy"

_ADDITIONS = 20_000
_RUNS = 5
_LEAST_BYTES, _MOST_BYTES = 16 * 2**20, 128 * 2**20


def interpreter_loop() -> float:
    """Additions per second of a loop in the interpreter, the median of five runs."""
    return _ADDITIONS / median(_loop_s() for _ in range(_RUNS))


def memory_copy() -> float:
    """Bytes per second copied by one thread, the median over the fifths of a buffer.

    Source and target are each as large as the last-level cache, so that what is copied comes from
    memory; never more than 128 MiB, which is a copy of some 10 ms.
    """
    source, target = _buffers()
    part = len(source) // _RUNS
    return part / median(_copy_s(source, target, run * part, part) for run in range(_RUNS))


def _loop_s() -> float:
    start, total = time.perf_counter(), 0
    for number in range(_ADDITIONS):
        total += number
    return elapsed(start, time.perf_counter())


def _copy_s(source: memoryview, target: memoryview, at: int, size: int) -> float:
    start = time.perf_counter()
    target[at : at + size] = source[at : at + size]
    return elapsed(start, time.perf_counter())


@cache
def _buffers() -> tuple[memoryview, memoryview]:
    """(source, target), kept for the life of the process and written to once.

    The first writing to a page costs ten times what copying it does, and is no matter of memory.
    """
    size = min(max(last_level_cache_bytes(), _LEAST_BYTES), _MOST_BYTES)
    source, target = memoryview(bytearray(b"\1") * size), memoryview(bytearray(size))
    target[:] = source
    return source, target
