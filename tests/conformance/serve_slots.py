"""Sequences that come and go in the slots of a real engine, each judged as if it were alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engines.reference import forward
from engines.serve.slots import SlotEngine
from engines.tolerance import disagreement, error_bound

Scores = Callable[[SlotEngine, int], Any]  # (engine, slot) -> [V], behind the slot's newest token


@dataclass
class Run:
    """One sequence and what came of it; logits where the engine shows them."""

    prompt: list[int]
    tokens: list[int] = field(default_factory=list)
    logits: list[Any] = field(default_factory=list)


class Driver:
    """Slots driven step by step; `started_scores` and `scores` read logits after either call."""

    def __init__(self, engine: SlotEngine, model: Any, scores: Any) -> None:
        self.engine, self.model, self._scores = engine, model, scores
        self.busy: dict[int, Run] = {}

    def start(self, prompts: Mapping[int, Sequence[int]]) -> list[Run]:
        """These prompts in these slots, in one call."""
        first = self.engine.start(prompts)
        found = []
        for row, (slot, prompt) in enumerate(prompts.items()):
            one = Run(list(prompt), [first[slot]], [self._scores(self.engine, row, slot)])
            self.busy[slot] = one
            found.append(one)
        return found

    def step(self, times: int = 1) -> None:
        """One more token for each."""
        for _ in range(times):
            tokens = self.engine.step()
            for slot, one in self.busy.items():
                one.tokens.append(int(tokens[slot]))
                one.logits.append(self._scores(self.engine, slot, slot))

    def end(self, slot: int) -> Run:
        """The slot is empty."""
        self.engine.end(slot)
        return self.busy.pop(slot)


def prompt(length: int, seed: int, vocabulary: int = 256) -> list[int]:
    """Random token ids."""
    ids: list[int] = np.random.default_rng(seed).integers(0, vocabulary, length).tolist()
    return ids


def judge(one: Run, model: Any, weights: Any, dtype: str, **options: Any) -> str | None:
    """Why the sequence is wrong, or None: within the derived bound of the reference."""
    seen = np.array([one.prompt + one.tokens[:-1]])
    exact = forward(model, weights, seen, **options)
    bound = error_bound(model, weights, seen, dtype, exact, **options)
    last = len(one.prompt) - 1
    logits = np.array([one.logits], np.float32)
    return disagreement(logits, np.array([one.tokens]), exact[:, last:], bound[:, last:])


def judge_tokens(one: Run, model: Any, weights: Any) -> str | None:
    """Why the tokens of a float32 engine are wrong, or None, where its logits are not known."""
    seen = np.array([one.prompt + one.tokens[:-1]])
    exact = forward(model, weights, seen)
    bound = error_bound(model, weights, seen, "float32", exact)
    last = len(one.prompt) - 1
    return disagreement(exact[:, last:], np.array([one.tokens]), exact[:, last:], bound[:, last:])


def interleaved(driver: Driver, prefix: Sequence[int] = ()) -> list[Run]:
    """Prompts of different lengths that start together and apart, end, and are followed."""
    begin = list(prefix)
    all_ = driver.start({0: prompt(9, 1), 2: begin + prompt(3, 2)})
    driver.step(2)
    all_ += driver.start({1: begin + prompt(17, 3)})
    driver.step(3)
    driver.end(2)
    driver.step()
    driver.end(0)
    all_ += driver.start({0: begin + prompt(1, 4), 2: prompt(2, 5), 3: begin + prompt(5, 6)})
    driver.step(4)
    for slot in (1, 3):
        driver.end(slot)
    driver.step(2)
    all_ += driver.start({1: prompt(20, 7)})
    driver.step(3)
    return all_
