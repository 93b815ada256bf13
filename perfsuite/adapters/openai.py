"""Any OpenAI-compatible streaming endpoint: vLLM, SGLang, TGI, llama.cpp, and this repository's.

Needs the extra `perfsuite[serving]`. Certificates are checked, redirects are not followed, no proxy
is taken from the environment, and the model that was asked for must be listed and must be the one
that answers.

`/v1/completions` takes prompts as token ids or text, `/v1/chat/completions` text alone. Two things
that are asked for are extensions: `ignore_eos`, by which every answer has the length that was asked
for, and a usage in every chunk, by which tokens are counted (vLLM and SGLang know both). A server
that does not know the second leaves counts to the last chunk, and figures that need more are
absent.
"""

from __future__ import annotations

import asyncio
import errno
import json
import ssl
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from perfsuite.adapters import Event, RequestFailed
from perfsuite.adapters.openai_answer import Answer
from perfsuite.errors import EngineUnavailable, OptionError
from perfsuite.serving.request import Request
from perfsuite.serving.server_sent_events import EventStream

SILENCE_S = 120.0  # without a byte, after which a request has failed
CONNECT_S = 10.0
# Servers close idle connections after 5 s and more. One that is closed while a request is written
# to it would be a failure that the server did not make.
_IDLE_S = 4.0
_READ_BUFFER = 1 << 20  # bytes; the library stops reading a socket beyond it
_LARGEST_TEXT = 1 << 20  # bytes of an answer that is no stream
# No fault of the server: files and ports that this process may not have.
_OWN_LIMITS = (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL)
_DRAIN_S = 1.0  # for the end of the body, behind the end of the answer


class OpenAI:
    """A server at `url`, with or without its `/v1`.

    model may be left out where the server has one. key is sent as a bearer token, ca_file holds
    the certificates of an authority that the system does not know.
    """

    def __init__(
        self,
        url: str,
        model: str = "",
        *,
        chat: bool = False,
        key: str = "",
        ca_file: str = "",
        ignore_eos: bool = True,
        silence_s: float = SILENCE_S,
    ) -> None:
        self._root, self.model, self._chat = _root(url), model, chat
        self._key, self._ca_file = key, ca_file
        self._ignore_eos, self._silence_s = ignore_eos, silence_s
        self._session: aiohttp.ClientSession | None = None

    def elsewhere(self) -> tuple[str, dict[str, Any]]:
        """How another process makes the same client; see Adapter."""
        return f"{__name__}:{type(self).__name__}", {
            "url": self._root, "model": self.model, "chat": self._chat, "key": self._key,
            "ca_file": self._ca_file, "ignore_eos": self._ignore_eos, "silence_s": self._silence_s,
        }  # fmt: skip

    async def open(self) -> None:
        """Ask for the list of models; see Adapter.open."""
        fresh = self._session is None
        self._session = self._session or self._connected()
        try:
            self.model = self._chosen(await self._models(self._session))
        except BaseException:
            if fresh:
                await self.close()
            raise

    async def close(self) -> None:
        """Give up the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def send(self, request: Request) -> AsyncGenerator[Event, None]:
        """The answer as it comes: tokens 0 when the request is written, output, the end."""
        written: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        answer = asyncio.ensure_future(self._posted(request, written))
        either: set[asyncio.Future[Any]] = {answer, written}
        try:
            with _failures():
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if written.done():
                    yield Event(tokens=0, arrived_s=written.result())
                response = await answer
                async with aclosing(_events(response, self.model)) as events:
                    async for event in events:
                        yield event
                await _drained(response)
        finally:
            _given_up(answer)

    async def _posted(
        self, request: Request, written: asyncio.Future[float]
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            raise EngineUnavailable(f"the adapter of {self._root} is not open")
        path = "chat/completions" if self._chat else "completions"
        return await self._session.post(
            f"{self._root}/{path}",
            data=json.dumps(self._body(request)).encode(),
            headers={"Content-Type": "application/json"},
            trace_request_ctx=written,
            allow_redirects=False,
        )

    def _body(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": request.max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }
        if self._ignore_eos:
            body["ignore_eos"] = True
        if not self._chat:
            return body | {"prompt": request.prompt}
        if not isinstance(request.prompt, str):
            raise OptionError(
                "a prompt of token ids: /v1/chat/completions takes text\n"
                "make the dataset as text, or use completions"
            )
        return body | {"messages": [{"role": "user", "content": request.prompt}]}

    def _connected(self) -> aiohttp.ClientSession:
        tracing = aiohttp.TraceConfig()
        tracing.on_request_headers_sent.append(_tell_written)
        headers = {"Accept-Encoding": "identity"}  # a compressing proxy holds events back
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=_IDLE_S, ssl=_context(self._ca_file)
            ),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=CONNECT_S, sock_read=self._silence_s
            ),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=_READ_BUFFER,
            trace_configs=[tracing],
        )

    async def _models(self, session: aiohttp.ClientSession) -> list[str]:
        url = f"{self._root}/models"
        try:
            async with session.get(url, allow_redirects=False) as response:
                text = await _text(response)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise EngineUnavailable(_no_server(url, error)) from None
        if response.status != 200:
            raise EngineUnavailable(
                f"{url} answers {response.status}: {text[:200]}\n"
                "expected an OpenAI-compatible server's list of models"
            )
        return _listed(text, url)

    def _chosen(self, served: list[str]) -> str:
        names = ", ".join(served) or "none"
        if self.model:
            if self.model in served:
                return self.model
            raise EngineUnavailable(
                f"{self._root} serves {names}; {self.model} was asked for\nname one that it serves"
            )
        if len(served) != 1:
            raise EngineUnavailable(f"{self._root} serves {names}: name one of them")
        return served[0]


def _root(url: str) -> str:
    """`http://host:8000` and `http://host:8000/v1/` are the same server."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise OptionError(f"endpoint {url!r}: expected like http://127.0.0.1:8000")
    return url.rstrip("/").removesuffix("/v1") + "/v1"


def _context(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise OptionError(f"certificates {ca_file}: {error}; expected a PEM file") from None


def _no_server(url: str, error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return (
            f"the certificate of {url} does not check: {error.certificate_error}\n"
            "name the file of its authority, or use the name that it was made for"
        )
    return f"no server answers at {url}: {error or type(error).__name__}\nstart it, or mend the URL"


def _listed(text: str, url: str) -> list[str]:
    try:
        return [str(model["id"]) for model in json.loads(text)["data"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise EngineUnavailable(
            f"{url} answers {text[:200]!r}\nexpected an OpenAI-compatible server's list of models"
        ) from None


async def _tell_written(
    session: aiohttp.ClientSession,  # noqa: ARG001
    context: SimpleNamespace,
    parameters: aiohttp.TraceRequestHeadersSentParams,  # noqa: ARG001
) -> None:
    """A connection was there: the request is written to it now."""
    written = context.trace_request_ctx
    if written is not None and not written.done():
        written.set_result(time.perf_counter())  # before this loop comes to whoever waits for it


async def _events(response: aiohttp.ClientResponse, model: str) -> AsyncGenerator[Event, None]:
    if response.status != 200:
        raise RequestFailed(f"http {response.status}", (await _text(response))[:200])
    if response.content_type != "text/event-stream":
        found = f"{response.content_type}: {(await _text(response))[:200]}"
        raise RequestFailed("no stream", found)
    stream, answer = EventStream(), Answer(model)
    async for read in response.content.iter_any():
        arrived = time.perf_counter()  # before parsing, which a burst of events would wait for
        for data in _fed(stream, read):
            if (event := answer.take(data)) is not None:
                yield replace(event, arrived_s=arrived)
            if answer.done:
                return
    yield answer.end()


def _fed(stream: EventStream, read: bytes) -> list[bytes]:
    try:
        return stream.feed(read)
    except ValueError as error:
        raise RequestFailed("malformed", str(error)) from None


async def _text(response: aiohttp.ClientResponse) -> str:
    """What an answer that is no stream says, as far as it is of use."""
    text = b""
    async for read in response.content.iter_any():
        text += read
        if len(text) > _LARGEST_TEXT:
            break
    return text[:_LARGEST_TEXT].decode(errors="replace")


async def _drained(response: aiohttp.ClientResponse) -> None:
    """Read to the end of the body, so that the connection serves the next request too."""
    try:
        async with asyncio.timeout(_DRAIN_S):
            async for _ in response.content.iter_any():
                pass
    except (TimeoutError, aiohttp.ClientError):
        response.close()  # the answer was whole: only its connection is lost


def _given_up(answer: asyncio.Task[aiohttp.ClientResponse]) -> None:
    """Close what may still come, or has come and was not read."""
    if not answer.done():
        answer.cancel()
    elif not answer.cancelled() and answer.exception() is None:
        answer.result().close()  # nothing is left to close of one that was read to its end


@contextmanager
def _failures() -> Iterator[None]:
    """The library's errors as failures of the request."""
    try:
        yield
    except (aiohttp.ServerTimeoutError, TimeoutError) as error:
        raise RequestFailed("silence", str(error)) from None
    except aiohttp.ClientPayloadError as error:
        raise RequestFailed("early end", str(error)) from None
    except (aiohttp.ClientError, OSError) as error:
        if getattr(error, "errno", None) in _OWN_LIMITS:
            raise OptionError(
                f"this machine gives the client no more connections: {error}\n"
                "raise `ulimit -n`, or offer fewer requests at a time"
            ) from None
        raise RequestFailed("connection", str(error) or type(error).__name__) from None
