"""A generation under the clock: prefill and decode of a batch, and what it must have produced.

Nothing is counted or checked inside the clock, and no garbage is collected there.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import Any, cast

from perfsuite.errors import Void
from perfsuite.intervals import elapsed
from perfsuite.prompts import prompts
from perfsuite.protocols import Engine, SharedPrefixEngine, Step
from perfsuite.workloads import Workload

Clock = Callable[[], float]
Figures = dict[str, float]  # metric id -> value


class Generation:
    """Prefill and decode of a batch on an engine, with the checks that give its time a meaning."""

    def __init__(self, engine: Engine, workload: Workload, batch: int, clock: Clock) -> None:
        self.engine, self.workload, self.batch, self.clock = engine, workload, batch, clock
        vocab = workload.model.vocab_size
        if workload.shared_tokens:
            self._prompts = prompts(vocab, 1, workload.shared_tokens)
        else:
            self._prompts = prompts(vocab, batch, workload.input_tokens)
        self._last: Step | None = None

    @property
    def decode_steps(self) -> int:
        """Steps after the first token."""
        return self.workload.output_tokens - 1

    def prefill(self) -> Step:
        """Start over: the prompts, or the shared prefix once for all."""
        if self.workload.shared_tokens:
            engine = cast("SharedPrefixEngine", self.engine)
            return engine.prefill_shared(self._prompts[0], self.batch)
        return self.engine.prefill(self._prompts)

    def prefill_seconds(self) -> float:
        """Seconds of a prefill with its wait."""
        with quiet():
            start = self.clock()
            self.engine.wait(self.prefill())
            end = self.clock()
        return elapsed(start, end)

    def whole(self) -> tuple[float, float]:
        """(seconds of prefill and decode with one wait at the end, tokens it gave)."""
        with quiet():
            start = self.clock()
            steps = [self.prefill()]
            steps += self._decoded(steps[0])
            self.engine.wait(steps[-1])
            end = self.clock()
        return elapsed(start, end), self._counted(steps)

    def phases(self) -> tuple[float, float]:
        """(seconds of prefill, seconds of decode), one wait at the end of each."""
        with quiet():
            start = self.clock()
            steps = [self.prefill()]
            self.engine.wait(steps[0])
            between = self.clock()
            steps += self._decoded(steps[0])
            self.engine.wait(steps[-1])
            end = self.clock()
        self._counted(steps)
        return elapsed(start, between), elapsed(between, end) if self.decode_steps else 0.0

    def stamps(self) -> list[float]:
        """Seconds from the start to each token, a wait for each step."""
        with quiet():
            start = self.clock()
            steps = [step := self.prefill()]
            self.engine.wait(step)
            moments = [start, self.clock()]
            for _ in range(self.decode_steps):
                steps.append(step := self.engine.decode(step))
                self.engine.wait(step)
                moments.append(self.clock())
        self._counted(steps)
        return list(accumulate(elapsed(*pair) for pair in pairwise(moments)))

    def _decoded(self, step: Step) -> Iterator[Step]:
        for _ in range(self.decode_steps):
            step = self.engine.decode(step)
            yield step

    def check_outputs(self) -> None:
        """Raise Void when the last logits are not finite or not [batch, vocab or padded]."""
        check_logits(self._last, self.batch, self.workload.model.vocab_size)

    def _counted(self, steps: list[Step]) -> int:
        """Tokens that these steps hold; Void when a sequence is missing one."""
        self._last = steps[-1]
        return counted((step.tokens for step in steps), self.batch * self.workload.output_tokens)


def counted(of_steps: Iterable[Any], asked: int) -> int:
    """Tokens of some steps, [batch] each; Void when they are not as many as were asked for."""
    tokens = sum(map(_count, of_steps))
    if tokens != asked:
        raise Void(f"the engine returned {tokens} tokens, {asked} were asked for")
    return tokens


def check_logits(step: Any, batch: int, vocab: int) -> None:
    """Raise Void when a step's logits are not finite or not [batch, vocab or padded]."""
    logits = getattr(step, "logits", None)
    values = logits() if callable(logits) else logits
    if values is None:
        return
    rows = values.tolist() if hasattr(values, "tolist") else values
    if len(rows) != batch:
        raise Void(f"logits of {len(rows)} sequences, expected {batch}")
    for row in rows:
        if not isinstance(row, Sequence) or len(row) < vocab:
            raise Void(f"logits are not [batch, vocab], expected {batch} x {vocab}")
        if not all(math.isfinite(value) for value in row):
            raise Void("logits contain NaN or infinity")


def _count(tokens: Any) -> int:
    shape = getattr(tokens, "shape", None)
    if shape is None:
        return len(tokens)
    if len(shape) != 1:
        raise Void(f"step.tokens has shape {tuple(shape)}, expected [batch]")
    return int(shape[0])


@contextmanager
def quiet() -> Iterator[None]:
    """No garbage collection inside the clock; what there was is collected by the next block."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
