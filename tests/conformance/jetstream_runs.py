"""Runs of the JetStream engine that its tests share: a batch, and sequences that come and go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from engines.jetstream.checking import judged
from engines.jetstream.engine import JetStream
from engines.jetstream.plan import Plan
from engines.jetstream.sharding import sharding_over
from engines.weights import seeded_weights


def opened(
    model: Any,
    *,
    devices: Sequence[Any] | None = None,
    on_batch: bool = False,
    batch: int = 2,
    cache_tokens: int = 32,
    tokens: int = 32,
    dtype: str = "float32",
    **options: Any,
) -> JetStream:
    """An engine on one CPU device, or on those given; float32 unless said otherwise."""
    chosen = jax.devices("cpu")[:1] if devices is None else devices
    sharding = sharding_over(chosen, model, batch=batch, on_batch=on_batch)
    plan = Plan(model, sharding, batch, cache_tokens, tokens, dtype, **options)
    return JetStream(plan, seeded_weights(model, dtype))


def prompts(engine: JetStream, time: int, seed: int = 0) -> Any:
    """[B, time] token ids."""
    size = (engine.plan.batch, time)
    return np.random.default_rng(seed).integers(0, engine.plan.model.vocab_size, size)


def continued(engine: JetStream, ids: Any, decodes: int) -> tuple[Any, Any]:
    """Tokens [B, steps] and logits [B, steps, V] of a prefill and its decodes."""
    steps = [engine.prefill(ids.tolist())]
    for _ in range(decodes):
        steps.append(engine.decode(steps[-1]))
    engine.wait(steps[-1])
    tokens = np.stack([np.asarray(step.tokens) for step in steps], axis=1)
    return tokens, np.stack([step.logits() for step in steps], axis=1)


def verdict(engine: JetStream, ids: Any, decodes: int) -> str | None:
    """Why a batch's outputs are wrong, or None."""
    weights = seeded_weights(engine.plan.model, engine.plan.dtype)
    return judged(engine.plan, weights, ids, *continued(engine, ids, decodes))


@dataclass
class Running:
    """One sequence in a slot and what came of it."""

    prompt: Any
    tokens: list[int] = field(default_factory=list)
    logits: list[Any] = field(default_factory=list)


class Seats:
    """Slots of an engine, driven step by step."""

    def __init__(self, engine: JetStream) -> None:
        self.engine, self.state = engine, engine.emptied()
        self.running: dict[int, Running] = {}

    def start(self, slot: int, length: int, seed: int) -> Running:
        """A prompt of `length` tokens in the slot."""
        vocabulary = self.engine.plan.model.vocab_size
        one = Running(np.random.default_rng(seed).integers(0, vocabulary, length))
        prefix = self.engine.prefill_one(one.prompt)
        self.state = self.engine.insert(prefix, self.state, slot)
        one.tokens.append(int(self.state.tokens[slot]))
        one.logits.append(self.state.logits()[slot])
        self.running[slot] = one
        return one

    def end(self, slot: int) -> None:
        """The sequence has ended; its slot is empty."""
        self.state = self.engine.release(self.state, slot)
        del self.running[slot]

    def step(self, times: int = 1) -> None:
        """One more token for all that run, and none for the others."""
        for _ in range(times):
            self.state = self.engine.generate(self.state)
            logits, tokens = self.state.logits(), np.asarray(self.state.tokens)
            for slot, one in self.running.items():
                one.tokens.append(int(tokens[slot]))
                one.logits.append(logits[slot])
            empty = sorted(set(range(self.engine.plan.batch)) - set(self.running))
            assert not tokens[empty].any()

    def judge(self, one: Running) -> str | None:
        """Why a sequence's outputs are wrong, or None: each as if it had been alone."""
        plan = self.engine.plan
        weights = seeded_weights(plan.model, plan.dtype)
        tokens, logits = np.array([one.tokens]), np.array([one.logits])
        return judged(plan, weights, one.prompt[None], tokens, logits)
