"""JetStream's Orchestrator over gRPC."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from engines.serve.batcher import Closed, Full
from engines.serve.front import Answer, Failed, Front
from engines.serve.jetstream_proto import (
    SERVICE,
    DecodeRequest,
    DecodeResponse,
    HealthCheckResponse,
)
from engines.serve.limits import BadRequest, Limits
from engines.serve.text import Reader, Text

STATUS = {
    BadRequest: grpc.StatusCode.INVALID_ARGUMENT,
    Full: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Closed: grpc.StatusCode.UNAVAILABLE,
    Failed: grpc.StatusCode.INTERNAL,
    TimeoutError: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_OPTIONS = (
    ("grpc.so_reuseport", 0),  # a second server on the same port is an error
    # Windows that grow with the line's speed let in most of 100 MB before it is refused.
    ("grpc.http2.bdp_probe", 0),
    # A client that vanishes without a word is found out by a ping, and one that pings is not cut.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
)
log = logging.getLogger("engines.serve")


@dataclass(frozen=True)
class Orchestrator:
    """The service's methods; messages come and go as bytes, so that bad ones are ours to refuse."""

    front: Front
    text: Text
    limits: Limits
    stops: frozenset[int]

    def handler(self) -> Any:
        """What a gRPC server is given."""
        methods = {
            "Decode": grpc.unary_stream_rpc_method_handler(self.decode),
            "HealthCheck": grpc.unary_unary_rpc_method_handler(self.health_check),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def health_check(self, data: bytes, context: Any) -> bytes:  # noqa: ARG002
        """Live while the engine can answer."""
        alive = not self.front.failure
        return bytes(HealthCheckResponse(is_live=alive).SerializeToString())

    async def decode(self, data: bytes, context: Any) -> None:
        """One answer; leaving it in any way frees its slot."""
        try:
            request = self._parsed(data)
            speaks = request.WhichOneof("content") == "text_content"
            prompt, tokens = self._asked(request), self.limits.output(request.max_tokens)
            with self.front.ask(prompt, tokens, self.stops) as answer:
                await self._send(answer, self.text.reader() if speaks else None, context)
        except tuple(STATUS) as problem:
            with suppress(grpc.aio.InternalError):  # the client is gone, and is not told
                await context.abort(STATUS[type(problem)], str(problem))

    def _parsed(self, data: bytes) -> Any:
        try:
            request = DecodeRequest.FromString(data)
        except DecodeError as problem:
            raise BadRequest(f"the message is no DecodeRequest: {problem}") from None
        if request.num_samples > 1 or request.num_samples < 0:
            raise BadRequest(f"got num_samples {request.num_samples}, expected 1")
        if request.lora_adapter_id:
            raise BadRequest(f"got lora_adapter_id {request.lora_adapter_id!r}, there are none")
        return request

    def _asked(self, request: Any) -> Any:
        kind = request.WhichOneof("content")
        if kind == "token_content":
            return self.limits.prompt(tuple(request.token_content.token_ids))
        if kind == "text_content":
            text = request.text_content.text
            return self.limits.prompt(self.text.encode(text, start=not request.has_bos))
        raise BadRequest("the request has neither text_content nor token_content")

    async def _send(self, answer: Answer, reader: Reader | None, context: Any) -> None:
        """Token ids always, their text where the prompt was text; a stop token is not sent.

        A client that takes nothing for `stall_s` is left.
        """
        async for tokens, finish in answer:
            sent = tokens[:-1] if finish == "stop" else tokens
            text = reader.read(sent) if reader else ""
            if reader and finish:
                text += reader.rest()
            message = DecodeResponse()
            message.stream_content.samples.add(text=text, token_ids=sent)
            await self._written(message.SerializeToString(), context)

    async def _written(self, data: bytes, context: Any) -> None:
        try:
            async with asyncio.timeout(self.limits.stall_s):
                await context.write(data)
        except TimeoutError:
            raise TimeoutError(f"nothing was taken for {self.limits.stall_s:g} s") from None


class Listening:
    """A gRPC server that takes requests until it is stopped.

    The library's loop that takes them ends at a request whose path is no UTF-8, and the port is
    closed; answers under way go on. A new server then listens on the same port.
    """

    def __init__(self, orchestrator: Orchestrator, host: str) -> None:
        self._orchestrator = orchestrator
        self._host = f"[{host}]" if ":" in host else host
        self._servers: list[Any] = []
        self._again: set[asyncio.Task[None]] = set()
        self._stopped = False

    async def listen(self, port: int) -> int:
        """The port; OSError where it can not be had."""
        largest = ("grpc.max_receive_message_length", self._orchestrator.limits.body_bytes)
        server = grpc.aio.server(options=[largest, *_OPTIONS])
        server.add_generic_rpc_handlers((self._orchestrator.handler(),))
        try:
            found = int(server.add_insecure_port(f"{self._host}:{port}"))
        except RuntimeError as problem:
            raise OSError(f"gRPC can not listen on {self._host}:{port}: {problem}") from None
        before = asyncio.all_tasks()
        await server.start()
        self._servers.append(server)
        for task in asyncio.all_tasks() - before:
            if _takes_requests(task):
                task.add_done_callback(lambda ended: self._ended(ended, found))
        return found

    async def stop(self, grace_s: float) -> None:
        """Take no more requests; those under way may end within the grace."""
        self._stopped = True
        await asyncio.gather(*(server.stop(grace_s) for server in self._servers))

    def _ended(self, task: asyncio.Task[Any], port: int) -> None:
        if self._stopped or task.cancelled() or task.exception() is None:
            return
        log.error("gRPC took no more requests (%s): it listens again", task.exception())
        again = asyncio.create_task(self._listen_again(port))
        self._again.add(again)
        again.add_done_callback(self._again.discard)

    async def _listen_again(self, port: int) -> None:
        """The port is free within milliseconds."""
        while not self._stopped:
            try:
                await self.listen(port)
                return
            except OSError:
                await asyncio.sleep(0.01)


def _takes_requests(task: asyncio.Task[Any]) -> bool:
    return getattr(task.get_coro(), "__qualname__", "").endswith("_server_main_loop")


async def started(orchestrator: Orchestrator, host: str, port: int) -> tuple[Listening, int]:
    """The server and its port; OSError where the port can not be had."""
    server = Listening(orchestrator, host)
    return server, await server.listen(port)
