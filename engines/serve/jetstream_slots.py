"""The JetStream engine as the server wants it: its slots are already what is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engines.jetstream.engine import JetStream
from engines.jetstream.plan import SMALLEST_BUCKET


class JetStreamSlots:
    """One prompt is run at a time; a cache shorter than the text rolls."""

    def __init__(self, engine: JetStream, input_tokens: int) -> None:
        self._engine, self._input_tokens = engine, input_tokens
        self.slots: int = engine.plan.batch
        self.config: dict[str, Any] = engine.config
        self._state = engine.emptied()

    def cached(self, prompt: Sequence[int]) -> int:  # noqa: ARG002
        """Nothing is kept from one prompt to the next."""
        return 0

    def start(self, prompts: Mapping[int, Sequence[int]]) -> Mapping[int, int]:
        """As SlotEngine says."""
        prefixes = {slot: self._engine.prefill_one(prompt) for slot, prompt in prompts.items()}
        for slot, prefix in prefixes.items():
            self._state = self._engine.insert(prefix, self._state, slot)
        return {slot: int(prefix.token[0]) for slot, prefix in prefixes.items()}

    def step(self) -> Sequence[int]:
        """As SlotEngine says."""
        self._state = self._engine.generate(self._state)
        tokens: list[int] = np.asarray(self._state.tokens).tolist()
        return tokens

    def end(self, slot: int) -> None:
        """As SlotEngine says."""
        self._state = self._engine.release(self._state, slot)

    def warm_up(self) -> None:
        """Compile the prefill of every bucket, and a step."""
        lengths = {self._input_tokens}
        length = SMALLEST_BUCKET
        while length < self._input_tokens:
            lengths.add(length)
            length *= 2
        for length in sorted(lengths):
            self.start({0: [0] * length})
            self.end(0)
        self.start({0: [0]})
        self.step()
        self._state = self._engine.emptied()

    def close(self) -> None:
        """As SlotEngine says."""
        self._engine.close()
