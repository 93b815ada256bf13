"""Time that passes only when nothing is left to do, and engines that answer as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

import pytest

from perfsuite.adapters import Event, RequestFailed
from perfsuite.errors import EngineUnavailable
from perfsuite.serving.client import Outcome, offer
from perfsuite.serving.request import Record, Request


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        timers = [timer.when() for timer in self._scheduled if not timer.cancelled()]
        if not self._ready and timers:
            self.now = max(self.now, min(timers))
        super()._run_once()


def now() -> float:
    return asyncio.get_running_loop().time()


class FakeEngine:
    """Tokens at fixed times on the loop's clock. What goes wrong is set from outside."""

    def __init__(self, first_s: float = 0.05, each_s: float = 0.005) -> None:
        self.first_s, self.each_s = first_s, each_s
        self.sent: list[Request] = []
        self.under_way = self.most_under_way = 0
        self.before: Callable[[Request], Awaitable[None]] | None = None  # runs before the writing
        self.fails: Callable[[Request], RequestFailed | None] = lambda request: None
        self.gone_at = float("inf")
        self.stall = (float("inf"), float("inf"))  # no token leaves between these moments
        self.usage = True
        self.counted = True

    async def open(self) -> None:
        if now() >= self.gone_at:
            raise EngineUnavailable("nobody listens")

    async def close(self) -> None:
        pass

    async def send(self, request: Request) -> AsyncGenerator[Event, None]:
        self.sent.append(request)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if self.before:
                await self.before(request)
            self._alive()
            yield Event(tokens=0)
            if failure := self.fails(request):
                raise failure
            for token in range(request.max_tokens):
                await asyncio.sleep(self.each_s if token else self.first_s)
                if self.stall[0] <= now() < self.stall[1]:
                    await asyncio.sleep(self.stall[1] - now())
                self._alive()
                yield Event(token + 1 if self.counted else None, "a")
            usage = (len(request.prompt), request.max_tokens)
            yield Event(done=True, usage=usage if self.usage else None)
        finally:
            self.under_way -= 1

    def _alive(self) -> None:
        if now() >= self.gone_at:
            raise RequestFailed("connection", "reset by peer")


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def requests() -> Callable[..., list[Request]]:
    def make(count: int, tokens: int = 4) -> list[Request]:
        return [Request(number, (number, 1), tokens) for number in range(count)]

    return make


@pytest.fixture
def offered() -> Callable[..., Outcome]:
    """The outcome of a load in virtual time; `took_s` tells how much of it passed."""

    def run(
        adapter: Any, asked: Sequence[Request], arrivals: Any, start_s: float | None = None
    ) -> Outcome:
        async def main() -> Outcome:
            start = now()
            outcome = await offer(adapter, asked, arrivals, clock=now, start_s=start_s)
            run.took_s = now() - start
            leftover = asyncio.all_tasks() - {asyncio.current_task()}
            assert not leftover, leftover
            return outcome

        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(main())

    return run


@pytest.fixture
def make_record() -> Callable[..., Record]:
    """A request due at 10 s, sent 1 ms later, four tokens at 10.05 s and every 10 ms."""

    def make(**changes: Any) -> Record:
        fields: dict[str, Any] = {
            "request": Request(0, (1, 2, 3), 4),
            "intended_s": 10.0,
            "sent_s": 10.001,
            "token_s": [(10.05, 1), (10.06, 2), (10.07, 3), (10.08, 4)],
            "finished_s": 10.081,
            "output_tokens": 4,
            "input_tokens": 3,
        }
        return Record(**{**fields, **changes})

    return make
