"""Single flushed calls, by a clock that only the engine moves."""

from __future__ import annotations

import gc
from collections.abc import Callable
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from perfsuite.attention import TIME
from perfsuite.errors import Void
from perfsuite.procedures import procedure
from perfsuite.workloads import Workload

FLUSH, WAIT = 0.5, 0.25


class Engine:
    """A call takes its seconds when it is waited for; the cache is cold only behind a flush."""

    config = {"kind": "fake"}  # noqa: RUF012

    def __init__(self, seconds: float = 1.0) -> None:
        self.now, self.seconds = 0.0, seconds
        self.calls: list[str] = []
        self.result: Any = np.zeros((3, 2, 1, 2))
        self.was_collecting: set[bool] = set()
        self._queued = 0.0

    def clock(self) -> float:
        return self.now

    def attention(self) -> Any:
        self.was_collecting.add(gc.isenabled())
        cold = not self.calls or self.calls[-1] == "flush"
        self.calls.append("attention")
        self._queued = self.seconds if cold else self.seconds / 10
        return self.result

    def wait(self, result: Any) -> None:
        assert result is self.result
        self.calls.append("wait")
        self.now += self._queued + WAIT * self.seconds

    def flush(self) -> None:
        self.calls.append("flush")
        self.now += FLUSH * self.seconds

    def close(self) -> None:
        self.calls.append("close")


@pytest.fixture
def measured(make_workload: Callable[..., Workload]) -> Callable[..., Any]:
    """The procedure of an attention workload on an engine, warmed up."""

    def make(engine: Engine) -> Any:
        workload = make_workload(kind="attention", mode="hydragen", shared_tokens=6)
        subject = procedure(engine, workload, engine.clock)  # type: ignore[arg-type]
        subject.warm_up()
        return subject

    return make


def test_a_call_is_timed_with_its_wait_and_without_its_flush(
    measured: Callable[..., Any],
) -> None:
    """1 s and a quarter for the wait; the half second of the flush lies before the clock."""
    engine = Engine()
    subject = measured(engine)
    engine.calls.clear()
    assert subject.block() == {TIME: 1.25}
    assert engine.calls == ["flush", "attention", "wait"]


def test_a_planted_flush_inside_the_clock_is_seen(measured: Callable[..., Any]) -> None:
    """An engine that flushes within its own call pays for it: the figure is not the same."""
    engine = Engine()
    plain = engine.attention

    def flushing() -> Any:
        engine.flush()
        return plain()

    engine.attention = flushing  # type: ignore[method-assign]
    assert measured(engine).block() == {TIME: 1.75}


@pytest.mark.parametrize(
    ("seconds", "calls"),
    [(1.0, 1), (0.01, 1), (0.0018, 4), (0.0009, 8)],
)
def test_short_calls_make_a_block_of_several(
    measured: Callable[..., Any], seconds: float, calls: int
) -> None:
    """As many as fill 10 ms, a call with its wait being 1.25 times its seconds; each is flushed."""
    engine = Engine(seconds)
    subject = measured(engine)
    assert subject.facts()["calls_per_block"] == calls
    engine.calls.clear()
    assert subject.block() == {TIME: pytest.approx(1.25 * seconds)}
    assert engine.calls == ["flush", "attention", "wait"] * calls


def test_long_flushes_bound_a_block(measured: Callable[..., Any]) -> None:
    """Calls of 1 ms behind flushes of 20: two fit into 50 ms, not eight into 10."""
    engine = Engine(0.001)
    plain = engine.flush

    def slow() -> None:
        engine.now += 0.02
        plain()

    engine.flush = slow  # type: ignore[method-assign]
    assert measured(engine).facts()["calls_per_block"] == 2


def test_a_block_is_the_median_of_its_calls(measured: Callable[..., Any]) -> None:
    """One call that was interrupted does not move it."""
    engine = Engine(0.0018)
    subject = measured(engine)
    times = iter([0.002, 0.1, 0.003, 0.002])
    plain = engine.attention

    def uneven() -> Any:
        engine.seconds = next(times)
        return plain()

    engine.attention = uneven  # type: ignore[method-assign]
    assert subject.block()[TIME] == pytest.approx(1.25 * median([0.002, 0.1, 0.003, 0.002]))


def test_no_garbage_is_collected_inside_the_clock(measured: Callable[..., Any]) -> None:
    """And afterwards it is as it was."""
    engine = Engine()
    subject = measured(engine)
    engine.was_collecting.clear()
    subject.block()
    assert engine.was_collecting == {False}
    assert gc.isenabled()


def test_the_memory_pass_is_one_call(measured: Callable[..., Any]) -> None:
    """With its wait, and no flush, whose buffer is none of the operation's."""
    engine = Engine()
    subject = measured(engine)
    engine.calls.clear()
    subject.once()()
    assert engine.calls == ["attention", "wait"]


@pytest.mark.parametrize("shape", [(3, 2, 1, 2), (3, 1, 2, 2), (3, 4)])
def test_a_vector_for_each_query_head_passes(
    measured: Callable[..., Any], shape: tuple[int, ...]
) -> None:
    """In whatever order of axes."""
    engine = Engine()
    engine.result = np.zeros(shape)
    subject = measured(engine)
    subject.block()
    subject.finish()


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (None, "attention() gave NoneType, expected an array of 3 x 2 x 1 x 2"),
        ((np.zeros(12), np.zeros(6)), "attention() gave tuple, expected"),
        (np.zeros((2, 2, 1, 2)), "shape (2, 2, 1, 2), expected an array of 3 x 2 x 1 x 2"),
        (np.full((3, 2, 1, 2), np.nan), "NaN or infinity"),
        (np.full((3, 2, 1, 2), -np.inf), "NaN or infinity"),
    ],
)
def test_a_wrong_result_voids_the_measurement(
    measured: Callable[..., Any], result: Any, words: str
) -> None:
    """A missing sequence, or what is no number."""
    engine = Engine()
    engine.result = result
    subject = measured(engine)
    subject.block()
    with pytest.raises(Void) as broken:
        subject.finish()
    assert words in str(broken.value)


def test_what_ran_is_told(measured: Callable[..., Any]) -> None:
    """The configuration, the batch, the calls."""
    facts = measured(Engine()).facts()
    assert facts == {"config": {"kind": "fake"}, "batch": 3, "calls_per_block": 1}


def test_an_engine_needs_no_more_than_four_methods(
    make_workload: Callable[..., Workload],
) -> None:
    """attention, wait, flush and config."""
    engine = Engine()
    names = ("attention", "wait", "flush", "config")
    least = SimpleNamespace(**{name: getattr(engine, name) for name in names})
    workload = make_workload(kind="attention", shared_tokens=6)
    subject = procedure(least, workload, engine.clock)  # type: ignore[arg-type]
    subject.warm_up()
    assert subject.block() == {TIME: 1.25}
