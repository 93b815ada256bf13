"""The attention operation alone, each call from a flushed cache.

As Hydragen's `scripts/microbenchmark.py` takes it: the last-level cache is overwritten before each
call, outside the clock. So calls can not be repeated within one interval: a block is several single
calls, and its figure their median.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import median
from typing import Any, cast

from perfsuite.errors import Void
from perfsuite.generation import Clock, Figures, quiet
from perfsuite.intervals import elapsed
from perfsuite.protocols import AttentionEngine, Engine
from perfsuite.workloads import Workload

TIME = "attention_time/flushed_call"
_CALLS_S = 0.01  # a block has as many calls as fill this time,
_BLOCK_S = 0.05  # or as many as do with their flushes, which may take longer than the calls


class AttentionCalls:
    """Single calls of the operation on tensors that the engine holds, a flush before each."""

    def __init__(self, engine: Engine, workload: Workload, clock: Clock) -> None:
        self._engine = cast("AttentionEngine", engine)
        self._workload, self._clock = workload, clock
        self._calls = 1
        self._result: Any = None

    def warm_up(self) -> None:
        """Compile and load; then see how many calls make a block."""
        self.once()()
        start = self._clock()
        call_s = self._call()
        whole_s = self._clock() - start
        self._calls = max(1, math.floor(min(_CALLS_S / call_s, _BLOCK_S / whole_s)))

    def block(self) -> Figures:
        """The median of a few flushed calls."""
        return {TIME: median(self._call() for _ in range(self._calls))}

    def once(self) -> Callable[[], object]:
        """One call, for the memory."""
        return lambda: self._engine.wait(self._engine.attention())

    def finish(self) -> None:
        """Raise Void when the result is not finite or not one vector for each query head."""
        model = self._workload.model
        shape = getattr(self._result, "shape", None)
        wanted = self._workload.batch * model.heads * model.head_dim
        if shape is None or math.prod(shape) != wanted:
            found = type(self._result).__name__ if shape is None else f"shape {tuple(shape)}"
            raise Void(
                f"attention() gave {found}, expected an array of {self._workload.batch} x"
                f" {model.heads} x 1 x {model.head_dim}"
            )
        if not math.isfinite(float(abs(self._result).max())):
            raise Void("the result of attention() contains NaN or infinity")

    def facts(self) -> dict[str, Any]:
        """What ran."""
        return {
            "config": dict(self._engine.config),
            "batch": self._workload.batch,
            "calls_per_block": self._calls,
        }

    def _call(self) -> float:
        """Seconds of one call with its wait."""
        engine = self._engine
        engine.flush()
        with quiet():
            start = self._clock()
            result = engine.attention()
            engine.wait(result)
            end = self._clock()
        self._result = result
        return elapsed(start, end)
