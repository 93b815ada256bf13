"""What an engine's loading takes: by its framework's account, and by the process's."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from perfsuite import loading
from perfsuite.workloads import Workload

OFFER = SimpleNamespace(framework="mine", open=lambda workload, device: (workload, device))


def watched(monkeypatch: pytest.MonkeyPatch, tensors: int | None, **resident: Any) -> None:
    """A framework whose account says `tensors`, a kernel that says the rest."""

    def opened(opening: Callable[[], Any], device: str) -> tuple[Any, int | None]:
        return opening(), tensors

    kernel = {"reset_peak": True, "size_bytes": 1000, "peak_bytes": 5000} | resident
    answers = {name: lambda answer=answer: answer for name, answer in kernel.items()}
    monkeypatch.setattr(loading, "resident", SimpleNamespace(**answers))
    monkeypatch.setattr(loading, "runtime", lambda framework: SimpleNamespace(opened=opened))


def test_both_accounts(monkeypatch: pytest.MonkeyPatch, make_workload: Any) -> None:
    """The framework's rise, and the process's peak less what it had before."""
    watched(monkeypatch, 3000)
    workload: Workload = make_workload()
    engine, figures = loading.opened(OFFER, workload, "cpu")
    assert engine == (workload, "cpu")
    assert figures == {"load_memory/allocator": 3000.0, "load_memory/process_rise": 4000.0}


@pytest.mark.parametrize(
    ("tensors", "kernel", "expected"),
    [
        (None, {}, {"load_memory/process_rise"}),
        (3000, {"reset_peak": False}, {"load_memory/allocator"}),
        (3000, {"peak_bytes": None}, {"load_memory/allocator"}),
        (0, {"peak_bytes": 1000}, set()),
    ],
)
def test_what_is_unknown_or_nothing_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
    make_workload: Any,
    tensors: int | None,
    kernel: dict[str, Any],
    expected: set[str],
) -> None:
    """A figure of memory must be above zero."""
    watched(monkeypatch, tensors, **kernel)
    assert loading.opened(OFFER, make_workload(), "cpu")[1].keys() == expected


def test_the_framework_is_there_before_the_load(
    monkeypatch: pytest.MonkeyPatch, make_workload: Any
) -> None:
    """Importing it takes hundreds of megabytes, which are none of the engine's."""
    events: list[str] = []

    def imported(framework: str) -> SimpleNamespace:
        events.append(f"import {framework}")
        return tools

    tools = SimpleNamespace(opened=lambda opening, device: (opening(), None))
    monkeypatch.setattr(loading, "runtime", imported)
    kernel = {name: lambda name=name: events.append(name) for name in ("reset_peak", "peak_bytes")}
    monkeypatch.setattr(loading, "resident", SimpleNamespace(**kernel))
    offer = SimpleNamespace(framework="mine", open=lambda *given: events.append("open"))
    loading.opened(offer, make_workload(), "cpu")
    assert events == ["import mine", "reset_peak", "open", "peak_bytes"]
