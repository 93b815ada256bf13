"""JetStream's offline benchmark, on an engine whose seconds can be added up by hand."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from perfsuite.errors import Void
from perfsuite.procedures import procedure
from perfsuite.slots import has_slots
from perfsuite.workloads import Workload

# Seconds that the device takes for each call, and what a wait costs. All are sums of powers of two.
EMPTY, PREFILL, INSERT, DECODE, WAIT = 8.0, 1.0, 0.25, 0.5, 0.125


@dataclass
class State:
    """The newest tokens of all slots, one at a time inserted."""

    tokens: list[int]
    logits: Any = None


@dataclass
class SlotEngine:
    """Queues work like a device; a wait lets the time of what is queued pass, and its own."""

    slots: int = 3
    logits: Any = None
    now: float = 0.0
    config: dict[str, Any] = field(default_factory=lambda: {"slots": "ring"})
    calls: list[Any] = field(default_factory=list)
    collecting: set[bool] = field(default_factory=set)
    queued: float = 0.0

    def clock(self) -> float:
        return self.now

    def _queue(self, seconds: float, *call: Any) -> None:
        self.calls.append(call)
        self.collecting.add(gc.isenabled())
        self.queued += seconds

    def emptied(self) -> State:
        self._queue(EMPTY, "emptied")
        return State([0] * self.slots)

    def prefill_one(self, token_ids: Sequence[int]) -> str:
        self._queue(PREFILL, "prefill", len(token_ids))
        return "prefix"

    def insert(self, prefix: str, state: State, slot: int) -> State:
        self._queue(INSERT, "insert", slot)
        return State(state.tokens)

    def generate(self, state: State) -> State:
        self._queue(DECODE, "generate")
        return State(state.tokens, self.logits)

    def wait(self, result: object) -> None:
        self.calls.append(("wait", type(result).__name__))
        self.now += self.queued + WAIT
        self.queued = 0.0

    def prefill(self, token_ids: Sequence[Sequence[int]]) -> State:
        self._queue(PREFILL, "prefill of all", len(token_ids))
        return State([0] * len(token_ids))

    def decode(self, state: State) -> State:
        return self.generate(state)

    def close(self) -> None:
        self.calls.append(("close",))


@pytest.fixture
def engine() -> SlotEngine:
    """Three slots."""
    return SlotEngine()


@pytest.fixture
def measured(make_workload: Callable[..., Workload], engine: SlotEngine) -> Callable[..., Any]:
    """The procedure of a `generate` row of the document, warmed up."""

    def make(**changes: Any) -> Any:
        workload = make_workload(document="jetstream", **changes)
        subject = procedure(engine, workload, engine.clock)
        subject.warm_up()
        return subject

    return make


def test_a_pass_by_hand(measured: Callable[..., Any]) -> None:
    """Three slots of 5 + 4 tokens: 1.125 s a prefill, 0.375 s an insert, 0.625 s a step."""
    assert measured().block() == {
        "prompt_throughput/one_sequence_at_a_time": 15 / 3.375,
        "insert_time/one_slot": 0.375,
        "decode_step_time/all_slots_filled": 0.625,
        "max_throughput/decode_only": 3 / 0.625,
        "max_throughput/serial_prefill_and_decode": 12 / (3 * 1.5 + 4 * 0.625),
    }


def test_every_slot_is_filled_before_a_step_is_timed(
    measured: Callable[..., Any], engine: SlotEngine
) -> None:
    """In their order, with the workload's own prompt length, a wait for every call."""
    subject = measured()
    engine.calls.clear()
    subject.block()
    filled = [
        call
        for slot in range(3)
        for call in (("prefill", 5), ("wait", "str"), ("insert", slot), ("wait", "State"))
    ]
    steps = [("generate",), ("wait", "State")] * 3
    assert engine.calls == [("emptied",), ("wait", "State"), *filled, *steps]


def test_a_warm_up_leaves_nothing_to_the_clock(
    measured: Callable[..., Any], engine: SlotEngine
) -> None:
    """What is still queued when a block begins is waited for before its first prefill."""
    subject = measured()
    engine.queued = 64.0
    assert subject.block()["prompt_throughput/one_sequence_at_a_time"] == 15 / 3.375


def test_one_output_token_needs_no_step(measured: Callable[..., Any]) -> None:
    """The prefill gives it."""
    figures = measured(output_tokens=1).block()
    assert set(figures) == {"prompt_throughput/one_sequence_at_a_time", "insert_time/one_slot"}


def test_no_garbage_is_collected_inside_the_clock(
    measured: Callable[..., Any], engine: SlotEngine
) -> None:
    """And afterwards it is as it was."""
    measured().block()
    assert engine.collecting == {False}
    assert gc.isenabled()


@pytest.mark.parametrize("slots", [2, 4])
def test_slots_that_are_not_those_of_the_batch_are_void(
    measured: Callable[..., Any], engine: SlotEngine, slots: int
) -> None:
    """A step of more slots than are filled, or of fewer, is another step."""
    engine.slots = slots
    with pytest.raises(Void, match=f"returned {4 * slots} tokens, 12 were asked for"):
        measured()


@pytest.mark.parametrize(
    ("logits", "words"),
    [
        ([[0.5] * 10] * 2, "2 sequences, expected 3"),
        ([[0.5] * 10, [0.5] * 10, [*[0.5] * 9, math.nan]], "NaN or infinity"),
    ],
)
def test_wrong_logits_are_void(
    measured: Callable[..., Any], engine: SlotEngine, logits: Any, words: str
) -> None:
    """Looked at once, after the blocks."""
    engine.logits = [[0.5] * 10] * 3
    measured().finish()
    engine.logits = logits
    subject = measured()
    with pytest.raises(Void, match=words):
        subject.finish()


def test_the_memory_pass_is_a_block_without_figures(
    measured: Callable[..., Any], engine: SlotEngine
) -> None:
    """The same calls; and the facts say what ran."""
    subject = measured()
    engine.calls.clear()
    subject.once()()
    assert engine.calls.count(("generate",)) == 3
    assert subject.facts() == {"config": {"slots": "ring"}, "batch": 3}


@pytest.mark.parametrize("changes", [{"document": "torchao"}, {"kind": "multi_user", "batch": 4}])
def test_other_rows_are_measured_as_batches(
    make_workload: Callable[..., Workload], engine: SlotEngine, changes: dict[str, Any]
) -> None:
    """The benchmark is this document's, and of its `generate` rows."""
    workload = make_workload(**{"document": "jetstream", **changes})
    procedure(engine, workload, engine.clock).warm_up()
    assert ("emptied",) not in engine.calls


def test_an_engine_without_slots_is_measured_as_a_batch(
    make_workload: Callable[..., Workload], engine: SlotEngine
) -> None:
    """All that it takes must be there."""

    class Plain:
        clock, config = engine.clock, engine.config
        prefill, decode, wait = engine.prefill, engine.decode, engine.wait
        prefill_one, insert = engine.prefill_one, engine.insert

    assert has_slots(engine)
    assert not has_slots(Plain())  # type: ignore[arg-type]
    subject = procedure(Plain(), make_workload(document="jetstream"), engine.clock)  # type: ignore[arg-type]
    subject.warm_up()
    assert set(subject.block()) == {"prompt_throughput/batch", "decode_throughput/decode_steps"}


@pytest.mark.parametrize("broken", [2, 3, 6, 9])
def test_a_clock_that_goes_backwards_voids_the_block(
    measured: Callable[..., Any], engine: SlotEngine, broken: int
) -> None:
    """Whichever wait it is set back after: of a prefill, an insert or a step."""
    subject = measured()
    wait, waits = engine.wait, []

    def back(result: object) -> None:
        waits.append(result)
        wait(result)
        engine.now -= 9.0 if len(waits) == broken else 0.0

    engine.wait = back  # type: ignore[method-assign]
    with pytest.raises(Void, match="the clock went back by"):
        subject.block()
