"""Asyncio in front of the batch: an answer is iterated over, and given up when it is left."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from engines.serve.batcher import Batcher, News, Ticket
from engines.serve.slots import SlotEngine

STUCK_S = 5.0


class Failed(Exception):
    """The answer ended early, and the reason is the server's."""


class Answer:
    """The tokens of one request, as they come."""

    def __init__(self, ticket: Ticket) -> None:
        self._news: asyncio.Queue[News] = ticket.mailbox
        self._ended = False

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> tuple[list[int], str]:
        """All tokens that have come and are not taken yet, at least one, and how it ended or "".

        A client that reads slowly gets many at once; memory is bounded by the answer's length.
        """
        if self._ended:
            raise StopAsyncIteration
        news = [await self._news.get()]
        while not self._news.empty():
            news.append(self._news.get_nowait())
        finish = news[-1].finish
        if finish.startswith("error: "):
            raise Failed(finish.removeprefix("error: "))
        self._ended = bool(finish)
        return [each.token for each in news if each.token is not None], finish


@dataclass(frozen=True)
class Load:
    """What the batch does now, for the health check."""

    slots: int
    running: int
    waiting: int
    steps: int


class Front:
    """The batch of an engine, for the event loop that makes this."""

    def __init__(self, engine: SlotEngine, queue: int) -> None:
        self._loop = asyncio.get_running_loop()
        self.ended = asyncio.Event()  # the engine's thread is gone
        self._batcher = Batcher(engine, queue, self._hear, self._hear_end)
        self._slots = engine.slots
        self.cached = engine.cached
        self._batcher.begin()

    @contextmanager
    def ask(
        self, prompt: Sequence[int], max_tokens: int, stops: frozenset[int]
    ) -> Iterator[Answer]:
        """An answer to iterate over; its slot is freed where the block is left before its end.

        Full and Closed come before anything is answered.
        """
        ticket = Ticket(prompt, max_tokens, stops, mailbox=asyncio.Queue())
        self._batcher.submit(ticket)
        try:
            yield Answer(ticket)
        finally:
            self._batcher.give_up(ticket)

    @property
    def failure(self) -> str:
        """Why the engine can not answer any more, or ""."""
        return self._batcher.failure

    @property
    def load(self) -> Load:
        """Now."""
        batcher = self._batcher
        return Load(self._slots, batcher.running, batcher.waiting, batcher.steps)

    def close(self) -> None:
        """Take no more requests; those under way are answered."""
        self._batcher.close()

    async def drained(self, grace_s: float) -> None:
        """Wait for all answers, at most so long; then those that are left fail.

        An engine that is stuck in a call is waited for as long again as STUCK_S.
        """
        self.close()
        for patience in (grace_s, STUCK_S):
            with suppress(TimeoutError):
                await asyncio.wait_for(self.ended.wait(), patience)
                return
            self.abort("the server was stopped before this answer was complete")

    def abort(self, why: str) -> None:
        """End all answers now."""
        self._batcher.abort(why)

    def _hear(self, news: list[News]) -> None:
        """In the engine's thread: one wake of the loop for all news of a step."""
        self._loop.call_soon_threadsafe(_deliver, news)

    def _hear_end(self) -> None:
        self._loop.call_soon_threadsafe(self.ended.set)


def _deliver(news: list[News]) -> None:
    for each in news:
        if not each.ticket.given_up:
            each.ticket.mailbox.put_nowait(each)
