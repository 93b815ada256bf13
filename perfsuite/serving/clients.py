"""A load sent by several processes, where one can not keep up.

The schedule is dealt out in turn, a closed loop's users likewise. All processes read one monotonic
clock and start at one moment of it. Their records are one load, and it is judged as one: VOID where
too many of its requests were late, as for a single client, or where one process was never idle.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import IO, Any

from perfsuite.adapters import Adapter
from perfsuite.errors import OptionError, PerfError, Void
from perfsuite.pipe import Pipe, PipeClosed, Silence
from perfsuite.serving.arrivals import Arrivals, ClosedLoop, on_schedule
from perfsuite.serving.client import Outcome
from perfsuite.serving.lateness import late_client
from perfsuite.serving.request import Record, Request
from perfsuite.serving.sender import from_list

# What one process kept up with on two cores that others used too, and not with twice as much: see
# `bench/serving.py --only capacity`. On idle ones it is about three times that.
REQUESTS_PER_S, TOKENS_PER_S = 500, 5000
MOST = 64
_READY_S = 60.0  # to start an interpreter and to find the server
_LEAST = 50  # requests of a process: of fewer, its start would be a large part
_LEAD_S, _LEAD_EACH_S = 0.2, 0.02  # from telling all of them when to start until that moment
_LOG = 2000  # characters of what a process printed at last


def needed(requests: Sequence[Request], arrivals: Arrivals) -> int:
    """Processes that the planned rate needs; one where nothing is planned: a burst, a closed loop.

    A token is an event to be read and stamped, so both rates count.
    """
    times = () if isinstance(arrivals, ClosedLoop) else arrivals.times_s[: len(requests)]
    seconds = times[-1] - times[0] if times else 0.0
    if seconds <= 0:
        return 1
    tokens = sum(request.max_tokens for request in requests)
    most = max(len(requests) / REQUESTS_PER_S, tokens / TOKENS_PER_S) / seconds
    return max(1, min(math.ceil(most), MOST, len(requests) // _LEAST))


def offered(
    adapter: Adapter, requests: Sequence[Request], arrivals: Arrivals, count: int
) -> Outcome:
    """The outcome of a load that `count` processes send; as `client.offer`, with `clients` set.

    OptionError for an adapter that no other process can open, and where one does not find the
    server. One that breaks later leaves the records of the others, and `ended` says why.
    """
    elsewhere = getattr(adapter, "elsewhere", None)
    if elsewhere is None:
        raise OptionError(
            f"--perf-clients={count}: {type(adapter).__name__} can not be opened in another process"
            " (it has no `elsewhere`)\nsend the load by one"
        )
    shares = _dealt(requests, arrivals, count)
    with ExitStack() as stack:
        senders = [stack.enter_context(_Sender()) for _ in shares]
        for sender, (share, users) in zip(senders, shares, strict=True):
            sender.tell(elsewhere(), share, arrivals.name, users)
        for sender in senders:
            sender.wait_until_ready()
        start_s = time.perf_counter() + _LEAD_S + _LEAD_EACH_S * len(senders)
        for sender in senders:
            sender.start(start_s)
        outcomes = [sender.outcome(arrivals.name) for sender in senders]
    return together(outcomes)


def _dealt(
    requests: Sequence[Request], arrivals: Arrivals, count: int
) -> list[tuple[list[Request], int]]:
    """The requests of each process, in turn, and its users where these are a closed loop."""
    if isinstance(arrivals, ClosedLoop):
        count = min(count, arrivals.users, len(requests))
        users = [len(range(first, arrivals.users, count)) for first in range(count)]
        return [(list(requests[first::count]), users[first]) for first in range(count)]
    due = sorted(on_schedule(requests, arrivals), key=lambda request: request.arrival_s)
    count = min(count, len(due))
    return [(due[first::count], 0) for first in range(count)]


def together(outcomes: Sequence[Outcome]) -> Outcome:
    """One outcome of several, judged as one load."""
    records = sorted((r for o in outcomes for r in o.records), key=lambda record: record.sent_s)
    busy_share = max(outcome.busy_share for outcome in outcomes)
    return Outcome(
        outcomes[0].arrivals,
        tuple(records),
        unsent=sum(outcome.unsent for outcome in outcomes),
        ended=next((outcome.ended for outcome in outcomes if outcome.ended), ""),
        busy_share=busy_share,
        void=late_client(records, busy_share),
        clients=len(outcomes),
    )


class _Sender:
    """One process and the pipe to it; ended when the block is left."""

    def __enter__(self) -> _Sender:
        self._log: IO[bytes] = tempfile.TemporaryFile()
        their_read, our_write = os.pipe()
        our_read, their_write = os.pipe()
        self._pipe = Pipe(our_read, our_write)
        path = os.pathsep.join(entry for entry in sys.path if isinstance(entry, str) and entry)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "perfsuite.serving.sender", f"{their_read},{their_write}"],
            pass_fds=(their_read, their_write), env=os.environ | {"PYTHONPATH": path},
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        os.close(their_read)
        os.close(their_write)
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
        self._pipe.close()
        self._log.close()

    def tell(
        self, elsewhere: tuple[str, dict[str, Any]], requests: list[Request], name: str, users: int
    ) -> None:
        """What to open, and what to send."""
        self._requests = {request.id: request for request in requests}
        adapter, arguments = elsewhere
        with suppress(PipeClosed):  # its death is told where its answer is awaited
            self._pipe.send({
                "adapter": adapter, "arguments": arguments, "name": name, "users": users,
            })  # fmt: skip
            for asked in requests:
                fields = [asked.id, asked.prompt, asked.max_tokens, asked.arrival_s]
                self._pipe.send({"request": fields})
            self._pipe.send({"do": "open"})

    def wait_until_ready(self) -> None:
        """Until it has found the server."""
        self._hear(_READY_S)

    def start(self, at_s: float) -> None:
        """Start the load at this reading of the clock."""
        with suppress(PipeClosed):
            self._pipe.send({"do": "start", "at_s": at_s})

    def outcome(self, name: str) -> Outcome:
        """What became of its requests; how far it came where it broke."""
        records: list[Record] = []
        try:
            while (answer := self._hear(None))["say"] == "record":
                records.append(from_list(answer["record"], self._requests))
        except PerfError as problem:
            unsent = len(self._requests) - len(records)
            answer = {"unsent": unsent, "ended": str(problem), "busy_share": 0.0}
        return Outcome(
            name, tuple(records), answer["unsent"], answer["ended"], answer["busy_share"], void=""
        )

    def _hear(self, timeout_s: float | None) -> dict[str, Any]:
        try:
            answer = self._pipe.receive(timeout_s)
        except (PipeClosed, Silence):
            raise Void(f"a process that sends the load is gone or silent\n{self._tail()}") from None
        if answer["say"] == "failed":
            raise OptionError(answer["reason"])
        return answer

    def _tail(self) -> str:
        self._log.seek(0)
        said = self._log.read().decode(errors="replace").strip()
        return f"its last output: {said[-_LOG:]}" if said else "it printed nothing"
