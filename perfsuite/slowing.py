"""Engines, callables and benchmarks that take a known share longer: what --perf-self-test measures.

The time is really spent, by spinning inside the calls that are measured: a sleep would overshoot,
and a figure that is changed afterwards would prove nothing about the clock that took it. A device
may still be at work when a call returns, so what is lengthened is a span: from the first call after
a wait to the end of the next wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from perfsuite.generation import Clock
from perfsuite.protocols import Step, TokenRows

# Calls that only some engines have: those that are waited for, and those that end with their work.
_WAITED_FOR = ("prefill_one", "insert", "generate", "attention")
_WHOLE = ("answer",)


class Spinning:
    """Makes spans of work longer by a share of themselves, and remembers what it really spun."""

    def __init__(self, share: float, clock: Clock = time.perf_counter) -> None:
        self.share, self.clock = share, clock
        self.busy_s = self.spun_s = 0.0
        self._start: float | None = None

    def begin(self) -> None:
        """The first call since the last wait; a later one belongs to the same span."""
        if self._start is None:
            self._start = self.clock()

    def drop(self) -> None:
        """Forget the span: its call raised."""
        self._start = None

    def end(self) -> None:
        """Spin for the share of the time since the span began; nothing where none has begun."""
        if self._start is None:
            return
        now = later = self.clock()
        busy = now - self._start
        while later - now < self.share * busy:
            later = self.clock()
        self.busy_s += busy
        self.spun_s += later - now
        self._start = None

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function with a span for each of its calls, which adds some 0.2 us of its own."""

        def slowed(*args: Any, **kwargs: Any) -> Any:
            self.begin()
            try:
                result = function(*args, **kwargs)
            except BaseException:
                self.drop()
                raise
            self.end()
            return result

        return slowed

    def facts(self) -> dict[str, float]:
        """The share that was asked for, and the one that was really spun so far."""
        return {"share": self.share, "spun": self.spun_s / self.busy_s if self.busy_s else 0.0}


class SlowedEngine:
    """An engine whose every span takes longer; whatever is not measured is the engine's own."""

    def __init__(self, engine: Any, spinning: Spinning) -> None:
        self._engine, self._spinning = engine, spinning

    def prefill(self, token_ids: TokenRows) -> Step:
        """The engine's, which may begin a span."""
        return self._begun(self._engine.prefill, token_ids)

    def prefill_shared(self, prefix_ids: Sequence[int], batch: int) -> Step:
        """The engine's, which may begin a span."""
        return self._begun(self._engine.prefill_shared, prefix_ids, batch)

    def decode(self, step: Step) -> Step:
        """The engine's, which may begin a span."""
        return self._begun(self._engine.decode, step)

    def wait(self, step: Step) -> None:
        """The engine's, and then the share of the whole span."""
        try:
            self._engine.wait(step)
        except BaseException:
            self._spinning.drop()
            raise
        self._spinning.end()

    def _begun(self, call: Callable[..., Step], *args: object) -> Step:
        self._spinning.begin()
        try:
            return call(*args)
        except BaseException:  # a batch that does not fit: the next span must not begin here
            self._spinning.drop()
            raise

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._engine, name)
        if name in _WHOLE:
            return self._spinning.around(found)
        return partial(self._begun, found) if name in _WAITED_FOR else found


class SlowedCalls:
    """The clock and the wait that a callable is measured with: between the two lies the span.

    The callable itself is not wrapped, so that one of a microsecond is slowed by the share alone.
    """

    def __init__(self, wait: Callable[[object], object], spinning: Spinning) -> None:
        self._wait, self._spinning = wait, spinning
        self._timing = False

    def clock(self) -> float:
        """A reading; the first of two begins a span, the second comes after its wait."""
        self._timing = not self._timing
        if self._timing:
            self._spinning.drop()
            self._spinning.begin()
        return self._spinning.clock()

    def wait(self, result: object) -> None:
        """Wait for the device, then for the share of the span."""
        self._wait(result)
        self._spinning.end()


def slow_benchmark(fixture: Any, share: float | None) -> None:
    """Slow what pytest-benchmark's fixture will be called with, where there are both.

    The fixture gets a class of its own with the two public ways to measure, so that it is slowed
    for whoever holds it; `weave` goes through them. What pytest-benchmark stores of it says so.
    """
    if fixture is None or share is None:
        return
    kind: Any = type(fixture)
    spinning = Spinning(share)

    def call(self: Any, function_to_benchmark: Any, *args: Any, **kwargs: Any) -> Any:
        return kind.__call__(self, spinning.around(function_to_benchmark), *args, **kwargs)

    def pedantic(self: Any, target: Any, *args: Any, **kwargs: Any) -> Any:
        return kind.pedantic(self, spinning.around(target), *args, **kwargs)

    fixture.__class__ = type("SlowedBenchmark", (kind,), {"__call__": call, "pedantic": pedantic})
    fixture.extra_info["perfsuite_self_test"] = f"slowed by {share:.2%} on purpose"
