"""One of several processes that send a load together; `clients` starts them.

It is told everything over a pipe, a JSON object a line, and imports the adapter that it is told.

    told      {"adapter", "arguments", "name", "users"}   {"request": [...]} ...   {"do": "open"}
              {"do": "start", "at_s"}
    answered  {"say": "ready"}   {"say": "failed", "reason"}
              {"say": "record", "record": [...]} ...   {"say": "done", "ended", ...}

Moments are readings of time.perf_counter, which on Linux and macOS is one clock for all processes
of a machine. A sender whose pipe is closed ends at once.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from typing import Any

from perfsuite.adapters import Adapter
from perfsuite.errors import PerfError
from perfsuite.pipe import Pipe, PipeClosed
from perfsuite.serving.arrivals import Arrivals, ClosedLoop, Schedule
from perfsuite.serving.client import Outcome, offer, run, settled
from perfsuite.serving.request import Record, Request


def as_list(record: Record) -> list[Any]:
    """Built-in types, without the request's prompt."""
    return [
        record.request.id, record.intended_s, record.sent_s, record.token_s, record.finished_s,
        record.output_tokens, record.input_tokens, record.failure, record.texts, record.token_ids,
    ]  # fmt: skip


def from_list(values: list[Any], requests: dict[int, Request]) -> Record:
    """The inverse, with the requests by id."""
    number, intended, sent, tokens, *rest = values
    return Record(requests[number], intended, sent, [(at, known) for at, known in tokens], *rest)


def main(fds: str) -> None:
    """Hear the load, send it, tell what became of it."""
    read_fd, write_fd = map(int, fds.split(","))
    pipe = Pipe(read_fd, write_fd)
    try:
        load = pipe.receive()
        requests = []
        while "request" in (message := pipe.receive()):
            number, prompt, tokens, due = message["request"]
            words = prompt if isinstance(prompt, str) else tuple(prompt)
            requests.append(Request(number, words, tokens, due))
        try:
            outcome = run(_sent(pipe, read_fd, load, requests))
        except PerfError as error:
            pipe.send({"say": "failed", "reason": str(error)})
            return
        _tell(pipe, outcome)
    except PipeClosed:
        sys.exit(3)


async def _sent(pipe: Pipe, read_fd: int, load: dict[str, Any], requests: list[Request]) -> Outcome:
    adapter = _adapter(load["adapter"], load["arguments"])
    await adapter.open()
    try:
        with settled():  # now: between the word to start and the start there is no time for it
            pipe.send({"say": "ready"})
            start_s = pipe.receive()["at_s"]
            # nothing more is said: what can be read now is the end of the pipe
            asyncio.get_running_loop().add_reader(read_fd, os._exit, 3)
            outcome = await offer(adapter, requests, _arrivals(load, requests), start_s=start_s)
            asyncio.get_running_loop().remove_reader(read_fd)
            return outcome
    finally:
        await adapter.close()


def _adapter(name: str, arguments: dict[str, Any]) -> Adapter:
    module, _, kind = name.partition(":")
    adapter: Adapter = getattr(importlib.import_module(module), kind)(**arguments)
    return adapter


def _arrivals(load: dict[str, Any], requests: list[Request]) -> Arrivals:
    if load["users"]:
        return ClosedLoop(load["users"])
    return Schedule(load["name"], tuple(request.arrival_s for request in requests))


def _tell(pipe: Pipe, outcome: Outcome) -> None:
    for record in outcome.records:
        pipe.send({"say": "record", "record": as_list(record)})
    pipe.send({
        "say": "done", "ended": outcome.ended, "unsent": outcome.unsent,
        "busy_share": outcome.busy_share,
    })  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1])
