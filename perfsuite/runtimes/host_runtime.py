"""Plain host code: nothing to wait for, memory as the operating system sees it."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median


def wait(result: object) -> None:
    """Host code has finished when it returns."""


def peak_memory(call: Callable[[], object], device: str) -> int | None:
    """Unknown: the host's allocators keep no peak."""
    return None


def ceilings(device: str, dtype: str) -> None:
    """Unknown: there is no framework to probe with."""


def compilations() -> int:
    """Host code compiles nothing."""
    return 0


def pace(device: str) -> tuple[str, float]:
    """Additions per second of a loop in the interpreter, the median of five runs."""
    return "machine_pace/interpreter_loop", _ADDITIONS / median(_loop_s() for _ in range(5))


_ADDITIONS = 20_000


def _loop_s() -> float:
    start, total = time.monotonic(), 0
    for number in range(_ADDITIONS):
        total += number
    return time.monotonic() - start
