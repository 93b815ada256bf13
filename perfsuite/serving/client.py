"""Sends requests when they are due and stamps what comes back. Touches the clock and a connection.

Open loop: every request has a task of its own, started at its moment whatever the others do.
Closed loop: one task for each user. A request that fails is not tried again, so that a failure is a
failure. A client that could not keep its schedule makes the run VOID (`lateness`); a server that
is gone ends it with what was measured.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from perfsuite.adapters import Adapter, Event, RequestFailed
from perfsuite.errors import EngineUnavailable, OptionError
from perfsuite.serving.arrivals import Arrivals, ClosedLoop, on_schedule
from perfsuite.serving.lateness import late_client
from perfsuite.serving.request import Record, Request

Clock = Callable[[], float]
Result = TypeVar("Result")

PROBE_S = 3.0  # a server that dropped a request and does not answer for so long is gone
ENDLESS = 4  # events for each token that was asked for: an answer of more will not end
CUT_OFF = "cut off"  # the failure of requests that were under way when the run ended


@dataclass(frozen=True)
class Outcome:
    """What a load gave. The figures mean nothing where `void` says why."""

    arrivals: str  # what the load was: "Poisson, 2 requests/s"
    records: tuple[Record, ...]  # in the order in which requests were started
    unsent: int  # requests that were never started, because the run ended before
    ended: str  # why it ended before its time, or ""
    busy_share: float  # of one processor, that the client's thread used
    void: str  # why the client is to blame for what was measured, or ""
    clients: int = 1  # processes that sent it


async def offer(
    adapter: Adapter,
    requests: Sequence[Request],
    arrivals: Arrivals,
    clock: Clock = time.perf_counter,
    start_s: float | None = None,
) -> Outcome:
    """Run the load on an adapter that is open, which stays open. OptionError without requests.

    start_s is the clock's reading at which the load starts: now, unless several processes share it.
    """
    if not requests:
        raise OptionError("a load of no requests: expected one at least")
    load = _Load(adapter, clock)
    with settled():
        await load.wait_for(start_s)
        start, used = clock(), time.thread_time()
        await load.until_gone(load.of(requests, arrivals, start_s))
        busy_share = (time.thread_time() - used) / max(clock() - start, 1e-9)
    records = tuple(load.records)
    return Outcome(
        arrivals.name,
        records,
        unsent=len(requests) - len(records),
        ended=load.ended,
        busy_share=busy_share,
        void=late_client(records, busy_share),
    )


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine on uvloop; EngineUnavailable where it is not installed."""
    try:
        import uvloop
    except ImportError:
        main.close()
        raise EngineUnavailable(
            "a load needs uvloop, which is not installed\npip install 'perfsuite[serving]'"
        ) from None
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


class _Load:
    """The requests of one run, and whether the server is still there."""

    def __init__(self, adapter: Adapter, clock: Clock) -> None:
        self._adapter, self._clock = adapter, clock
        self.records: list[Record] = []
        self.ended = ""
        self._gone = asyncio.Event()
        self._probe: asyncio.Task[None] | None = None

    async def until_gone(self, sending: Coroutine[Any, Any, None]) -> None:
        """All of it, or as much as comes before the server is gone."""
        work = asyncio.ensure_future(sending)
        gone = asyncio.ensure_future(self._gone.wait())
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            work.cancel()
            gone.cancel()
            await asyncio.wait({work, gone})
        if not work.cancelled():
            work.result()  # raises what is no failure of a request, but a defect

    async def wait_for(self, start_s: float | None) -> None:
        """Until the load starts."""
        if start_s is not None:
            await self._until(start_s)

    async def of(
        self, requests: Sequence[Request], arrivals: Arrivals, start_s: float | None
    ) -> None:
        """Send all of them."""
        if isinstance(arrivals, ClosedLoop):
            await self._users(requests, arrivals.users)
        else:
            start = self._clock() if start_s is None else start_s
            await self._scheduled(on_schedule(requests, arrivals), start)

    async def _scheduled(self, requests: Iterable[Request], start: float) -> None:
        """Each request at its moment, in a task of its own."""
        with _plain_errors():
            async with asyncio.TaskGroup() as tasks:
                for request in sorted(requests, key=lambda request: request.arrival_s):
                    due = start + request.arrival_s
                    await self._until(due)
                    tasks.create_task(self._one(request, due))

    async def _users(self, requests: Sequence[Request], users: int) -> None:
        """So many tasks, each of which takes the next request when it is free."""
        waiting = iter(requests)
        with _plain_errors():
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(users, len(requests))):
                    tasks.create_task(self._user(waiting))

    async def _user(self, waiting: Iterator[Request]) -> None:
        for request in waiting:
            await self._one(request, self._clock())

    async def _until(self, due: float) -> None:
        """Timers have a millisecond and may be early: what is left is waited for again."""
        while (left := due - self._clock()) > 0:
            await asyncio.sleep(left)

    async def _one(self, request: Request, due: float) -> None:
        record = Record(request, due, self._clock())
        self.records.append(record)
        try:
            await self._answered(record)
        except RequestFailed as failed:
            record.failure = str(failed)
            record.finished_s = self._clock()
            if failed.kind in RequestFailed.LOST:
                await self._check_server(str(failed))
        except asyncio.CancelledError:
            if not record.finished_s:
                record.failure, record.finished_s = CUT_OFF, self._clock()
            raise

    async def _answered(self, record: Record) -> None:
        """Stamp every event; the stream is read to its end, so that its connection is free."""
        most = ENDLESS * max(record.request.max_tokens, 16)
        async with aclosing(self._adapter.send(record.request)) as events:
            async for event in events:
                _note(record, event, self._clock() if event.arrived_s is None else event.arrived_s)
                if len(record.token_s) > most:
                    raise RequestFailed("endless", f"over {most} events")
        if not record.finished_s:
            raise RequestFailed("early end", "the answer ended without an end")
        if not record.token_s:
            raise RequestFailed("empty answer", "no output came")

    async def _check_server(self, failure: str) -> None:
        """One look at the server for all requests that fail at a time."""
        if self._probe is None or self._probe.done():
            self._probe = asyncio.ensure_future(self._look(failure))
        await asyncio.shield(self._probe)

    async def _look(self, failure: str) -> None:
        try:
            async with asyncio.timeout(PROBE_S):
                await self._adapter.open()
        except (EngineUnavailable, TimeoutError) as error:
            why = str(error) or f"no answer within {PROBE_S:g} s"
            self.ended = f"the server is gone: {why}\nthe first request that told: {failure}"
            self._gone.set()


def _note(record: Record, event: Event, now: float) -> None:
    """What an event says, with its stamp; one that brought nothing says nothing."""
    known = record.token_s[-1][1] if record.token_s else None
    if event.text:
        record.texts.append(event.text)
    record.token_ids += event.token_ids
    if event.done:
        record.finished_s = now
        record.input_tokens, record.output_tokens = event.usage or (None, known)
    elif event.tokens == 0:
        record.sent_s = now
    elif event.tokens is None or event.tokens > (known or 0):
        record.token_s.append((now, event.tokens))


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Of several tasks that raised, the first: it says what was wrong without a tree."""
    try:
        yield
    except ExceptionGroup as several:
        raise several.exceptions[0] from None


@contextmanager
def settled() -> Iterator[None]:
    """What was made before the load is no garbage: the collector need not look at it again."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
