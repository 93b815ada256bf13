"""JetStream's contract under load: what the client's stamps are worth, and what the server stands.

    python -m bench.serving_grpc                  all parts
    python -m bench.serving_grpc --only PART      stamps, overload, streams, slow, gone, ...

- overload: five times the rate at which this client can send. The run must be VOID.
- stamps: as `bench/serving.py`, over gRPC: 500 requests, Poisson at 50 a second, 64 tokens each,
  the first after 50 ms, then one every 5 ms. The error is the client's stamp less the server's.

The others ask this repository's server, in a process of its own, with an engine of known tokens
that takes a millisecond a step. Its memory is read from the system, and a process that does nothing
else asks for its health all the while.

- streams: 1,000 open at once, a message a second read from a tenth of them.
- slow: 50 clients that read a message a second, beside others, for 15 s; then they go.
- gone: 500 clients whose connection is reset mid-stream.
- malformed: 2,000 connections that send what is no request.
- body: 20 requests of 100 MB.
- leak: 10,000 requests, 64 at a time, a tenth of them refused, a tenth given up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from bench.serving import (
    EACH_S,
    FIRST_S,
    OVERLOAD,
    RATE,
    REQUESTS,
    SHORT,
    TOKENS,
    errors,
    spread,
)
from perfsuite.adapters.jetstream import JetStream
from perfsuite.adapters.jetstream_proto import DECODE, HEALTH_CHECK, request, samples
from perfsuite.serving.arrivals import Arrivals, at_once, constant, poisson
from perfsuite.serving.client import Outcome, offer, run
from perfsuite.serving.figures import figures, percentile
from perfsuite.serving.request import Request

NOTED = "/bench.Noted/All"
LIVE = b"\x08\x01"
SLOTS, QUEUE, STEP_S = 64, 4000, 0.001
AT_ONCE, WARM, ALL = 64, 3000, 10_000  # requests of `leak`
OWN = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 20),
       ("grpc.max_reconnect_backoff_ms", 20)]  # fmt: skip


# The server of known behaviour


async def paced() -> None:
    """Until the process is ended; the port goes to stdout."""
    from engines.serve.jetstream_proto import DecodeRequest, DecodeResponse

    noted: dict[str, list[float]] = {}

    async def decode(data: bytes, context: Any) -> None:
        asked = DecodeRequest.FromString(data)
        stamps = noted[str(asked.token_content.token_ids[0])] = []
        message = DecodeResponse()
        message.stream_content.samples.add(token_ids=[1])
        one = message.SerializeToString()
        due = time.perf_counter() + FIRST_S
        for _ in range(asked.max_tokens):
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            stamps.append(time.perf_counter())
            await context.write(one)
            due += EACH_S

    async def health_check(_: bytes, __: Any) -> bytes:
        return LIVE

    async def tell(_: bytes, __: Any) -> bytes:
        return json.dumps(noted).encode()

    orchestrator = {
        "Decode": grpc.unary_stream_rpc_method_handler(decode),
        "HealthCheck": grpc.unary_unary_rpc_method_handler(health_check),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((
        grpc.method_handlers_generic_handler("jetstream_proto.Orchestrator", orchestrator),
        grpc.method_handlers_generic_handler(
            "bench.Noted", {"All": grpc.unary_unary_rpc_method_handler(tell)}
        ),
    ))  # fmt: skip
    print(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", flush=True)
    await server.start()
    await server.wait_for_termination()


# The server that is tried


async def slots() -> None:
    """Our server around an engine of known tokens; its addresses go to stdout."""
    from tests.conformance.serve_runs import Fake, served

    class Steady(Fake):
        def step(self) -> Any:
            time.sleep(STEP_S)
            return super().step()

    engine = Steady(slots=SLOTS, calls=deque(maxlen=1))  # type: ignore[arg-type]
    async with served(engine, queue=QUEUE) as server:
        print(f"{server.grpc} {server.http}", flush=True)
        await asyncio.Event().wait()


@contextmanager
def started(which: str) -> Iterator[tuple[int, list[str]]]:
    """A process that serves, and the addresses that it says."""
    command = [sys.executable, "-m", "bench.serving_grpc", "--serve", which]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process.pid, process.stdout.readline().split()
        finally:
            process.terminate()


@dataclass
class Tried:
    """The server under trial, seen from outside."""

    pid: int
    grpc: str
    http: str
    channel: Any
    watcher: subprocess.Popen[str]

    @property
    def resident(self) -> float:
        """Megabytes of its process."""
        import psutil

        return float(psutil.Process(self.pid).memory_info().rss / 1e6)

    async def load(self) -> dict[str, Any]:
        """Slots, running, waiting, steps."""
        import aiohttp

        async with aiohttp.ClientSession() as client, client.get(f"{self.http}/health") as answer:
            found: dict[str, Any] = await answer.json()
            return found

    async def idle(self, within_s: float = 60.0) -> float:
        """Seconds until no request runs or waits."""
        start = time.perf_counter()
        async with asyncio.timeout(within_s):
            while (load := await self.load())["running"] + load["waiting"]:
                await asyncio.sleep(0.01)
        return time.perf_counter() - start

    def told(self) -> str:
        """How quickly its health was answered, from the start until now."""
        answer, _ = self.watcher.communicate()
        return answer.strip()


@asynccontextmanager
async def tried() -> AsyncIterator[Tried]:
    """A fresh server and its watcher."""
    with started("slots") as (pid, (address, http)):
        command = [sys.executable, "-m", "bench.serving_grpc", "--watch", address]
        async with grpc.aio.insecure_channel(address, OWN) as channel:
            with subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as watcher:
                assert watcher.stdout
                watcher.stdout.readline()
                assert await answered(channel, [1], 3)
                try:
                    yield Tried(pid, address, http, channel, watcher)
                finally:
                    watcher.terminate()


async def watch(address: str) -> None:
    """Ask for the health every 20 ms until stdin ends; how that went goes to stdout."""
    print("watching", flush=True)
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    took, missed = [], 0
    async with grpc.aio.insecure_channel(address, OWN) as channel:
        while not ended.done():
            start = time.perf_counter()
            try:
                assert await channel.unary_unary(HEALTH_CHECK)(b"", timeout=30) == LIVE
                took.append(1e3 * (time.perf_counter() - start))
            except grpc.aio.AioRpcError:
                missed += 1
            await asyncio.sleep(0.02)
    print(f"{len(took)} health checks, {missed} missed, median {percentile(took, 0.5):.1f} ms,"
          f" slowest {max(took):.0f} ms")  # fmt: skip


async def answered(channel: Any, prompt: list[int], tokens: int, pause_s: float = 0.0) -> bool:
    """Whether the answer is the right one, once and whole."""
    from tests.conformance.serve_runs import answer_to

    found: list[int] = []
    async for data in channel.unary_stream(DECODE)(request(prompt, tokens)):
        for ids, _ in samples(data):
            found += ids
        if pause_s:
            await asyncio.sleep(pause_s)
    return found == answer_to(prompt, tokens)


# The parts


def stamps() -> None:
    """The error of each of 32,000 stamps."""
    with started("paced") as (_, (address,)):
        outcome, sent = run(_stamped(address))
    given = {str(r.request.id): [stamp for stamp, _ in r.token_s] for r in outcome.records}
    late = [1e3 * (record.sent_s - record.intended_s) for record in outcome.records]
    print(f"stamps: {outcome.arrivals}, {outcome.busy_share:.0%} of a core")
    print(f"  error of a stamp: {spread(errors(given, sent))}")
    print(f"  lateness of sending: {spread(late)}")
    print(
        f"  void: {outcome.void or 'no'}; failures: {figures(outcome.records).failures or 'none'}"
    )


async def _stamped(address: str) -> tuple[Outcome, dict[str, list[float]]]:
    outcome = await _loaded(address, REQUESTS, TOKENS, poisson(REQUESTS, RATE, seed=1))
    async with grpc.aio.insecure_channel(address) as channel:
        return outcome, json.loads(await channel.unary_unary(NOTED)(b""))


async def _loaded(address: str, count: int, tokens: int, arrivals: Arrivals) -> Outcome:
    adapter = JetStream(f"grpc://{address}")
    await adapter.open()
    try:
        asked = [Request(number, (number,), tokens) for number in range(count)]
        return await offer(adapter, asked, arrivals)
    finally:
        await adapter.close()


def overload() -> None:
    """More than the client can send is the client's fault, and said so."""
    with started("paced") as (_, (address,)):
        burst = run(_loaded(address, REQUESTS, SHORT, at_once(REQUESTS)))
        capacity = REQUESTS / max(record.sent_s - record.intended_s for record in burst.records)
        count = 4 * REQUESTS
        asked = constant(count, OVERLOAD * capacity)
        outcome = run(_loaded(address, count, SHORT, asked))
    print(f"overload: this client sends {capacity:.0f} requests/s; asked for {outcome.arrivals}")
    print(f"  void: {outcome.void or 'no'}")


async def streams(server: Tried) -> None:
    """1,000 at once; each right, and none twice."""
    opened = [grpc.aio.insecure_channel(server.grpc, OWN) for _ in range(10)]
    start, before = time.perf_counter(), server.resident
    asks = [
        answered(opened[at % 10], [at % 900, at // 900 + 1], 20, 1.0 if at % 10 == 0 else 0.0)
        for at in range(1000)
    ]
    right = await asyncio.gather(*asks)
    took = time.perf_counter() - start
    for channel in opened:
        await channel.close()
    print(f"streams: {sum(right)} of {len(right)} right in {took:.1f} s; {server.told()}")
    print(f"  resident {before:.1f} MB before, {server.resident:.1f} MB after")


async def slow(server: Tried) -> None:
    """Long answers read slowly; others meanwhile."""
    before = server.resident
    async with grpc.aio.insecure_channel(server.grpc, OWN) as own:
        readers = [
            asyncio.create_task(answered(own, [number, 3], 4000, 1.0)) for number in range(50)
        ]
        while (await server.load())["running"] < len(readers):
            await asyncio.sleep(0.01)
        times, highest, end = [], before, time.perf_counter() + 15
        while time.perf_counter() < end:
            start = time.perf_counter()
            assert await answered(server.channel, [len(times), 5], 5)
            times.append(time.perf_counter() - start)
            highest = max(highest, server.resident)
        print(f"slow: {sum(not reader.done() for reader in readers)} of 50 still read")
        print(f"  {len(times)} others: median {1e3 * percentile(times, 0.5):.0f} ms,"
              f" slowest {1e3 * max(times):.0f} ms for 5 tokens; {server.told()}")  # fmt: skip
        for reader in readers:
            reader.cancel()
        await asyncio.wait(readers)
    free = await server.idle()
    print(f"  none runs {free:.2f} s after they went; resident {before:.1f} MB before,"
          f" {highest:.1f} MB at most, {server.resident:.1f} MB after")  # fmt: skip


async def _raw(server: Tried, sent: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = server.grpc.partition(":")
    for _ in range(500):  # the port may be closed for a moment, where a request ended its server
        with suppress(ConnectionError):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(sent)
            await writer.drain()
            return reader, writer
        await asyncio.sleep(0.01)
    raise ConnectionError(f"nobody listens at {server.grpc}")


async def gone(server: Tried) -> None:
    """Connections that end without a word."""
    from tests.conformance import serve_frames

    before = server.resident
    sent = serve_frames.opening() + serve_frames.decode(request([7, 8], 4000))
    clients = [await _raw(server, sent) for _ in range(500)]
    for reader, _ in clients[:SLOTS]:
        await reader.readexactly(64)
    busy = await server.load()
    for _, writer in clients:
        reset = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        writer.close()
    free = await server.idle()
    print(f"gone: {busy['running']} ran and {busy['waiting']} waited when all 500 were reset;"
          f" none of them {free:.2f} s later")  # fmt: skip
    right = await answered(server.channel, [9], 5)
    print(f"  the next answer is {'right' if right else 'WRONG'}; {server.told()};"
          f" resident {before:.1f} MB before, {server.resident:.1f} MB after")  # fmt: skip


async def malformed(server: Tried) -> None:
    """Bytes of a seed, by themselves and in the places of a good request."""
    from tests.conformance import serve_frames

    draw = random.Random(1)
    good = serve_frames.opening() + serve_frames.decode(request([7, 8], 5))
    before = server.resident
    for number in range(2000):
        sent = bytearray(good if number % 4 else draw.randbytes(200))
        for _ in range(number % 4 * 3):
            sent[draw.randrange(len(sent))] = draw.randrange(256)
        reader, writer = await _raw(server, bytes(sent))
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(0.01):
                await reader.read(4096)
        writer.close()
    free = await server.idle()
    right = await answered(server.channel, [9], 5)
    print(f"malformed: 2000 connections, none runs {free:.2f} s later; the next answer is"
          f" {'right' if right else 'WRONG'}")  # fmt: skip
    print(f"  {server.told()}; resident {before:.1f} MB before, {server.resident:.1f} MB after")


async def body(server: Tried) -> None:
    """Far over what the server takes."""
    large, statuses, before = b" " * 100_000_000, set(), server.resident
    highest = before
    for _ in range(20):
        try:
            await server.channel.unary_unary(DECODE)(large)
        except grpc.aio.AioRpcError as error:
            statuses.add(error.code().name)
        highest = max(highest, server.resident)
    print(f"body: 20 requests of 100 MB: {', '.join(sorted(statuses))}; {server.told()}")
    print(f"  resident {before:.1f} MB before, {highest:.1f} MB at most")


async def leak(server: Tried) -> None:
    """Memory after 10,000 requests against that after 3,000."""
    ends: dict[str, int] = {"right": 0, "WRONG": 0, "refused": 0, "given up": 0}

    async def one(number: int) -> None:
        prompt, tokens = [number % 900, number % 17 + 1], 2 + number % 30
        if number % 10 == 3:
            with suppress(grpc.aio.AioRpcError):
                await answered(server.channel, [], tokens)
                return
            ends["refused"] += 1
        elif number % 10 == 7:
            call = server.channel.unary_stream(DECODE)(request(prompt, 4000))
            await call.read()
            call.cancel()
            ends["given up"] += 1
        else:
            ends["right" if await answered(server.channel, prompt, tokens) else "WRONG"] += 1

    await _each(range(WARM), one)
    await server.idle()
    before = server.resident
    await _each(range(WARM, ALL), one)
    await server.idle()
    after = server.resident
    print(f"leak: {', '.join(f'{count} {end}' for end, count in ends.items())} of {ALL}")
    print(f"  resident {before:.1f} MB after {WARM}, {after:.1f} MB after {ALL}:"
          f" {after / before - 1:+.1%}; {server.told()}")  # fmt: skip


async def _each(numbers: Any, one: Callable[[int], Awaitable[None]]) -> None:
    """All of them, so many at a time."""
    waiting = iter(numbers)

    async def user() -> None:
        for number in waiting:
            await one(number)

    async with asyncio.TaskGroup() as users:
        for _ in range(AT_ONCE):
            users.create_task(user())


PARTS = {"stamps": stamps, "overload": overload}
TRIALS = {"streams": streams, "slow": slow, "gone": gone, "malformed": malformed, "body": body,
          "leak": leak}  # fmt: skip


async def _trial(part: Callable[[Tried], Awaitable[None]]) -> None:
    async with tried() as server:
        await part(server)


def main() -> None:
    """Serve, or measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", choices=[*PARTS, *TRIALS], help="one part alone")
    parser.add_argument("--serve", choices=["paced", "slots"], help=argparse.SUPPRESS)
    parser.add_argument("--watch", metavar="ADDRESS", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.watch:
        run(watch(given.watch))
        return
    if given.serve:
        run(paced() if given.serve == "paced" else slots())
        return
    for name in [given.only] if given.only else [*PARTS, *TRIALS]:
        if name in PARTS:
            PARTS[name]()
        else:
            run(_trial(TRIALS[name]))


if __name__ == "__main__":
    main()
