"""What the fixture takes beside the blocks of a call."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from perfsuite import fixture
from perfsuite.cases import Case
from perfsuite.devices import Device
from perfsuite.fixture import Perf
from perfsuite.peaks import ALIVE, Peak
from perfsuite.workloads import Workload

PACE = "machine_pace/interpreter_loop"


class Listener:
    """A conversation of three blocks that notes when they ran."""

    slow = None

    def __init__(self, events: list[str], *, first: bool = True) -> None:
        self.events, self.first = events, first
        self.once, self.facts = dict[str, float](), dict[str, Any]()

    def blocks(self, part: str, block: Callable[[], dict[str, float]]) -> None:
        for _ in range(3):
            block()
        self.events.append("blocks")

    def done(self, part: str, once: dict[str, float], facts: dict[str, Any]) -> None:
        self.once, self.facts = once, facts

    def void(self, reason: str) -> None:
        raise AssertionError(reason)


def tools(**changes: Any) -> SimpleNamespace:
    """A runtime that knows nothing but what is given."""
    nothing: dict[str, Any] = {
        "probes": lambda _: {}, "compilations": lambda: 0, "wait": lambda _: None,
        "peak": lambda *_: None, "ceilings": lambda *_: None,
    }  # fmt: skip
    return SimpleNamespace(**{**nothing, **changes})


def test_probes_are_taken_on_both_sides_of_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean of the two is kept; the resident peak holds the blocks and neither probe's work."""
    events: list[str] = []
    paces = iter([100.0, 300.0])

    def probes(device: str) -> dict[str, float]:
        events.append(f"probes of {device}")
        return {PACE: next(paces)}

    def note(event: str, answer: object) -> Callable[[], object]:
        return lambda: [events.append(event), answer][1]

    monkeypatch.setattr(fixture, "runtime", lambda framework: tools(probes=probes))
    monkeypatch.setattr(fixture.resident, "reset_peak", note("reset", True))
    monkeypatch.setattr(fixture.resident, "peak_bytes", note("peak", 4096))
    listener = Listener(events)
    Perf(None, Device("cpu"), listener)(lambda: None)

    assert events == ["probes of cpu", "reset", "blocks", "peak", "probes of cpu"]
    assert listener.once == {PACE: 200.0, "resident_memory/process_peak": 4096.0}


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that keeps no resident peak: a figure less."""
    monkeypatch.setattr(fixture.resident, "reset_peak", lambda: False)


def test_the_memory_pass_tells_both_accounts_and_what_was_alive(
    monkeypatch: pytest.MonkeyPatch, kernel: None
) -> None:
    """In the first process alone; without an account there is no figure and no word."""
    peak = Peak(900, 1000, {"made": ["mul 4 MB"], "held": []})
    monkeypatch.setattr(fixture, "runtime", lambda framework: tools(peak=lambda *_: peak))
    first, second = Listener([]), Listener([], first=False)
    for listener in (first, second):
        Perf(None, Device("cpu"), listener)(lambda: None)
    assert first.once == {"peak_memory/allocator": 900.0, "reserved_memory/allocator": 1000.0}
    assert first.facts[ALIVE] == {"made": ["mul 4 MB"], "held": []}
    assert second.once == {}
    assert ALIVE not in second.facts

    monkeypatch.setattr(fixture, "runtime", lambda framework: tools())
    Perf(None, Device("cpu"), first)(lambda: None)
    assert first.once == {}
    assert ALIVE not in first.facts


class Fake:
    """An engine of three tokens."""

    config: dict[str, Any] = {}  # noqa: RUF012 - of the protocol

    def prefill(self, rows: Any) -> SimpleNamespace:
        return SimpleNamespace(tokens=[1] * len(rows))

    def decode(self, step: Any) -> SimpleNamespace:
        return step

    def wait(self, step: Any) -> None:
        pass


def test_an_engine_tells_of_its_loading_and_its_technique_once(
    monkeypatch: pytest.MonkeyPatch, kernel: None, make_workload: Callable[..., Workload]
) -> None:
    """The loading in every process, with the first call on the engine; the comparison in one."""
    monkeypatch.setattr(fixture, "runtime", lambda framework: tools())
    asked: list[object] = []

    def compare(engine: object, workload: Workload) -> dict[str, float]:
        asked.append(engine)
        return {"kl_divergence": 0.5, "max_logit_error": 2.0}

    workload = make_workload()
    offer = SimpleNamespace(name="mine", framework="", compare=compare)
    engine, case = Fake(), Case(workload, offer, "measured")
    first, second = Listener([]), Listener([], first=False)
    for listener in (first, second):
        loading = {"load_memory/allocator": 7.0}
        perf = Perf(case, Device("cpu"), listener, loading=loading)
        perf(lambda: None, name="call")
        assert listener.once == {}
        perf(engine, workload)
        assert listener.once["load_memory/allocator"] == 7.0
        assert ("logit_error/maximum" in listener.once) == listener.first
    assert first.once["kl_divergence/mean_of_unquantised"] == 0.5
    assert asked == [engine]
