"""What the tests of engines.serve share: a fake engine of known tokens, and a server around it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from engines.serve.front import Front
from engines.serve.limits import Limits
from engines.serve.text import Bytes

VOCABULARY = 1000
STOP = 7


def answer_to(prompt: Sequence[int], count: int) -> list[int]:
    """The tokens of the fake engine, which depend on all of the prompt; never STOP."""
    return [token_of(prompt, step) for step in range(count)]


def token_of(prompt: Sequence[int], step: int) -> int:
    """One of them."""
    start = sum((place + 1) * token for place, token in enumerate(prompt)) % 101
    return (start + 13 * step) % 900 + 10


@dataclass
class Fake:
    """A SlotEngine whose tokens can be told beforehand. With a gate, each step takes a permit."""

    slots: int = 4
    stop_after: int = 0  # STOP as this token of every answer; 0: never
    gate: threading.Semaphore | None = None
    config: dict[str, Any] = field(default_factory=lambda: {"model": "fake"})
    calls: list[tuple[str, Any]] = field(default_factory=list)
    seats: dict[int, tuple[tuple[int, ...], int]] = field(default_factory=dict)
    fails_at: int = 0
    steps: int = 0

    def cached(self, prompt: Sequence[int]) -> int:
        return int(prompt[0] == 99)

    def start(self, prompts: Mapping[int, Sequence[int]]) -> Mapping[int, int]:
        self.calls.append(("start", sorted(prompts)))
        for slot, prompt in prompts.items():
            assert slot not in self.seats, "a busy slot was given away"
            self.seats[slot] = (tuple(prompt), 1)
        return {slot: self._token(slot) for slot in prompts}

    def step(self) -> Sequence[int]:
        if self.gate is not None:
            self.gate.acquire()
        self.steps += 1
        self.calls.append(("step", sorted(self.seats)))
        if self.steps == self.fails_at:
            raise RuntimeError("planted")
        self.seats = {slot: (prompt, made + 1) for slot, (prompt, made) in self.seats.items()}
        return [self._token(slot) if slot in self.seats else 0 for slot in range(self.slots)]

    def _token(self, slot: int) -> int:
        prompt, made = self.seats[slot]
        return STOP if made == self.stop_after else token_of(prompt, made - 1)

    def end(self, slot: int) -> None:
        self.calls.append(("end", slot))
        del self.seats[slot]

    def warm_up(self) -> None:
        """Nothing to compile."""

    def close(self) -> None:
        """Nothing to give back."""


@dataclass
class Served:
    """A server in this event loop."""

    front: Front
    engine: Fake
    http: str
    grpc: str
    http_port: int
    runner: Any

    @property
    def connections(self) -> int:
        """Of HTTP, open now."""
        return len(self.runner.server.connections)

    def send_little(self) -> None:
        """New connections keep little for who does not read: otherwise megabytes, as the system
        likes."""
        for site in self.runner.sites:
            for listening in site._server.sockets:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)


@asynccontextmanager
async def served(
    engine: Fake | None = None, queue: int = 64, **limits: Any
) -> AsyncIterator[Served]:
    """Both servers on free ports of loopback, ended in good order."""
    from engines.serve import grpc_server, http_server  # the batch's tests need neither library

    engine = engine or Fake()
    fields = {"input_tokens": 4096, "output_tokens": 4096, "vocabulary": VOCABULARY}
    accepted = Limits(**fields | {"body_bytes": 2**20, "stall_s": 20.0} | limits)
    front = Front(engine, queue)
    text, stops = Bytes(VOCABULARY), frozenset({STOP})
    openai = http_server.OpenAI(front, text, accepted, stops, "fake", {"config": engine.config})
    orchestrator = grpc_server.Orchestrator(front, text, accepted, stops)
    http, http_port = await http_server.started(openai, "127.0.0.1", 0)
    grpc, port = await grpc_server.started(orchestrator, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{http_port}"
    try:
        yield Served(front, engine, url, f"127.0.0.1:{port}", http_port, http)
    finally:
        if engine.gate is not None:
            engine.gate.release(10_000)
        await front.drained(10)
        await asyncio.gather(grpc.stop(1), http.cleanup())


async def until(condition: Any, within_s: float = 20.0) -> None:
    """Wait for something to become true."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.002)
