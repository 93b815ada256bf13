"""What a `perf(...)` call tells the process that judges, and how blocks are asked for.

In a worker it goes over the pipe and every block is asked for; with --perf-in-process the same
calls end in a list.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from perfsuite.pipe import Pipe
from perfsuite.sampling import Block, Measured, take_blocks


class Conversation(Protocol):
    """Where a perf fixture reports to."""

    first: bool  # whether this is the process that also checks outputs and takes memory
    slow: float | None  # share of its time by which what is measured is slowed, if it is

    def blocks(self, part: str, block: Callable[[], Block]) -> None:
        """Run blocks for as long as they are wanted."""

    def done(self, part: str, once: Block, facts: dict[str, Any]) -> None:
        """The call is over: figures that were taken once, and what ran."""

    def void(self, reason: str) -> None:
        """The contract was broken."""


class PipeConversation:
    """A worker's side: blocks are run one by one as the pytest process asks."""

    def __init__(self, pipe: Pipe, first: bool, slow: float | None = None) -> None:
        self._pipe, self.first, self.slow = pipe, first, slow

    def blocks(self, part: str, block: Callable[[], Block]) -> None:
        """Announce readiness, then answer until told to stop."""
        self._pipe.send({"say": "ready", "part": part})
        while self._pipe.receive()["do"] == "block":
            self._pipe.send({"say": "block", "figures": block()})

    def done(self, part: str, once: Block, facts: dict[str, Any]) -> None:
        self._pipe.send({"say": "measured", "part": part, "once": once, "facts": facts})

    def void(self, reason: str) -> None:
        self._pipe.send({"say": "void", "reason": reason})


class InProcessConversation:
    """The same calls without a second process, for debuggers."""

    first = True

    def __init__(self, budget_s: float, slow: float | None = None) -> None:
        self._budget_s, self.slow = budget_s, slow
        self.measured: dict[str, Measured] = {}
        self.void_reason = ""

    def blocks(self, part: str, block: Callable[[], Block]) -> None:
        taken = take_blocks(block, self._budget_s, time.monotonic)
        self.measured[part] = Measured(blocks=taken)

    def done(self, part: str, once: Block, facts: dict[str, Any]) -> None:
        call = self.measured.setdefault(part, Measured())
        call.once, call.facts = once, facts

    def void(self, reason: str) -> None:
        self.void_reason = reason
