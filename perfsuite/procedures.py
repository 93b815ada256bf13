"""How each kind of subject is measured: what a block is, and which figures it gives.

A block is one repetition of the same work from the same start: the same prompts, the same decode
positions. Throughput comes from a pass with one wait at its end, token latencies from a pass of
their own with a wait for every step, because the wait itself costs time. Counting and checking
happen between blocks, outside the clock.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from perfsuite.attention import AttentionCalls
from perfsuite.errors import Void
from perfsuite.generation import Clock as Clock
from perfsuite.generation import Figures, Generation, quiet
from perfsuite.intervals import elapsed
from perfsuite.needles import Needles
from perfsuite.protocols import Engine
from perfsuite.slots import SlotGeneration, has_slots
from perfsuite.workloads import Workload

_TTFT = "time_to_first_token/prefill_until_first_token"
_TPOT = "time_per_output_token/excluding_first_token"
_ITL = "inter_token_latency/median_step"
_LESS_FIRST = "decode_throughput/all_less_first_token"
_LARGEST_BATCH = 4096
_BLOCK_S = 0.01  # calls shorter than this are repeated until a block is this long


class Procedure(Protocol):
    """Warm up once, then as many blocks as the plugin asks for, then finish."""

    def warm_up(self) -> None:
        """Run every shape that a block uses; nothing is recorded."""

    def block(self) -> Figures:
        """One block."""

    def once(self) -> Callable[[], object]:
        """The work of a block without the clock, for the memory pass."""

    def finish(self) -> None:
        """Raise Void when what ran was not what was asked."""

    def facts(self) -> dict[str, Any]:
        """Built-in types that describe what ran: effective configuration, batches."""


class SingleUser:
    """Batch 1: latencies of both phases and the throughput of the whole."""

    def __init__(self, engine: Engine, workload: Workload, clock: Clock) -> None:
        self._run = Generation(engine, workload, 1, clock)
        self._engine, self._workload = engine, workload

    def warm_up(self) -> None:
        self._run.whole()
        self._run.stamps()

    def block(self) -> Figures:
        seconds, tokens = self._run.whole()
        stamps = self._run.stamps()
        figures = {
            _TTFT: stamps[0],
            "single_user_throughput/output_tokens": tokens / seconds,
            "single_user_throughput/prompt_and_output_tokens": (
                (self._workload.input_tokens + tokens) / seconds
            ),
        }
        if len(stamps) > 1:
            gaps = [later - earlier for earlier, later in pairwise(stamps)]
            figures[_TPOT] = (stamps[-1] - stamps[0]) / len(gaps)
            figures[_ITL] = median(gaps)
        return figures

    def once(self) -> Callable[[], object]:
        return self._run.whole

    def finish(self) -> None:
        self._run.check_outputs()

    def facts(self) -> dict[str, Any]:
        return {"config": dict(self._engine.config), "batch": 1}


class MultiUser:
    """The two maxima over batch 2, 4, 8 ... until it no longer fits or grows.

    Which batch is best is found while warming up; the blocks repeat the best ones.
    """

    def __init__(self, engine: Engine, workload: Workload, clock: Clock) -> None:
        self._engine, self._workload, self._clock = engine, workload, clock
        self._prompt_batch = self._total_batch = 2
        self._stopped = ""

    def warm_up(self) -> None:
        best_prompt = best_total = 0.0
        for batch in self._batches():
            try:
                prompt, total = self._rates(batch)
            except Exception as problem:
                if not _is_out_of_memory(problem):
                    raise
                self._stopped = f"batch {batch} no longer fits: {problem}"
                break
            grows = prompt > best_prompt or total > best_total
            if prompt > best_prompt:
                best_prompt, self._prompt_batch = prompt, batch
            if total > best_total:
                best_total, self._total_batch = total, batch
            if not grows:
                self._stopped = f"batch {batch} no longer grows"
                break
        if best_total == 0:
            raise Void(f"no batch above 1 could run: {self._stopped or 'the largest to try is 1'}")

    def block(self) -> Figures:
        prompt = self._run(self._prompt_batch)
        prefill_s = prompt.prefill_seconds()
        total = self._run(self._total_batch)
        seconds, tokens = total.whole()
        return {
            "max_prompt_throughput/best_batch": (
                prompt.batch * self._workload.input_tokens / prefill_s
            ),
            "multi_user_throughput/prompt_and_output_tokens_best_batch": (
                (total.batch * self._workload.input_tokens + tokens) / seconds
            ),
        }

    def once(self) -> Callable[[], object]:
        return self._run(self._total_batch).whole

    def finish(self) -> None:
        run = self._run(self._total_batch)
        run.whole()
        run.check_outputs()

    def facts(self) -> dict[str, Any]:
        # the batch changes with every prefill; which ones were best stands beside
        config = {name: value for name, value in self._engine.config.items() if name != "batch"}
        return {
            "config": config,
            "prompt_batch": self._prompt_batch,
            "batch": self._total_batch,
            "search_ended": self._stopped or f"batch {self._largest} is the largest to try",
        }

    @property
    def _largest(self) -> int:
        return self._workload.batch or _LARGEST_BATCH

    def _batches(self) -> Iterator[int]:
        batch = 2
        while batch <= self._largest:
            yield batch
            batch *= 2

    def _rates(self, batch: int) -> tuple[float, float]:
        """(prompt tokens/s, all tokens/s), the better of two runs after one that warms up."""
        run = self._run(batch)
        run.whole()
        prefill_s = min(run.prefill_seconds() for _ in range(2))
        whole_s = min(run.whole()[0] for _ in range(2))
        prompt = batch * self._workload.input_tokens
        return prompt / prefill_s, (prompt + batch * self._workload.output_tokens) / whole_s

    def _run(self, batch: int) -> Generation:
        return Generation(self._engine, self._workload, batch, self._clock)


class BatchGeneration:
    """A whole batch: prompt throughput of the prefill and token throughput of the decode."""

    def __init__(self, engine: Engine, workload: Workload, clock: Clock) -> None:
        self._run = Generation(engine, workload, workload.batch, clock)
        self._engine, self._workload = engine, workload

    def warm_up(self) -> None:
        self._run.phases()

    def block(self) -> Figures:
        prefill_s, decode_s = self._run.phases()
        figures: Figures = {}
        if self._workload.shared_tokens:
            figures[_TTFT] = prefill_s
        else:
            prompt = self._run.batch * self._workload.input_tokens
            figures["prompt_throughput/batch"] = prompt / prefill_s
        if self._run.decode_steps:
            tokens = self._run.batch * self._run.decode_steps
            figures["decode_throughput/decode_steps"] = tokens / decode_s
            figures |= self._as_the_paper(prefill_s, tokens)
        return figures

    def _as_the_paper(self, first_s: float, tokens: int) -> Figures:
        """Of a shared prefix: the whole generation less one of a single token, the prefill.

        Nothing where noise made the shorter one the longer: a rate below 0 means nothing.
        """
        if not self._workload.shared_tokens:
            return {}
        left_s = self._run.whole()[0] - first_s
        return {_LESS_FIRST: tokens / left_s} if left_s > 0 else {}

    def once(self) -> Callable[[], object]:
        return self._run.phases

    def finish(self) -> None:
        self._run.check_outputs()

    def facts(self) -> dict[str, Any]:
        return {"config": dict(self._engine.config), "batch": self._run.batch}


class Call:
    """Any callable: a block is as many calls as fill 10 ms, its sample the time of one."""

    def __init__(
        self,
        function: Callable[[], object],
        clock: Clock,
        wait: Callable[[object], object] | None = None,
        tokens: int | None = None,
    ) -> None:
        self._function, self._clock, self._tokens = function, clock, tokens
        self._wait = wait or (lambda _: None)
        self._calls = 1

    def warm_up(self) -> None:
        self._span()
        while (seconds := self._rough_s()) < _BLOCK_S and self._calls < 1_000_000:
            growth = _BLOCK_S / max(seconds, _BLOCK_S / 10)
            self._calls = max(self._calls + 1, math.ceil(self._calls * growth))

    def block(self) -> Figures:
        each = elapsed(*self._span()) / self._calls
        figures = {"call_time/per_call": each}
        if self._tokens is not None:
            figures["call_throughput/tokens_per_call"] = self._tokens / each
        return figures

    def once(self) -> Callable[[], object]:
        return lambda: self._wait(self._function())

    def finish(self) -> None:
        return None

    def facts(self) -> dict[str, Any]:
        return {"calls_per_block": self._calls}

    def _rough_s(self) -> float:
        """May be 0: while warming up, a block may still be too short for the clock to see."""
        start, end = self._span()
        return 0.0 if end == start else elapsed(start, end)

    def _span(self) -> tuple[float, float]:
        """The clock before and after a block's calls and their wait."""
        function, calls = self._function, range(self._calls)
        result: object = None
        with quiet():
            start = self._clock()
            for _ in calls:
                result = function()
            self._wait(result)
            return start, self._clock()


_BY_KIND: dict[str, Callable[[Engine, Workload, Clock], Procedure]] = {
    "single_user": SingleUser,
    "multi_user": MultiUser,
    "generate": BatchGeneration,
    "shared": BatchGeneration,
    "attention": AttentionCalls,
    "needles": Needles,
}
MEASURED_KINDS = frozenset(_BY_KIND) | {"serving"}


def procedure(
    engine: Any,
    workload: Workload,
    clock: Clock = time.perf_counter,
    haystack: Path | None = None,
    timeout_s: float | None = None,
) -> Procedure:
    """The procedure for a workload's kind; JetStream's own where the engine has its slots.

    haystack: the text of needles, generated where none is given; timeout_s: how long a block may
    take, which a server's load can tell beforehand.
    """
    if workload.kind == "needles":
        return Needles(engine, workload, clock, haystack)
    if workload.kind == "serving":
        from perfsuite.serving.procedure import ServingLoad

        return ServingLoad(engine, workload, clock, timeout_s)
    if workload.document == "jetstream" and workload.kind == "generate" and has_slots(engine):
        return SlotGeneration(engine, workload, clock)
    return _BY_KIND[workload.kind](engine, workload, clock)


def _is_out_of_memory(problem: Exception) -> bool:
    """MemoryError, or what torch and XLA raise in its place, known by name, not imported."""
    return (
        isinstance(problem, MemoryError)
        or type(problem).__name__ == "OutOfMemoryError"
        or "RESOURCE_EXHAUSTED" in str(problem)
    )
