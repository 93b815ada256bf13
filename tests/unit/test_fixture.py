"""What the fixture takes beside the blocks of a call."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from perfsuite import fixture
from perfsuite.devices import Device
from perfsuite.fixture import Perf

PACE = "machine_pace/interpreter_loop"


class Listener:
    """A conversation of three blocks that notes when they ran."""

    first, slow = True, None

    def __init__(self, events: list[str]) -> None:
        self.events, self.once = events, dict[str, float]()

    def blocks(self, part: str, block: Callable[[], dict[str, float]]) -> None:
        for _ in range(3):
            block()
        self.events.append("blocks")

    def done(self, part: str, once: dict[str, float], facts: dict[str, Any]) -> None:
        self.once = once

    def void(self, reason: str) -> None:
        raise AssertionError(reason)


def test_probes_are_taken_on_both_sides_of_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean of the two is kept; the resident peak holds the blocks and neither probe's work."""
    events: list[str] = []
    paces = iter([100.0, 300.0])

    def probes(device: str) -> dict[str, float]:
        events.append(f"probes of {device}")
        return {PACE: next(paces)}

    def note(event: str, answer: object) -> Callable[[], object]:
        return lambda: [events.append(event), answer][1]

    tools = SimpleNamespace(
        probes=probes, compilations=lambda: 0, wait=lambda _: None, peak_memory=lambda *_: None
    )
    monkeypatch.setattr(fixture, "runtime", lambda framework: tools)
    monkeypatch.setattr(fixture.resident, "reset_peak", note("reset", True))
    monkeypatch.setattr(fixture.resident, "peak_bytes", note("peak", 4096))
    listener = Listener(events)
    Perf(None, Device("cpu"), listener)(lambda: None)

    assert events == ["probes of cpu", "reset", "blocks", "peak", "probes of cpu"]
    assert listener.once == {PACE: 200.0, "resident_memory/process_peak": 4096.0}
