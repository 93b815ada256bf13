"""The adapter against a server that sends exactly the messages it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from perfsuite.adapters import Event, RequestFailed
from perfsuite.errors import EngineUnavailable, OptionError
from perfsuite.serving.request import Request

grpc = pytest.importorskip("grpc", reason="needs the extra jetstream")

from perfsuite.adapters import jetstream  # noqa: E402
from perfsuite.adapters.jetstream import JetStream  # noqa: E402

REQUEST = Request(7, (5, 6, 7), 3)
LIVE, DEAD = b"\x08\x01", b""


def said(ids: Sequence[int] = (), text: str = "") -> bytes:
    """A DecodeResponse by hand: field 3 { field 1 { 1: text, 2: packed ids } }, all short."""
    sample = field(1, text.encode()) + field(2, bytes(ids))
    return field(3, field(1, sample, always=True), always=True)


def field(number: int, content: bytes, *, always: bool = False) -> bytes:
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content if content or always else b""


INITIAL = field(2, b"", always=True)
GOOD = [said([1]), said([2]), said([3])]
EVENTS = [
    Event(tokens=0),
    Event(1, token_ids=(1,)),
    Event(2, token_ids=(2,)),
    Event(3, token_ids=(3,)),
    Event(done=True, usage=(3, 3)),
]
Piece = bytes | Any  # a message, a status to end with, or a coroutine function to wait for


class Endpoint:
    """A server of one kind of answer, in bytes both ways."""

    def __init__(self) -> None:
        self.pieces: Sequence[Piece] = GOOD
        self.health: Piece = LIVE
        self.service = "jetstream_proto.Orchestrator"
        self.asked: list[bytes] = []
        self.peers: list[str] = []
        self.under_way = 0

    async def decode(self, data: bytes, context: Any) -> Any:
        self.asked.append(data)
        self.peers.append(context.peer())
        self.under_way += 1
        try:
            for piece in self.pieces:
                if isinstance(piece, bytes):
                    await context.write(piece)
                elif isinstance(piece, grpc.StatusCode):
                    await context.abort(piece, "planted")
                else:
                    await piece()
        finally:
            self.under_way -= 1

    async def health_check(self, data: bytes, context: Any) -> Any:
        assert data == b""
        if isinstance(self.health, bytes):
            return self.health
        return await context.abort(self.health, "planted")


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


@asynccontextmanager
async def served(
    endpoint: Endpoint, credentials: Any = None, options: Sequence[Any] = ()
) -> AsyncIterator[str]:
    """The URL of a running endpoint."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), *options])
    methods = {
        "Decode": grpc.unary_stream_rpc_method_handler(endpoint.decode),
        "HealthCheck": grpc.unary_unary_rpc_method_handler(endpoint.health_check),
    }
    handler = grpc.method_handlers_generic_handler(endpoint.service, methods)
    server.add_generic_rpc_handlers((handler,))
    if credentials:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"{'grpcs' if credentials else 'grpc'}://127.0.0.1:{port}"
    finally:
        await server.stop(0)


@asynccontextmanager
async def opened(endpoint: Endpoint, *server: Any, **options: Any) -> AsyncIterator[JetStream]:
    async with asyncio.timeout(50), served(endpoint, *server) as url:
        adapter = JetStream(url, **options)
        await adapter.open()
        try:
            yield adapter
        finally:
            await adapter.close()


async def answered(adapter: JetStream, request: Request = REQUEST) -> list[Event]:
    return [event async for event in adapter.send(request)]


@pytest.fixture
def asked(endpoint: Endpoint) -> Callable[..., list[Event]]:
    """What an open adapter says of one request."""

    def ask(request: Request = REQUEST, **options: Any) -> list[Event]:
        async def main() -> list[Event]:
            async with opened(endpoint, **options) as adapter:
                return await answered(adapter, request)

        return asyncio.run(main())

    return ask


Asked = Callable[..., list[Event]]


def test_an_answer(endpoint: Endpoint, asked: Asked) -> None:
    """Written, three tokens, the end; token ids go out as they are, packed, and nothing else."""
    assert asked() == EVENTS
    assert endpoint.asked == [b"\x20\x03" + b"\x32\x05\x0a\x03\x05\x06\x07"]


def test_a_text_prompt(endpoint: Endpoint, asked: Asked) -> None:
    """Its tokens are the server's, who does not say how many there were."""
    endpoint.pieces = [said([1], "a"), said([2], "b")]
    found = asked(Request(0, "hello", 2))
    assert found == [Event(0), Event(1, "a", (1,)), Event(2, "b", (2,)), Event(done=True)]
    assert endpoint.asked == [b"\x20\x02" + b"\x2a\x07\x0a\x05hello"]


def test_tokens_are_counted_not_messages(endpoint: Endpoint, asked: Asked) -> None:
    """A message may hold none, or several; text behind the last token is none."""
    endpoint.pieces = [INITIAL, said(), said([1, 2, 3], "abc"), said([4]), said(text="!"), said()]
    assert asked() == [
        Event(0), Event(3, "abc", (1, 2, 3)), Event(4, "", (4,)), Event(4, "!"),
        Event(done=True, usage=(3, 4)),
    ]  # fmt: skip


def test_text_without_token_ids_is_of_unknown_length(endpoint: Endpoint, asked: Asked) -> None:
    """Not as many tokens as messages, nor as many as came later."""
    endpoint.pieces = [said(text="a"), said([2], "b")]
    assert asked() == [Event(0), Event(None, "a"), Event(None, "b", (2,)), Event(done=True)]


def test_an_answer_of_nothing_has_no_output(endpoint: Endpoint, asked: Asked) -> None:
    """The client calls it an empty answer."""
    endpoint.pieces = [INITIAL]
    assert asked() == [Event(0), Event(done=True, usage=(3, 0))]


@pytest.mark.parametrize(
    ("piece", "kind", "says"),
    [
        (grpc.StatusCode.UNAVAILABLE, "connection", "planted"),
        (grpc.StatusCode.CANCELLED, "early end", "planted"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "grpc resource exhausted", "planted"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "grpc deadline exceeded", "planted"),
        (grpc.StatusCode.INTERNAL, "grpc internal", "planted"),
        (grpc.StatusCode.INVALID_ARGUMENT, "grpc invalid argument", "planted"),
        (b"\xff\xff\xff", "malformed", "no DecodeResponse"),
        (said([1])[:-1], "malformed", "no DecodeResponse"),
        (field(3, 2 * field(1, b"", always=True)), "malformed", "2 samples, one was asked for"),
        (b"\x00" * (jetstream.LARGEST_MESSAGE + 1), "malformed", "larger than max"),
    ],
)
@pytest.mark.parametrize("before", [[], GOOD[:2]], ids=["at once", "under way"])
def test_what_is_no_whole_answer_is_a_failure(
    endpoint: Endpoint, asked: Asked, before: list[bytes], piece: Piece, kind: str, says: str
) -> None:
    """With its kind, and what the server says."""
    endpoint.pieces = [*before, piece]
    with pytest.raises(RequestFailed, match=says) as failed:
        asked()
    assert failed.value.kind == kind


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Of HTTP/2: 0 is data, 1 headers, 3 the end of a stream with an error, 4 settings."""
    return b"".join(
        [len(payload).to_bytes(3, "big"), bytes([kind, flags]), stream.to_bytes(4, "big"), payload]
    )


def headers(stream: int, *, last: bool, known: bytes = b"", **named: bytes) -> bytes:
    """Written out, without compression; `known` has those that HTTP/2 numbers."""
    written = [
        b"\x00" + bytes([len(name)]) + name.replace("_", "-").encode() + bytes([len(value)]) + value
        for name, value in named.items()
    ]
    return frame(1, 5 if last else 4, stream, known + b"".join(written))


def message(stream: int, data: bytes) -> bytes:
    return frame(0, 0, stream, b"\x00" + len(data).to_bytes(4, "big") + data)


@asynccontextmanager
async def bare(ends: Callable[[int], bytes]) -> AsyncIterator[str]:
    """The URL of a server of bare frames: live, one token of an answer, and then `ends(stream)`."""

    def answer(stream: int) -> bytes:
        begin = headers(stream, last=False, known=b"\x88", content_type=b"application/grpc")
        if stream == 1:  # the first is the health check
            return begin + message(1, LIVE) + headers(1, last=True, grpc_status=b"0")
        return begin + message(stream, said([1])) + ends(stream)

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readexactly(24)  # the preface
            writer.write(frame(4, 0, 0))
            while head := await reader.readexactly(9):
                await reader.readexactly(int.from_bytes(head[:3], "big"))
                kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
                if kind == 4 and not flags:
                    writer.write(frame(4, 1, 0))
                if kind == 0 and flags & 1:
                    writer.write(answer(stream))
                    if stream > 1 and not ends(stream):
                        break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    async with server:
        yield f"grpc://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("ends", "kind"),
    [
        (lambda stream: headers(stream, last=True, grpc_status=b"0"), ""),
        (lambda stream: frame(0, 1, stream), "early end"),
        (lambda stream: headers(stream, last=True, another=b"0"), "early end"),
        (lambda stream: frame(3, 0, stream, b"\x00\x00\x00\x02"), "early end"),
        (lambda stream: frame(3, 0, stream, b"\x00\x00\x00\x08"), "early end"),
        (lambda stream: frame(3, 0, stream, b"\x00\x00\x00\x07"), "connection"),
        (lambda stream: b"\xff" * 64, "early end"),
        (lambda stream: b"", "connection"),
    ],
    ids=["good", "no status", "other headers", "error", "cancelled", "refused", "junk", "closed"],
)
def test_a_stream_of_which_the_server_does_not_say_how_it_ended(
    ends: Callable[[int], bytes], kind: str
) -> None:
    """It ended early, or its connection did: never an answer of fewer tokens."""

    async def main() -> str:
        async with asyncio.timeout(50), bare(ends) as url:
            adapter = JetStream(url)
            await adapter.open()
            try:
                found = await answered(adapter)
            except RequestFailed as failed:
                return failed.kind
            finally:
                await adapter.close()
                await asyncio.sleep(0.05)
        assert found[-1] == Event(done=True, usage=(3, 1))
        return ""

    assert asyncio.run(main()) == kind


def test_silence_is_a_failure(endpoint: Endpoint) -> None:
    """After as long as was said; the server is told that nobody waits."""

    async def main() -> None:
        async with opened(endpoint, silence_s=0.2) as adapter:
            endpoint.pieces = [said([1]), asyncio.Event().wait]
            with pytest.raises(RequestFailed) as failed:
                await answered(adapter)
            assert failed.value.kind == "silence"
            await until(lambda: endpoint.under_way == 0)

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.002)


def test_a_stream_that_is_given_up_leaves_nothing_behind(endpoint: Endpoint) -> None:
    """At any moment: no task, no call; a server that had heard of the request hears of that too."""

    async def main() -> None:
        async with opened(endpoint) as adapter:
            endpoint.pieces = [said([1]), asyncio.Event().wait]
            for events in (0, 1, 2):
                stream = adapter.send(REQUEST)
                for _ in range(events):
                    await anext(stream)
                await stream.aclose()
            task = asyncio.create_task(answered(adapter))
            await until(lambda: endpoint.under_way == 1)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            await until(lambda: endpoint.under_way == 0)
            assert [each.under_way for each in adapter._connections] == [0]
        async with asyncio.timeout(20):
            await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})

    asyncio.run(main())


def test_connections_serve_again_and_grow_with_the_load(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One for a few requests, more where more run at once, and then the same again."""
    monkeypatch.setattr(jetstream, "STREAMS", 10)

    async def main() -> None:
        async with opened(endpoint) as adapter:
            for _ in range(5):
                assert await answered(adapter) == EVENTS
            assert len(set(endpoint.peers)) == 1
            go = asyncio.Event()
            endpoint.pieces = [*GOOD, go.wait]
            for _ in range(2):
                endpoint.peers.clear()
                go.clear()
                all_ = asyncio.gather(*(answered(adapter) for _ in range(25)))
                await until(lambda: len(endpoint.peers) == 25)
                go.set()
                assert await all_ == [EVENTS] * 25
                assert sorted(map(endpoint.peers.count, set(endpoint.peers))) == [5, 10, 10]
            assert len(adapter._connections) == 3

    asyncio.run(main())


def test_a_server_of_few_streams_shows_in_when_a_request_was_sent(endpoint: Endpoint) -> None:
    """What waits for room on its connection has not been written."""

    async def main() -> None:
        go = asyncio.Event()
        endpoint.pieces = [*GOOD, go.wait]
        few = [("grpc.max_concurrent_streams", 1)]
        async with opened(endpoint, None, few) as adapter:
            first = asyncio.create_task(answered(adapter))
            await until(lambda: len(endpoint.asked) == 1)
            second = adapter.send(REQUEST)
            written = asyncio.ensure_future(anext(second))
            await asyncio.sleep(0.1)
            assert not written.done()
            go.set()
            assert await first == EVENTS
            assert await written == Event(tokens=0)
            assert [event async for event in second] == EVENTS[1:]

    asyncio.run(main())


def test_a_server_that_is_gone(endpoint: Endpoint) -> None:
    """A request under way fails by its connection; opening again says that nobody is there."""

    async def main() -> None:
        async with asyncio.timeout(50), served(endpoint) as url:
            adapter = JetStream(url)
            await adapter.open()
            endpoint.pieces = [said([1]), asyncio.Event().wait]
            stream = adapter.send(REQUEST)
            assert [await anext(stream) for _ in range(2)] == EVENTS[:2]
        try:
            with pytest.raises(RequestFailed) as failed:
                await anext(stream)
            assert failed.value.kind in RequestFailed.LOST
            with pytest.raises(RequestFailed) as failed:
                await answered(adapter)
            assert failed.value.kind == "connection"
            with pytest.raises(EngineUnavailable, match="no server answers at grpc://127"):
                await adapter.open()
        finally:
            await adapter.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("health", "says"),
    [
        (DEAD, "is not live"),
        (b"\xff", "no HealthCheckResponse"),
        (grpc.StatusCode.INTERNAL, "no server answers at .*: internal: planted"),
    ],
)
def test_a_server_that_is_not_well(
    endpoint: Endpoint, asked: Asked, health: Piece, says: str
) -> None:
    """Said when it is opened, not by the first request."""
    endpoint.health = health
    with pytest.raises(EngineUnavailable, match=says):
        asked()
    assert endpoint.asked == []


def test_a_server_of_another_kind(endpoint: Endpoint, asked: Asked) -> None:
    """It speaks gRPC, but not JetStream's contract."""
    endpoint.service = "another.Service"
    with pytest.raises(EngineUnavailable, match="not JetStream's Orchestrator"):
        asked()


@pytest.mark.parametrize(
    "says",
    [
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"\x00" * 64,
        b"",
    ],
)
def test_a_server_that_speaks_something_else(says: bytes) -> None:
    """HTTP/1, nothing, junk: no traceback and no waiting for ever."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(16)
        writer.write(says)
        writer.close()

    async def main() -> None:
        async with asyncio.timeout(50):
            server = await asyncio.start_server(speak, "127.0.0.1", 0)
            async with server:
                port = server.sockets[0].getsockname()[1]
                with pytest.raises(EngineUnavailable, match=f"no server answers at .*:{port}: "):
                    await JetStream(f"grpc://127.0.0.1:{port}").open()

    asyncio.run(main())


def test_a_request_that_can_not_be_written(endpoint: Endpoint, asked: Asked) -> None:
    """No int32, no Unicode: said before anything is sent."""
    for request in (Request(1, (2**31,), 3), Request(1, "\ud800", 3), Request(1, (1,), 2**31)):
        with pytest.raises(OptionError, match="request 1 can not be written"):
            asked(request)
    assert endpoint.asked == []


def test_another_process_makes_the_same_client() -> None:
    """By what can be said in JSON."""
    place, arguments = JetStream("grpc://127.0.0.1:9000", silence_s=3.0).elsewhere()
    assert place == "perfsuite.adapters.jetstream:JetStream"
    assert JetStream(**arguments).elsewhere() == (place, arguments)


def test_an_adapter_that_is_not_open() -> None:
    """Is told apart from a server that is not there."""
    with pytest.raises(EngineUnavailable, match="is not open"):
        asyncio.run(answered(JetStream("grpc://127.0.0.1:9000")))


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:9000", "http://x:1", "grpc://", "grpc://x", "grpc://x:1/v1", "grpc://x:1?a=1",
     "grpc://x:99999", "grpc://x:y", "grpc://[::1", "grpc://me@x:1", ""],
)  # fmt: skip
def test_what_is_no_url_is_refused(url: str) -> None:
    """With one as it is expected."""
    with pytest.raises(OptionError, match=r"grpc://127\.0\.0\.1:9000"):
        JetStream(url)


def test_an_address_of_ipv6_is_kept() -> None:
    """In its brackets."""
    assert JetStream("grpc://[::1]:9000")._address == "dns:///[::1]:9000"


@pytest.fixture
def authority(tmp_path: Path) -> Any:
    authority = pytest.importorskip("trustme").CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    return authority


def _tls(authority: Any, name: str) -> Any:
    made = authority.issue_cert(name)
    chain = b"".join(pem.bytes() for pem in made.cert_chain_pems)
    return grpc.ssl_server_credentials([(made.private_key_pem.bytes(), chain)])


def test_a_certificate_is_checked(endpoint: Endpoint, authority: Any, tmp_path: Path) -> None:
    """One that nobody vouches for is an error; with its authority named it is none."""

    async def main() -> None:
        async with asyncio.timeout(50), served(endpoint, _tls(authority, "127.0.0.1")) as url:
            with pytest.raises(
                EngineUnavailable, match=r"certificate of grpcs://.* does not check"
            ):
                await JetStream(url).open()
            with pytest.raises(EngineUnavailable, match="no server answers"):
                await JetStream(url.replace("grpcs", "grpc")).open()
            adapter = JetStream(url, ca_file=str(tmp_path / "authority.pem"))
            await adapter.open()
            assert await answered(adapter) == EVENTS
            await adapter.close()

    asyncio.run(main())


def test_a_certificate_of_another_name_does_not_check(
    endpoint: Endpoint, authority: Any, tmp_path: Path
) -> None:
    """Though its authority is known."""

    async def main() -> None:
        async with asyncio.timeout(50), served(endpoint, _tls(authority, "other.test")) as url:
            adapter = JetStream(url, ca_file=str(tmp_path / "authority.pem"))
            with pytest.raises(
                EngineUnavailable, match=r"certificate of grpcs://.* does not check"
            ):
                await adapter.open()

    asyncio.run(main())


def test_authorities_by_the_environment(
    endpoint: Endpoint, authority: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSL_CERT_FILE, as for https."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))

    async def main() -> None:
        async with opened(endpoint, _tls(authority, "127.0.0.1")) as adapter:
            assert await answered(adapter) == EVENTS

    asyncio.run(main())


def test_tls_to_a_server_without(endpoint: Endpoint) -> None:
    """Says so."""

    async def main() -> None:
        async with asyncio.timeout(50), served(endpoint) as url:
            with pytest.raises(EngineUnavailable, match="does not speak TLS"):
                await JetStream(url.replace("grpc", "grpcs")).open()

    asyncio.run(main())


def test_a_file_without_certificates_is_refused(tmp_path: Path) -> None:
    """Before anything is sent."""
    file = tmp_path / "none.pem"
    file.write_text("none")
    for name in (file, tmp_path / "missing.pem"):
        with pytest.raises(OptionError, match="expected a PEM file"):
            JetStream("grpcs://127.0.0.1:9", ca_file=str(name))
