"""JetStream's offline benchmark: every slot is prefilled by itself, then all decode together.

As jetstream-pytorch's `benchmark_offline` takes it, with both of its maxima, but for what made its
numbers wrong: warm-ups are waited for, so that nothing of them falls into the clock; prefilling and
inserting are timed apart; prompts have as many tokens as the workload says, not six in a padded
bucket; all slots are filled before a step is timed; the lengths are the workload's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeGuard

from perfsuite.generation import Clock, Figures, check_logits, counted, quiet
from perfsuite.intervals import elapsed
from perfsuite.prompts import prompts
from perfsuite.protocols import Engine, SlotEngine
from perfsuite.workloads import Workload

_METHODS = ("emptied", "prefill_one", "insert", "generate")


class Seconds(NamedTuple):
    """Of one pass: all prefills, all inserts, all decode steps."""

    prefill: float
    insert: float
    decode: float


class SlotGeneration:
    """Fill the slots one after the other, then decode them all, a wait for every call."""

    def __init__(self, engine: SlotEngine, workload: Workload, clock: Clock) -> None:
        self._engine, self._workload, self._clock = engine, workload, clock
        self._prompts = prompts(workload.model.vocab_size, workload.batch, workload.input_tokens)
        self._state: Any = None

    def warm_up(self) -> None:
        """Every shape that a block uses."""
        self._pass()

    def block(self) -> Figures:
        """One pass over all slots."""
        batch, output = self._workload.batch, self._workload.output_tokens
        seconds = self._pass()
        figures = {
            "prompt_throughput/one_sequence_at_a_time": (
                batch * self._workload.input_tokens / seconds.prefill
            ),
            "insert_time/one_slot": seconds.insert / batch,
        }
        if output > 1:
            step = seconds.decode / (output - 1)
            serial = seconds.prefill + seconds.insert + output * step
            figures["decode_step_time/all_slots_filled"] = step
            figures["max_throughput/decode_only"] = batch / step
            figures["max_throughput/serial_prefill_and_decode"] = batch * output / serial
        return figures

    def once(self) -> Callable[[], object]:
        """A pass, for the memory."""
        return self._pass

    def finish(self) -> None:
        """Raise Void when the last step's logits are wrong."""
        check_logits(self._state, self._workload.batch, self._workload.model.vocab_size)

    def facts(self) -> dict[str, Any]:
        """What ran."""
        return {"config": dict(self._engine.config), "batch": self._workload.batch}

    def _pass(self) -> Seconds:
        engine, clock = self._engine, self._clock
        prefill = insert = decode = 0.0
        with quiet():
            state = engine.emptied()
            engine.wait(state)
            for slot, prompt in enumerate(self._prompts):
                start = clock()
                engine.wait(prefix := engine.prefill_one(prompt))
                between = clock()
                engine.wait(state := engine.insert(prefix, state, slot))
                insert += elapsed(between, clock())
                prefill += elapsed(start, between)
            tokens = [state.tokens]
            for _ in range(self._workload.output_tokens - 1):
                start = clock()
                engine.wait(state := engine.generate(state))
                decode += elapsed(start, clock())
                tokens.append(state.tokens)
        counted(tokens, self._workload.batch * self._workload.output_tokens)
        self._state = state
        return Seconds(prefill, insert, decode)


def has_slots(engine: Engine) -> TypeGuard[SlotEngine]:
    """Whether an engine offers all that a slot engine does."""
    return all(hasattr(engine, name) for name in _METHODS)
