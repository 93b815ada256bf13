"""What the client's stamps are worth: a server of known behaviour, in a process of its own.

The server notes the moment before it writes each token; both processes read one monotonic clock.
The error of a stamp is the client's less the server's: the kernel, the event loop, the parsing.

    python bench/serving.py                 all parts
    python bench/serving.py --only stamps   or bare, stall, overload, burst, capacity

- stamps: 500 requests, Poisson at 50 a second, 64 tokens each: the first after 50 ms, then one
  every 5 ms. Stamps are taken when bytes were read; the line below has those after parsing.
- bare: one blocking socket that does nothing but stamp, for what the machine itself adds.
- stall: as stamps, and the server stands still for 2 s. Every request that was due meanwhile must
  show what was left of it in its latency from due.
- overload: five times the rate at which this client can send. The run must be VOID.
- burst: 64 requests at once, of 1 token and of 16: how much of the run was sending?
- capacity: rising rates of short and of long answers until one process is late, and then by two.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import urlopen

from perfsuite.adapters import Event
from perfsuite.adapters.openai import OpenAI
from perfsuite.serving import clients
from perfsuite.serving.arrivals import Arrivals, at_once, constant, poisson
from perfsuite.serving.client import Outcome, offer, run
from perfsuite.serving.figures import figures, percentile
from perfsuite.serving.lateness import sending_s
from perfsuite.serving.request import Request, duration_s

REQUESTS, RATE, TOKENS = 500, 50.0, 64
FIRST_S, EACH_S = 0.050, 0.005
STALL_AFTER_S, STALL_S = 4.0, 2.0
BARE = 25  # requests
BURST = 64  # requests of the smoke load
CAPACITY_S = 4.0  # of each rate
SHORT, OVERLOAD = 4, 5  # tokens of a request that is only there to be sent; times the capacity


class Server:
    """What all connections of the fake server share."""

    def __init__(self, stall: bool) -> None:
        self.stamps: dict[str, list[float]] = {}
        self.stalled: list[float] = []
        self._stall = stall

    def began(self) -> None:
        """The first request starts the time until the stall."""
        if self._stall:
            self._stall = False
            asyncio.get_running_loop().call_later(STALL_AFTER_S, self._stand_still)

    def _stand_still(self) -> None:
        self.stalled.append(time.perf_counter())
        time.sleep(STALL_S)
        self.stalled.append(time.perf_counter())


class Connection(asyncio.Protocol):
    """One request after the other, as much of HTTP/1.1 as the client speaks."""

    def __init__(self, server: Server) -> None:
        self._server, self._read = server, b""

    def connection_made(self, transport: Any) -> None:
        """Kept, to write to."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer a request once it is whole."""
        self._read += data
        head, ended, body = self._read.partition(b"\r\n\r\n")
        if not ended or len(body) < _length(head):
            return
        self._read = b""
        if head.startswith(b"GET /v1/models"):
            self._whole({"data": [{"id": "fake"}]})
        elif head.startswith(b"GET /stamps"):
            self._whole({"stamps": self._server.stamps, "stalled": self._server.stalled})
        else:
            self._stream(json.loads(body))

    def _whole(self, answer: Any) -> None:
        body = json.dumps(answer).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self._transport.write(head % len(body) + body)

    def _stream(self, asked: dict[str, Any]) -> None:
        self._server.began()
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        stamps = self._server.stamps[str(asked["prompt"][0])] = []
        due = time.perf_counter() + FIRST_S
        asyncio.get_running_loop().call_later(
            FIRST_S, self._token, stamps, asked["max_tokens"], due
        )

    def _token(self, stamps: list[float], tokens: int, due: float) -> None:
        if self._transport.is_closing():
            return
        last = len(stamps) + 1 == tokens
        reason = '"length"' if last else "null"
        usage = f'{{"prompt_tokens":1,"completion_tokens":{len(stamps) + 1}}}'
        data = (
            'data: {"model":"fake","choices":[{"index":0,"text":" a","finish_reason":'
            f'{reason}}}],"usage":{usage}}}\n\n'
        )
        stamps.append(time.perf_counter())
        self._transport.write(_chunk(data))
        if last:
            self._transport.write(_chunk("data: [DONE]\n\n") + b"0\r\n\r\n")
            return
        due += EACH_S
        wait = max(0.0, due - time.perf_counter())
        asyncio.get_running_loop().call_later(wait, self._token, stamps, tokens, due)


def _length(head: bytes) -> int:
    lines = (line.partition(b":") for line in head.lower().split(b"\r\n"))
    return next((int(value) for name, _, value in lines if name == b"content-length"), 0)


def _chunk(data: str) -> bytes:
    return f"{len(data):x}\r\n{data}\r\n".encode()


async def serve(stall: bool) -> None:
    """Until the process is ended; the port goes to stdout."""
    server = Server(stall)
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: Connection(server), "127.0.0.1", 0, backlog=4096)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await listening.serve_forever()


@contextmanager
def fake_server(*options: str) -> Iterator[str]:
    """The URL of a fake server in a process of its own."""
    command = [sys.executable, __file__, "--serve", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.terminate()


class AfterParsing(OpenAI):
    """Notes the moments that stamps would have, were they taken from events and not from bytes."""

    def __init__(self, url: str) -> None:
        super().__init__(url, "fake", silence_s=60.0)
        self.stamps: dict[str, list[float]] = {}

    async def send(self, request: Request) -> AsyncGenerator[Event, None]:
        """The answer, noted."""
        stamps = self.stamps[str(request.id)] = []
        async for event in super().send(request):
            if event.tokens:
                stamps.append(time.perf_counter())
            yield event


def asked(count: int, tokens: int) -> list[Request]:
    """Requests that are known by their only prompt token."""
    return [Request(number, (number,), tokens) for number in range(count)]


async def loaded(
    url: str, count: int, tokens: int, arrivals: Arrivals, adapter: OpenAI | None = None
) -> Outcome:
    """The outcome of a load."""
    adapter = adapter or OpenAI(url, "fake", silence_s=60.0)
    await adapter.open()
    try:
        return await offer(adapter, asked(count, tokens), arrivals)
    finally:
        await adapter.close()


def noted(url: str) -> dict[str, Any]:
    """The moments that the server wrote its tokens at, by request, and its stall."""
    with urlopen(f"{url}/stamps") as answer:
        return json.load(answer)


def stamps() -> None:
    """The error of each of 32,000 stamps."""
    with fake_server() as url:
        adapter = AfterParsing(url)
        outcome = run(loaded(url, REQUESTS, TOKENS, poisson(REQUESTS, RATE, seed=1), adapter))
        sent = noted(url)["stamps"]
    given = {str(r.request.id): [stamp for stamp, _ in r.token_s] for r in outcome.records}
    late = [1e3 * (record.sent_s - record.intended_s) for record in outcome.records]
    print(f"stamps: {outcome.arrivals}, {outcome.busy_share:.0%} of a core")
    print(f"  error of a stamp: {spread(errors(given, sent))}")
    print(f"  after parsing:    {spread(errors(adapter.stamps, sent))}")
    print(f"  lateness of sending: {spread(late)}")
    print(
        f"  void: {outcome.void or outcome.ended or 'no'};"
        f" failures: {figures(outcome.records).failures or 'none'}"
    )


def errors(given: dict[str, list[float]], sent: dict[str, list[float]]) -> list[float]:
    """Milliseconds from the server's stamp of each token to the client's."""
    pairs = (zip(stamps, sent[key], strict=True) for key, stamps in given.items())
    return [1e3 * (here - there) for of_request in pairs for here, there in of_request]


def spread(values: list[float]) -> str:
    """Milliseconds for people."""
    middle, p99 = percentile(values, 0.5), percentile(values, 0.99)
    return f"median {middle:.3f} ms, p99 {p99:.3f} ms, most {max(values):.3f} ms, n {len(values)}"


def bare() -> None:
    """One request after the other, stamped as soon as the system hands the bytes over."""
    given: dict[str, list[float]] = {}
    with fake_server() as url:
        host, _, port = url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            for number in range(BARE):
                given[str(number)] = _read_bare(connection, number)
        print(f"bare: {spread(errors(given, noted(url)['stamps']))}")


def _read_bare(connection: socket.socket, number: int) -> list[float]:
    body = json.dumps({"prompt": [number], "max_tokens": TOKENS}).encode()
    connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    stamps: list[float] = []
    read = b""
    while b"[DONE]" not in read:
        read = connection.recv(1 << 16)
        stamps += [time.perf_counter()] * read.count(b'"text"')
    return stamps


def stall() -> None:
    """Every request due in the stall waits for its end at least."""
    with fake_server("--stall") as url:
        outcome = run(loaded(url, REQUESTS, TOKENS, poisson(REQUESTS, RATE, seed=1)))
        start, end = noted(url)["stalled"]
    inside = [record for record in outcome.records if start <= record.intended_s < end]
    shown = sum(record.token_s[0][0] >= end for record in inside)
    print(f"stall: {len(inside)} requests were due in {end - start:.2f} s, {shown} show it")
    longest = max(record.token_s[0][0] - record.intended_s for record in inside)
    print(f"  longest TTFT from due {longest:.2f} s; void: {outcome.void or outcome.ended or 'no'}")


def overload() -> None:
    """More than the client can send is the client's fault, and said so."""
    with fake_server() as url:
        burst = run(loaded(url, REQUESTS, SHORT, at_once(REQUESTS)))
        capacity = REQUESTS / max(record.sent_s - record.intended_s for record in burst.records)
        count = 4 * REQUESTS
        outcome = run(loaded(url, count, SHORT, constant(count, OVERLOAD * capacity)))
    print(f"overload: this client sends {capacity:.0f} requests/s; asked for {outcome.arrivals}")
    print(f"  void: {outcome.void or outcome.ended or 'no'}")


def burst() -> None:
    """Is a smoke load VOID only where the client is what would be measured?"""
    with fake_server() as url:
        for tokens in (1, 16):
            outcome = run(loaded(url, BURST, tokens, at_once(BURST)))
            sending, whole = sending_s(outcome.records), duration_s(outcome.records)
            print(
                f"burst: {BURST} requests of {tokens} tokens: sent in {1e3 * sending:.0f} ms of"
                f" {1e3 * whole:.0f} ms; void: {outcome.void or outcome.ended or 'no'}"
            )


def capacity() -> None:
    """What one process keeps up with, in requests and in tokens a second; then two."""
    with fake_server() as url:
        for tokens, first in ((SHORT, 250.0), (TOKENS, 50.0)):
            rate = first
            while _kept_up(url, tokens, rate, 1) and rate < 64 * first:
                rate *= 2
            _kept_up(url, tokens, rate, 2)


def _kept_up(url: str, tokens: int, rate: float, count: int) -> bool:
    requests = asked(int(rate * CAPACITY_S), tokens)
    schedule = constant(len(requests), rate)
    adapter = OpenAI(url, "fake", silence_s=60.0)
    if count == 1:
        outcome = run(loaded(url, len(requests), tokens, schedule))
    else:
        outcome = clients.offered(adapter, requests, schedule, count)
    late = percentile([1e3 * (r.sent_s - r.intended_s) for r in outcome.records], 0.5)
    verdict = "VOID" if outcome.void or outcome.ended else "kept up"
    print(
        f"capacity: {count} client: {rate:.0f} requests/s of {tokens} tokens,"
        f" {rate * tokens:.0f} tokens/s: {verdict}, median lateness {late:.1f} ms,"
        f" {outcome.busy_share:.0%} of a core"
    )
    return not (outcome.void or outcome.ended)


PARTS = {
    "stamps": stamps, "bare": bare, "stall": stall, "overload": overload, "burst": burst,
    "capacity": capacity,
}  # fmt: skip


def main() -> None:
    """Serve, or measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", choices=PARTS, help="one part alone")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--stall", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        run(serve(given.stall))
    else:
        for name in [given.only] if given.only else PARTS:
            PARTS[name]()


if __name__ == "__main__":
    main()
