"""Plain host code: nothing to wait for, memory as the operating system sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perfsuite.runtimes.host_probes import (
    INTERPRETER_LOOP,
    MEMORY_COPY,
    interpreter_loop,
    memory_copy,
)


def wait(result: object) -> None:
    """Host code has finished when it returns."""


def peak(call: Callable[[], object], device: str) -> None:
    """Unknown: the host's allocators keep no peak."""


def opened(opening: Callable[[], Any], device: str) -> tuple[Any, None]:
    """What is opened; unknown is what that took."""
    return opening(), None


def ceilings(device: str, dtype: str) -> None:
    """Unknown: there is no framework to probe with."""


def compilations() -> int:
    """Host code compiles nothing."""
    return 0


def probes(device: str) -> dict[str, float]:
    """What the host shows without a framework: interpreting and copying."""
    return {INTERPRETER_LOOP: interpreter_loop(), MEMORY_COPY: memory_copy()}
