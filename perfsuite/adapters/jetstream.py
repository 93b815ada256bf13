"""A JetStream server over gRPC: `Orchestrator/Decode`, asked as its own benchmark asks it.

Needs the extra `perfsuite[jetstream]`. Tokens are counted by the token ids that come, whatever
messages they come in. The contract knows no name of a model, no reason to finish and no count of
the prompt: an answer that ends in good order has ended, and a prompt of token ids has as many as
were sent. Certificates of `grpcs://` are checked, no proxy is taken from the environment, nothing
is tried again.

A server may bound the requests that run at once on a connection, so each carries at most
`STREAMS`, and more connections are opened where more run at once.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import grpc.aio

from perfsuite.adapters import Event, RequestFailed, jetstream_proto
from perfsuite.errors import EngineUnavailable, OptionError
from perfsuite.serving.request import Request

SILENCE_S = 120.0  # without a message, after which a request has failed
CONNECT_S = 10.0
STREAMS = 100  # at once on a connection: the fewest that HTTP/2 advises a server to allow
LARGEST_MESSAGE = 1 << 20  # bytes of one message of an answer
# Servers take a ping every five minutes, and two more before they hang up. Within SILENCE_S there
# are two of these, and every message starts their count anew.
_PING_S, _PONG_S = 50.0, 10.0

# What the library says where a stream ended and the server did not say how.
_NO_STATUS = ("Stream removed", "No status received", "Received RST_STREAM")

_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),  # a channel is a connection of its own
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),  # no settings from DNS
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", LARGEST_MESSAGE),
    ("grpc.max_send_message_length", -1),  # the server says what is too long
    ("grpc.min_reconnect_backoff_ms", int(1e3 * CONNECT_S)),  # how long connecting may take
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", int(1e3 * _PING_S)),
    ("grpc.keepalive_timeout_ms", int(1e3 * _PONG_S)),
)


@dataclass(eq=False)
class _Connection:
    """A channel and the requests that run on it."""

    channel: grpc.aio.Channel
    decode: Any
    under_way: int = 0


class JetStream:
    """A server at `grpc://host:port`, or at `grpcs://host:port` behind TLS.

    ca_file holds the certificates of an authority that the system does not know.
    """

    model = "not named by the contract"

    def __init__(self, url: str, *, ca_file: str = "", silence_s: float = SILENCE_S) -> None:
        self._url, self._address, self._ca_file = url, _address(url), ca_file
        self._credentials = _credentials(ca_file) if url.startswith("grpcs:") else None
        self._silence_s = silence_s
        self._connections: list[_Connection] = []

    def elsewhere(self) -> tuple[str, dict[str, Any]]:
        """How another process makes the same client; see Adapter."""
        arguments = {"url": self._url, "ca_file": self._ca_file, "silence_s": self._silence_s}
        return f"{__name__}:{type(self).__name__}", arguments

    async def open(self) -> None:
        """Ask whether the server is live; see Adapter.open."""
        fresh = not self._connections
        connection = self._connections[0] if self._connections else self._connected()
        try:
            await self._check(connection)
        except BaseException:
            if fresh:
                await self.close()
            raise

    async def close(self) -> None:
        """Give up the connections."""
        while self._connections:
            await self._connections.pop().channel.close()

    async def send(self, request: Request) -> AsyncGenerator[Event, None]:
        """The answer as it comes: tokens 0 when the request is written, output, the end."""
        message = _message(request)
        connection = self._with_room()
        connection.under_way += 1
        call = connection.decode()
        try:
            with _failures():
                await self._in_time(call.write(message))
                yield Event(tokens=0)
                await call.done_writing()
                answer = _Answer()
                while (data := await self._in_time(call.read())) is not grpc.aio.EOF:
                    if (event := answer.take(data)) is not None:
                        yield event
            yield answer.end(request)
        finally:
            call.cancel()  # without effect on one that has ended
            connection.under_way -= 1

    async def _in_time(self, step: Any) -> Any:
        async with asyncio.timeout(self._silence_s):
            return await step

    def _with_room(self) -> _Connection:
        if not self._connections:
            raise EngineUnavailable(f"the adapter of {self._url} is not open")
        room = (each for each in self._connections if each.under_way < STREAMS)
        return next(room, None) or self._connected()

    def _connected(self) -> _Connection:
        if self._credentials:
            channel = grpc.aio.secure_channel(self._address, self._credentials, _OPTIONS)
        else:
            channel = grpc.aio.insecure_channel(self._address, _OPTIONS)
        # One request and its end, as two steps: the first tells when it was written.
        connection = _Connection(channel, channel.stream_stream(jetstream_proto.DECODE))
        self._connections.append(connection)
        return connection

    async def _check(self, connection: _Connection) -> None:
        try:
            ask = connection.channel.unary_unary(jetstream_proto.HEALTH_CHECK)
            data = await ask(jetstream_proto.HEALTH_REQUEST, timeout=CONNECT_S)
            live = jetstream_proto.is_live(data)
        except grpc.aio.AioRpcError as error:
            raise EngineUnavailable(_no_server(self._url, error)) from None
        except ValueError as error:
            raise EngineUnavailable(
                f"{self._url} answers with {error}\nexpected JetStream's Orchestrator/HealthCheck"
            ) from None
        if not live:
            raise EngineUnavailable(f"{self._url} answers that it is not live\nlook at its log")


class _Answer:
    """One answer from its messages."""

    def __init__(self) -> None:
        self._tokens: int | None = 0

    def take(self, data: bytes) -> Event | None:
        """The event that a message is, None where it brings nothing."""
        try:
            found = jetstream_proto.samples(data)
        except ValueError as error:
            raise RequestFailed("malformed", str(error)) from None
        if len(found) > 1:
            raise RequestFailed("malformed", f"{len(found)} samples, one was asked for")
        return self._brought(*found[0]) if found else None

    def _brought(self, ids: tuple[int, ...], text: str) -> Event | None:
        """Text behind the last token is none; text without any says that ids do not come."""
        if not ids and not text:
            return None
        if self._tokens is not None:
            self._tokens = self._tokens + len(ids) or None
        return Event(self._tokens, text, ids)

    def end(self, request: Request) -> Event:
        """The last event: both counts where token ids were sent and came."""
        known = self._tokens is not None and not isinstance(request.prompt, str)
        return Event(done=True, usage=(len(request.prompt), self._tokens or 0) if known else None)


def _message(request: Request) -> bytes:
    try:
        return jetstream_proto.request(request.prompt, request.max_tokens)
    except ValueError as error:
        raise OptionError(
            f"request {request.id} can not be written: {error}\n"
            "expected text in Unicode or token ids, and lengths, of 32 bits"
        ) from None


def _address(url: str) -> str:
    """The host and port, as the library wants them."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    plain = not (parts.path.strip("/") or parts.query or parts.fragment or parts.username)
    if parts.scheme not in ("grpc", "grpcs") or not parts.hostname or port is None or not plain:
        raise OptionError(f"endpoint {url!r}: expected like grpc://127.0.0.1:9000")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"dns:///{host}:{port}"


def _credentials(ca_file: str) -> Any:
    """The authorities of a file; without one OpenSSL's, or the library's own where it has none."""
    file = ca_file or ssl.get_default_verify_paths().cafile
    if not file:
        return grpc.ssl_channel_credentials()
    try:
        ssl.create_default_context(cafile=file)
        return grpc.ssl_channel_credentials(Path(file).read_bytes())
    except (OSError, ssl.SSLError) as error:
        raise OptionError(f"certificates {file}: {error}; expected a PEM file") from None


def _no_server(url: str, error: grpc.aio.AioRpcError) -> str:
    code, words = error.code(), error.details() or ""
    if "CERTIFICATE_VERIFY_FAILED" in words or "Hostname Verification" in words:
        return (
            f"the certificate of {url} does not check: {words}\n"
            "name the file of its authority, or use the name that it was made for"
        )
    if "WRONG_VERSION_NUMBER" in words:
        return f"the server at {url} does not speak TLS: {words}\nname it as grpc://"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return f"the server at {url} is not JetStream's Orchestrator: {words}\nmend the URL"
    name = code.name.lower().replace("_", " ")
    return f"no server answers at {url}: {name}: {words}\nstart it, or mend the URL"


@contextmanager
def _failures() -> Iterator[None]:
    """The library's errors as failures of the request."""
    try:
        yield
    except TimeoutError:
        raise RequestFailed("silence", "no message came") from None
    except grpc.aio.AioRpcError as error:
        raise _failed(error) from None


def _failed(error: grpc.aio.AioRpcError) -> Exception:
    code, words = error.code(), error.details() or ""
    if "Too many open files" in words or "Cannot assign requested address" in words:
        return OptionError(
            f"this machine gives the client no more connections: {words}\n"
            "raise `ulimit -n`, or offer fewer requests at a time"
        )
    if "CLIENT: Received message larger" in words:
        return RequestFailed("malformed", words)
    if code is grpc.StatusCode.UNAVAILABLE:
        return RequestFailed("connection", words)
    if code is grpc.StatusCode.CANCELLED or words.startswith(_NO_STATUS):
        return RequestFailed("early end", words)
    return RequestFailed(f"grpc {code.name.lower().replace('_', ' ')}", words)
