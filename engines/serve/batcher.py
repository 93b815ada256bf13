"""Continuous batching: one thread owns the engine, requests come and go between its steps.

Requests wait in a bounded queue. Before each step those that were given up leave their slots, and
those that wait take free ones, at most PREFILL_TOKENS of prompts at a time, so that sequences
under way never wait for the whole queue. Every request hears of its end exactly once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from engines.serve.slots import SlotEngine

PREFILL_TOKENS = 2048  # of the prompts that start between two steps; one longer prompt goes alone


class Full(Exception):
    """All slots and all places of the queue are taken."""


class Closed(Exception):
    """The server is stopping, or its engine has failed; says which."""


@dataclass(eq=False)
class Ticket:
    """One request on its way through the batch."""

    prompt: Sequence[int]
    max_tokens: int
    stops: frozenset[int]  # tokens that end the answer
    mailbox: Any = None  # whatever `tell` needs to find who asked
    made: int = 0
    given_up: bool = False


class News(NamedTuple):
    """A token, how the answer ended, or both: "length", "stop" or "error: ...", else ""."""

    ticket: Ticket
    token: int | None
    finish: str


@dataclass
class Batcher:
    """The queue and the thread, which calls `tell` with the news of each step, `ended` at last."""

    engine: SlotEngine
    queue: int
    tell: Callable[[list[News]], None]
    ended: Callable[[], None] = lambda: None
    failure: str = ""
    steps: int = 0
    _waiting: deque[Ticket] = field(default_factory=deque)
    _running: dict[int, Ticket] = field(default_factory=dict)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _closed: str = ""
    _aborted: str = ""
    _thread: threading.Thread | None = None

    # Any thread

    def begin(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, ticket: Ticket) -> None:
        """Take the request in; Full or Closed where it can not be."""
        with self._changed:
            if self._closed:
                raise Closed(self._closed)
            if len(self._waiting) + len(self._running) >= self.engine.slots + self.queue:
                raise Full(
                    f"{self.engine.slots} slots are busy and {self.queue} requests wait: "
                    "try again later"
                )
            self._waiting.append(ticket)
            self._changed.notify()

    def give_up(self, ticket: Ticket) -> None:
        """Nobody waits for this answer; without effect on one that has ended."""
        with self._changed:
            ticket.given_up = True
            if ticket in self._waiting:
                self._waiting.remove(ticket)

    def close(self) -> None:
        """Take no more requests; those that were taken are answered, then the thread ends."""
        with self._changed:
            self._closed = self._closed or "the server is stopping"
            self._changed.notify()

    def abort(self, why: str) -> None:
        """End all requests now, as failed for this reason, and the thread with them."""
        with self._changed:
            self._closed = self._closed or why
            self._aborted = self._aborted or why
            self._changed.notify()

    def join(self) -> None:
        """Wait for the thread's end."""
        if self._thread is not None:
            self._thread.join()

    @property
    def running(self) -> int:
        """Slots that hold a sequence."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Requests without a slot."""
        return len(self._waiting)

    # The engine's thread

    def _run(self) -> None:
        try:
            while self._has_work():
                self._free_given_up()
                self._start(self._admitted())
                self._step()
            self._end_all(self._aborted)
        except Exception as problem:  # noqa: BLE001  (whatever an engine raises ends the service)
            self.failure = f"the engine failed: {type(problem).__name__}: {problem}"
            self.abort(self.failure)
            self._end_all(self.failure)
        finally:
            self.ended()

    def _has_work(self) -> bool:
        """Wait for some; False where there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._running or self._closed)
            return not self._aborted and bool(self._waiting or self._running)

    def _free_given_up(self) -> None:
        for slot, ticket in list(self._running.items()):
            if ticket.given_up:
                self._free(slot)

    def _admitted(self) -> dict[int, Ticket]:
        """Waiting requests in the lowest free slots."""
        taken: dict[int, Ticket] = {}
        tokens = 0
        with self._changed:
            free = (slot for slot in range(self.engine.slots) if slot not in self._running)
            for slot in free:
                if not self._waiting:
                    break
                tokens += len(self._waiting[0].prompt)
                if taken and tokens > PREFILL_TOKENS:
                    break
                taken[slot] = self._waiting.popleft()
            self._running.update(taken)
        return taken

    def _start(self, taken: dict[int, Ticket]) -> None:
        if taken:
            prompts = {slot: ticket.prompt for slot, ticket in taken.items()}
            self._hand_out(self.engine.start(prompts), taken)

    def _step(self) -> None:
        if self._running:
            tokens = self.engine.step()
            running = dict(self._running)
            self.steps += 1
            self._hand_out({slot: tokens[slot] for slot in running}, running)

    def _hand_out(self, tokens: Mapping[int, int], running: Mapping[int, Ticket]) -> None:
        news = []
        for slot, ticket in running.items():
            token = int(tokens[slot])
            ticket.made += 1
            finish = _finish(ticket, token)
            news.append(News(ticket, token, finish))
            if finish:
                self._free(slot)
        self.tell(news)

    def _free(self, slot: int) -> None:
        self.engine.end(slot)
        with self._changed:
            del self._running[slot]

    def _end_all(self, why: str) -> None:
        """Those that are left, which are none after an orderly end."""
        with self._changed:
            left = [*self._running.values(), *self._waiting]
            self._running.clear()
            self._waiting.clear()
        self.tell([News(ticket, None, f"error: {why}") for ticket in left])


def _finish(ticket: Ticket, token: int) -> str:
    if token in ticket.stops:
        return "stop"
    return "length" if ticket.made >= ticket.max_tokens else ""
