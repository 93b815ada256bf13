"""The slot engine: prefill a prompt, insert it into a slot, generate one token for all slots.

Two ways in. The slots' own: `emptied`, `prefill_one`, `insert`, `generate`, `release`; a state that
was given to `insert` or `generate` is gone. And the one that a batch is measured by: `prefill`,
`decode`, `wait`, `close`, where all prompts start together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from engines.jetstream.cache import Cache, abstract_caches
from engines.jetstream.plan import Plan
from engines.jetstream.programs import Prefix, Programs, Slots, abstract_slots
from engines.jetstream.weights import load_weights
from engines.prompts import check_ids


@dataclass(frozen=True)
class State:
    """All sequences, on the devices; the next call takes the caches. Work may be under way."""

    caches: tuple[Cache, ...]
    slots: Slots
    scores: Callable[[Any], Any]  # hidden [B, E] -> [B, V]

    @property
    def tokens(self) -> Any:
        """[B] int32, the newest of each sequence; 0 in an empty slot."""
        return self.slots.tokens

    def logits(self) -> np.ndarray[Any, Any]:
        """[B, V] float32 behind the tokens; made when asked for, waits for the device."""
        return np.asarray(self.scores(self.slots.hidden), np.float32)


@dataclass(frozen=True)
class Step:
    """A state whose sequences are all `length` tokens long, the newest included."""

    state: State
    length: int

    @property
    def tokens(self) -> Any:
        """[B] int32."""
        return self.state.tokens

    def logits(self) -> np.ndarray[Any, Any]:
        """[B, V] float32; waits for the device."""
        return self.state.logits()


class JetStream:
    """The engine of a plan; weights by Hugging Face name from numpy, or a seed to draw from."""

    def __init__(self, plan: Plan, weights: Mapping[str, Any] | int) -> None:
        self.plan, self.programs = plan, Programs(plan)
        self.weights = load_weights(plan, weights)
        self._caches = _zeros(abstract_caches(plan))  # what is not masked has been written
        self._prefills = 0
        self.config = _config(plan)

    # Slots

    def emptied(self) -> State:
        """Forget all sequences; their caches' memory is used again."""
        self._prefills = 0
        return self._state(self._caches, _zeros(abstract_slots(self.plan)))

    def prefill_one(self, token_ids: Sequence[int]) -> Prefix:
        """One prompt [T], padded to a power of two of which only the prompt counts."""
        ids = self._checked(token_ids)
        padded = np.zeros(self.plan.bucket(len(ids)), np.int32)
        padded[: len(ids)] = ids
        # Draws of prefills count down from -1 and those of steps up from 0.
        self._prefills += 1
        draw = np.int32(-self._prefills)
        return self.programs.prefill(self.weights, padded, np.int32(len(ids)), draw)

    def insert(self, prefix: Prefix, state: State, slot: int) -> State:
        """The prefix in a slot, whatever was there; `state` is gone."""
        self._check_slot(slot)
        return self._state(
            *self.programs.insert(_taken(state), state.slots, prefix, np.int32(slot))
        )

    def generate(self, state: State) -> State:
        """One more token for every slot that holds a sequence, 0 for the others; `state` is gone.

        A sequence must not grow beyond the plan's `tokens`: its logits are NaN from there on.
        """
        return self._state(*self.programs.generate(self.weights, _taken(state), state.slots))

    def release(self, state: State, slot: int) -> State:
        """The slot empty, because its sequence has ended; the others go on."""
        self._check_slot(slot)
        return replace(state, slots=self.programs.release(state.slots, np.int32(slot)))

    # A batch

    def prefill(self, token_ids: Sequence[Sequence[int]]) -> Step:
        """Forget all sequences, run these prompts one by one, produce the first token of each."""
        self._check_rows(token_ids)
        state = self.emptied()
        for slot, row in enumerate(token_ids):
            state = self.insert(self.prefill_one(row), state, slot)
        return Step(state, len(token_ids[0]) + 1)

    def decode(self, step: Step) -> Step:
        """One more token for every sequence; a step can be continued once, its caches move on."""
        if step.length > self.plan.tokens:
            raise ValueError(
                f"a sequence holds {step.length} tokens, the engine was opened for "
                f"{self.plan.tokens}: open it for more"
            )
        return Step(self.generate(step.state), step.length + 1)

    def wait(self, done: Step | State | Prefix) -> None:
        """Block until the devices have finished this."""
        state = done.state if isinstance(done, Step) else done
        jax.block_until_ready(state.slots if isinstance(state, State) else state)

    def close(self) -> None:
        """Give the memory back; the engine cannot be used any more."""
        for array in jax.tree.leaves((self.weights, self._caches)):
            array.delete()
        del self.weights, self._caches, self.programs

    def _state(self, caches: tuple[Cache, ...], slots: Slots) -> State:
        self._caches = caches
        weights, program = self.weights, self.programs.scores
        return State(caches, slots, lambda hidden: program(weights, hidden))

    def _check_slot(self, slot: int) -> None:
        if not 0 <= slot < self.plan.batch:
            raise ValueError(f"got slot {slot}, expected 0 to {self.plan.batch - 1}")

    def _check_rows(self, token_ids: Sequence[Sequence[int]]) -> None:
        lengths = sorted({len(row) for row in token_ids})
        if len(token_ids) != self.plan.batch or len(lengths) != 1:
            raise ValueError(
                f"got {len(token_ids)} prompts of {lengths} tokens, expected {self.plan.batch} "
                "of one length; slots take prompts of different lengths"
            )

    def _checked(self, token_ids: Sequence[int]) -> Any:
        ids = np.asarray(token_ids)
        if not 1 <= len(ids) <= self.plan.tokens:
            raise ValueError(
                f"got a prompt of {len(ids)} tokens, expected 1 to {self.plan.tokens}, "
                "the longest sequence that the engine was opened for"
            )
        check_ids([ids], self.plan.model.vocab_size)
        return ids


def _taken(state: State) -> Any:
    """The caches of a state; ValueError where a later one has them already."""
    first = jax.tree.leaves(state.caches)[0]
    if first.is_deleted():
        raise ValueError("this state's caches were given to a later one: continue from that one")
    return state.caches


def _zeros(abstract: Any) -> Any:
    return jax.tree.map(
        lambda like: jnp.zeros(like.shape, like.dtype, device=like.sharding), abstract
    )


def _config(plan: Plan) -> dict[str, Any]:
    """What the engine really runs with, in built-in types."""
    devices = plan.sharding.mesh.devices.ravel()
    sampling = plan.sampling
    return {
        "model": plan.model.name,
        "dtype": plan.dtype,
        "device": devices[0].device_kind,
        "devices": len(devices),
        "sharding": plan.sharding.split,
        "batch": plan.batch,
        "cache_tokens": plan.cache_tokens,
        "weights_dtype": "int8" if plan.quantize_weights else plan.dtype,
        "cache_dtype": "int8" if plan.quantize_cache else plan.dtype,
        "attention": "xla over the whole ring with a mask",
        "prefill": "one prompt at a time, padded to a power of two",
        "sampling": str(sampling) if sampling.temperature else "greedy",
    }
