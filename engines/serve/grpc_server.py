"""JetStream's Orchestrator over gRPC."""

from __future__ import annotations

import asyncio
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
            async with asyncio.timeout(self.limits.stall_s):
                await context.write(message.SerializeToString())


async def started(orchestrator: Orchestrator, host: str, port: int) -> tuple[Any, int]:
    """The server and its port; OSError where the port can not be had."""
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", orchestrator.limits.body_bytes),
            ("grpc.so_reuseport", 0),  # a second server on the same port is an error
        ]
    )
    server.add_generic_rpc_handlers((orchestrator.handler(),))
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        found = server.add_insecure_port(address)
    except RuntimeError as problem:
        raise OSError(f"gRPC can not listen on {address}: {problem}") from None
    await server.start()
    return server, found
