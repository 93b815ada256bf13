"""OpenAI's endpoints over HTTP: /v1/completions, /v1/chat/completions, /v1/models, /health."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

from aiohttp import web

from engines.serve import openai_request
from engines.serve.batcher import Closed, Full
from engines.serve.front import Answer, Failed, Front
from engines.serve.limits import BadRequest, Limits
from engines.serve.openai_reply import Reply, error, error_event
from engines.serve.openai_request import UnknownModel
from engines.serve.text import Text

EVENT_STREAM = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
BACKLOG = 2048  # connections that the system keeps until they are taken
CLOSING_S = 5.0  # for what has been answered to be sent, once the engine has stopped


class TooLarge(Exception):
    """The body has more bytes than the server takes."""


STATUS: dict[type[Exception], tuple[int, str]] = {
    BadRequest: (400, "invalid_request_error"),
    UnknownModel: (404, "invalid_request_error"),
    TooLarge: (413, "invalid_request_error"),
    Full: (429, "rate_limit_error"),
    Failed: (500, "server_error"),
    Closed: (503, "server_error"),
    TimeoutError: (408, "invalid_request_error"),
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class OpenAI:
    """The endpoints of one model; `about` is what /v1/models says of it beside its name."""

    front: Front
    text: Text
    limits: Limits
    stops: frozenset[int]
    model: str
    about: dict[str, Any]

    def app(self) -> web.Application:
        """What an HTTP server is given."""
        app = web.Application(middlewares=[_errors], client_max_size=self.limits.body_bytes)
        post, get = app.router.add_post, app.router.add_get
        post("/v1/completions", self._completions, expect_handler=self._expect)
        post("/v1/chat/completions", self._chat, expect_handler=self._expect)
        get("/v1/models", self._models)
        get("/health", self._health)
        return app

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, chat=False)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, chat=True)

    async def _models(self, request: web.Request) -> web.StreamResponse:  # noqa: ARG002
        model = {"id": self.model, "object": "model", "owned_by": "engines.serve", **self.about}
        return web.json_response({"object": "list", "data": [model]})

    async def _health(self, request: web.Request) -> web.StreamResponse:  # noqa: ARG002
        failure = self.front.failure
        status = {"status": "failed", "reason": failure} if failure else {"status": "ok"}
        return web.json_response(status | asdict(self.front.load), status=503 if failure else 200)

    async def _expect(self, request: web.Request) -> web.StreamResponse | None:
        """A client that asks before it sends a large body is told before it sends it."""
        try:
            self._check_length(request)
        except TooLarge as problem:  # this runs outside of _errors
            return _refused(problem)
        if request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return None

    def _check_length(self, request: web.Request) -> None:
        if (request.content_length or 0) > self.limits.body_bytes:
            raise TooLarge(_too_large(request.content_length, self.limits))

    async def _answer(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        """One answer; leaving it in any way frees its slot."""
        fields = openai_request.parsed(await self._body(request))
        ask = openai_request.read(
            fields, chat=chat, model=self.model, text=self.text, limits=self.limits
        )
        reply = Reply(ask, self.model, self.text.reader(), self.front.cached(ask.prompt))
        stops = frozenset[int]() if ask.ignore_eos else self.stops
        with self.front.ask(ask.prompt, ask.max_tokens, stops) as answer:
            if ask.stream:
                return await _stream(request, answer, reply, self.limits.stall_s)
            return await _whole(answer, reply)

    async def _body(self, request: web.Request) -> bytes:
        """Never more than the limit is held, and nothing is read where the length says enough."""
        self._check_length(request)
        try:
            async with asyncio.timeout(self.limits.stall_s):
                return await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise TooLarge(_too_large(None, self.limits)) from None
        except TimeoutError:
            raise TimeoutError(f"no whole body in {self.limits.stall_s:g} s") from None


def _too_large(length: int | None, limits: Limits) -> str:
    found = f"a body of {length} bytes" if length else "a longer body"
    return f"got {found}, expected at most {limits.body_bytes}: see --max_body_bytes"


async def _whole(answer: Answer, reply: Reply) -> web.StreamResponse:
    made: list[int] = []
    finish = ""
    async for tokens, finish in answer:  # noqa: B007
        made += tokens
    return web.json_response(reply.whole(made, finish))


async def _stream(
    request: web.Request, answer: Answer, reply: Reply, stall_s: float
) -> web.StreamResponse:
    """Server-sent events. A client that takes nothing for `stall_s` is left, its slot is free."""
    response = web.StreamResponse(headers=EVENT_STREAM)
    await response.prepare(request)

    async def send(data: bytes) -> None:
        async with asyncio.timeout(stall_s):
            await response.write(data)

    try:
        await response.write(reply.opening())
        async for tokens, finish in answer:
            await send(reply.chunk(tokens, finish))
        await send(reply.closing())
    except Failed as problem:
        await send(error_event(str(problem)))
    except TimeoutError:
        _cut(request)
    except ConnectionResetError:
        pass  # the client has gone, which cancels most handlers, and meets some in a write
    return response


def _cut(request: web.Request) -> None:
    """Close the connection without waiting for what the client does not take."""
    if request.transport is not None:
        request.transport.abort()


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every refusal in OpenAI's form; the connection ends where a body was left unread."""
    try:
        return await handler(request)
    except tuple(STATUS) as problem:
        return _refused(problem)
    except web.HTTPException as problem:  # no such path, no such method
        message = error(problem.reason, "invalid_request_error", problem.status)
        return web.json_response(message, status=problem.status)


def _refused(problem: Exception) -> web.Response:
    code, kind = STATUS[type(problem)]
    response = web.json_response(error(str(problem), kind, code), status=code)
    if code == 429:
        response.headers["Retry-After"] = "1"
    if code in (408, 413):
        response.force_close()
    return response


async def started(endpoints: OpenAI, host: str, port: int) -> tuple[web.AppRunner, int]:
    """The server and its port; OSError where the port can not be had."""
    runner = web.AppRunner(
        endpoints.app(),
        handler_cancellation=True,  # a client that goes away cancels its handler
        lingering_time=0,  # a refused body is not read to its end
        access_log=None,
        handle_signals=False,
        shutdown_timeout=CLOSING_S,
    )
    await runner.setup()
    await web.TCPSite(runner, host, port, backlog=BACKLOG).start()
    return runner, int(runner.addresses[0][1])
