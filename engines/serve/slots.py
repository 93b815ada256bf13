"""What a server needs of an engine: sequences in slots that start, step and end on their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class SlotEngine(Protocol):
    """A batch of slots. One thread calls it, one call at a time."""

    slots: int
    config: dict[str, Any]  # what it really runs with

    def cached(self, prompt: Sequence[int]) -> int:
        """Tokens at the prompt's start that are at hand and are not run; from any thread."""

    def start(self, prompts: Mapping[int, Sequence[int]]) -> Mapping[int, int]:
        """Run these prompts in these empty slots; the first token of each."""

    def step(self) -> Sequence[int]:
        """One more token for every slot that holds a sequence, by slot; any number for others."""

    def end(self, slot: int) -> None:
        """The slot is empty; the other sequences go on."""

    def warm_up(self) -> None:
        """Compile and touch what requests will need, so that none of them waits for it."""

    def close(self) -> None:
        """Give the memory back."""
