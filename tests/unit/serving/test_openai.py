"""The adapter against a server that sends exactly the bytes it is told to."""

from __future__ import annotations

import asyncio
import importlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from perfsuite.adapters import Event, RequestFailed
from perfsuite.errors import EngineUnavailable, OptionError
from perfsuite.serving.request import Request

pytest.importorskip("aiohttp")

from perfsuite.adapters.openai import OpenAI
from perfsuite.adapters.openai_answer import Answer

REQUEST = Request(7, (5, 6, 7), 3)
SSE = "text/event-stream; charset=utf-8"


def event(data: Any) -> bytes:
    return f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()


def said(text: str, count: int | None = None, reason: str | None = None) -> bytes:
    chunk: dict[str, Any] = {
        "model": "m",
        "choices": [{"index": 0, "text": text, "finish_reason": reason}],
    }
    if count is not None:
        chunk["usage"] = {"prompt_tokens": 3, "completion_tokens": count}
    return event(chunk)


GOOD = [said(" a", 1), said(" b", 2), said(" c", 3, "length"), event("[DONE]")]
EVENTS = [
    Event(tokens=0),
    Event(1, " a"),
    Event(2, " b"),
    Event(3, " c"),
    Event(done=True, usage=(3, 3)),
]


class Endpoint:
    """A server of one kind of answer. Every piece is a write of its own; None cuts the line."""

    def __init__(self) -> None:
        self.pieces: Sequence[bytes | None] = GOOD
        self.status, self.kind = "200 OK", SSE
        self.models: Any = {"object": "list", "data": [{"id": "m"}]}
        self.models_status = "200 OK"
        self.bodies: list[dict[str, Any]] = []
        self.heads: list[str] = []
        self.connections: list[asyncio.StreamWriter] = []
        self.hang = False
        self.url = ""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        length = [line for line in head.splitlines() if line.lower().startswith("content-length")]
        body = await reader.readexactly(int(length[0].split(":")[1]) if length else 0)
        if head.startswith("GET"):
            self._whole(writer, self.models_status, json.dumps(self.models).encode())
            return True
        self.bodies.append(json.loads(body))
        return await self._answer(writer)

    def _whole(self, writer: asyncio.StreamWriter, status: str, body: bytes) -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    async def _answer(self, writer: asyncio.StreamWriter) -> bool:
        if self.hang:
            await asyncio.sleep(60)
        writer.write(
            f"HTTP/1.1 {self.status}\r\nContent-Type: {self.kind}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        for piece in self.pieces:
            if piece is None:
                return False
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(b"0\r\n\r\n")
        return True


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


@asynccontextmanager
async def served(endpoint: Endpoint, **tls: Any) -> AsyncIterator[str]:
    """The URL of a running endpoint."""
    server = await asyncio.start_server(endpoint, "127.0.0.1", 0, **tls)
    scheme = "https" if tls else "http"
    async with server:
        yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for connection in endpoint.connections:
            connection.transport.abort()


@pytest.fixture
def asked(endpoint: Endpoint) -> Callable[..., list[Event]]:
    """What an open adapter says of some requests, one after the other."""

    def ask(requests: Sequence[Request] = (REQUEST,), **options: Any) -> list[Event]:
        async def main() -> list[Event]:
            async with served(endpoint) as url:
                adapter = OpenAI(url, **options)
                await adapter.open()
                try:
                    return [e for request in requests async for e in adapter.send(request)]
                finally:
                    await adapter.close()

        return asyncio.run(main())

    return ask


Asked = Callable[..., list[Event]]


def test_a_completion(endpoint: Endpoint, asked: Asked) -> None:
    """Written, three tokens, the end; token ids go out as they are."""
    assert asked() == EVENTS
    assert endpoint.bodies == [
        {
            "model": "m",
            "prompt": [5, 6, 7],
            "max_tokens": 3,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
            "ignore_eos": True,
        }
    ]
    assert endpoint.heads[-1].startswith("POST /v1/completions ")


def test_a_text_prompt_and_the_ends_of_its_own(endpoint: Endpoint, asked: Asked) -> None:
    """A server that does not know the extension is not sent it."""
    asked([Request(0, "hello", 3)], ignore_eos=False)
    assert endpoint.bodies[0]["prompt"] == "hello"
    assert "ignore_eos" not in endpoint.bodies[0]


def test_a_chat(endpoint: Endpoint, asked: Asked) -> None:
    """The role alone is no token; thoughts and calls are output."""

    def delta(count: int, reason: str | None = None, **says: Any) -> bytes:
        choice = {"index": 0, "delta": says, "finish_reason": reason}
        usage = {"prompt_tokens": 9, "completion_tokens": count}
        return event({"model": "m", "choices": [choice], "usage": usage})

    endpoint.pieces = [
        delta(0, role="assistant", content=""),
        delta(1, reasoning="hm"),
        delta(2, reasoning_content="hm"),
        delta(3, content="yes"),
        delta(3, "stop"),
        event("[DONE]"),
    ]
    found = asked([Request(0, "hello?", 3)], chat=True)
    assert [(e.tokens, e.text) for e in found[1:-1]] == [(1, "hm"), (2, "hm"), (3, "yes")]
    assert found[-1].usage == (9, 3)
    assert endpoint.bodies[0]["messages"] == [{"role": "user", "content": "hello?"}]
    assert endpoint.heads[-1].startswith("POST /v1/chat/completions ")


def test_a_chat_takes_text(endpoint: Endpoint, asked: Asked) -> None:
    """Token ids can not be said in a message: an error before anything is sent."""
    with pytest.raises(OptionError, match="takes text"):
        asked(chat=True)
    assert endpoint.bodies == []


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_events_survive_any_split_of_the_reads(endpoint: Endpoint, asked: Asked, size: int) -> None:
    """In the middle of a character or of a line end; several events in one read."""
    whole = b": hello\r\n\r\n" + b"".join(GOOD).replace(b" a", "é✓".encode())
    endpoint.pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    assert asked() == [EVENTS[0], Event(1, "é✓"), *EVENTS[2:]]


def test_comments_and_empty_choices_are_no_tokens(endpoint: Endpoint, asked: Asked) -> None:
    """Nor is a chunk that only has the usage."""
    usage = {"prompt_tokens": 3, "completion_tokens": 3}
    endpoint.pieces = [
        b": keep-alive\n\n",
        event({"model": "m", "choices": []}),
        *GOOD[:3],
        event({"model": "m", "choices": [], "usage": usage}),
        event("[DONE]"),
    ]
    assert asked() == EVENTS


def test_a_usage_at_the_end_counts_the_answer_and_no_event(
    endpoint: Endpoint, asked: Asked
) -> None:
    """What one event held is not known; an empty text is a token whose character is not whole."""
    usage = {"prompt_tokens": 3, "completion_tokens": 5}
    endpoint.pieces = [
        said(" a"),
        said(""),
        said(" b c"),
        said("", reason="length"),
        event({"model": "m", "choices": [], "usage": usage}),
        event("[DONE]"),
    ]
    found = asked()
    assert [e.tokens for e in found[1:-1]] == [None, None, None]
    assert found[-1] == Event(done=True, usage=(3, 5))


def test_a_missing_usage_is_unknown(endpoint: Endpoint, asked: Asked) -> None:
    """Neither 0 nor the number of events."""
    endpoint.pieces = [said(" a"), said(" b", reason="length"), event("[DONE]")]
    assert asked()[-1] == Event(done=True, usage=None)


def test_a_stream_may_end_without_done(endpoint: Endpoint, asked: Asked) -> None:
    """A reason to finish is an end."""
    endpoint.pieces = GOOD[:3]
    assert asked() == EVENTS


@pytest.mark.parametrize(
    ("pieces", "kind", "says"),
    [
        (GOOD[:2], "early end", "without a reason"),
        ([*GOOD[:2], event("[DONE]")], "early end", "without a reason"),
        ([*GOOD[:2], None], "early end", "not completed"),
        ([], "early end", "without a reason"),
        ([GOOD[0], event({"error": {"message": "out of memory"}})], "error", "out of memory"),
        ([event({"error": "busy"})], "error", "busy"),
        ([said(" a", 1, "abort")], "error", "abort"),
        ([b"data: {no json}\n\n"], "malformed", "no JSON"),
        ([b"data: [1, 2]\n\n"], "malformed", "no object"),
        ([b"data: " + b"[" * 100_000 + b"\n\n"], "malformed", "no JSON"),
        ([b"data: " + b"x" * (1 << 20)] * 2, "malformed", "over 1048576 bytes"),
        ([said(" a", 1).replace(b'"m"', b'"n"')], "wrong model", "n answered, m was asked for"),
    ],
)
def test_what_is_no_whole_answer_is_a_failure(
    endpoint: Endpoint, asked: Asked, pieces: list[bytes | None], kind: str, says: str
) -> None:
    """Inside of HTTP 200, with its kind."""
    endpoint.pieces = pieces
    with pytest.raises(RequestFailed, match=says) as failed:
        asked()
    assert failed.value.kind == kind


@pytest.mark.parametrize(
    ("status", "kind", "fails"),
    [
        ("503 Service Unavailable", "application/json", "http 503"),
        ("429 Too Many Requests", "application/json", "http 429"),
        ("302 Found\r\nLocation: /v1/models", "text/html", "http 302"),
        ("200 OK", "application/json", "no stream"),
    ],
)
def test_an_answer_that_is_no_stream_is_a_failure(
    endpoint: Endpoint, asked: Asked, status: str, kind: str, fails: str
) -> None:
    """What the server says of it is kept."""
    endpoint.status, endpoint.kind = status, kind
    endpoint.pieces = [b'{"error": "the queue is full"}']
    with pytest.raises(RequestFailed, match="the queue is full") as failed:
        asked()
    assert failed.value.kind == fails


def test_silence_is_a_failure(endpoint: Endpoint, asked: Asked) -> None:
    """After as long as was said."""
    endpoint.hang = True
    with pytest.raises(RequestFailed) as failed:
        asked(silence_s=0.2)
    assert failed.value.kind == "silence"


def test_connections_serve_again(endpoint: Endpoint, asked: Asked) -> None:
    """Connecting is no part of the second request's time to first token."""
    assert asked([REQUEST] * 5) == EVENTS * 5
    assert len(endpoint.connections) == 1


def test_a_stream_that_is_given_up_leaves_nothing_behind(endpoint: Endpoint) -> None:
    """Neither a task nor an open connection: a warning of either would be an error here."""

    async def main() -> None:
        async with served(endpoint) as url:
            adapter = OpenAI(url)
            await adapter.open()
            for events in (1, 2):
                stream = adapter.send(REQUEST)
                for _ in range(events):
                    await anext(stream)
                await stream.aclose()
            await adapter.close()
            await asyncio.sleep(0)

    asyncio.run(main())


def test_a_server_that_is_gone(endpoint: Endpoint) -> None:
    """A request fails by its connection; opening again says that nobody is there."""

    async def main() -> None:
        async with served(endpoint) as url:
            adapter = OpenAI(url)
            await adapter.open()
        try:
            with pytest.raises(RequestFailed) as failed:
                [_ async for _ in adapter.send(REQUEST)]
            assert failed.value.kind in RequestFailed.LOST
            with pytest.raises(EngineUnavailable, match="no server answers"):
                await adapter.open()
        finally:
            await adapter.close()

    asyncio.run(main())


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
def test_a_url_with_or_without_v1(end: str) -> None:
    """Both are the same server."""
    assert OpenAI(f"http://127.0.0.1:8000{end}")._root == "http://127.0.0.1:8000/v1"


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", "http://", "", "http://x?a=1"])
def test_what_is_no_url_is_refused(url: str) -> None:
    """With one as it is expected."""
    with pytest.raises(OptionError, match=r"http://127\.0\.0\.1:8000"):
        OpenAI(url)


def test_nobody_at_the_url() -> None:
    """Said with the URL, in lines without a traceback."""
    adapter = OpenAI("http://127.0.0.1:9", "m")
    with pytest.raises(EngineUnavailable, match=r"no server answers at http://127\.0\.0\.1:9/v1"):
        asyncio.run(adapter.open())


def test_the_model_that_is_asked_for_is_served(endpoint: Endpoint, asked: Asked) -> None:
    """Another one is an error that names what there is; one alone need not be named."""
    with pytest.raises(EngineUnavailable, match="serves m; llama was asked for"):
        asked(model="llama")
    assert asked(model="") == EVENTS
    endpoint.models = {"data": [{"id": "m"}, {"id": "n"}]}
    assert asked(model="m") == EVENTS
    with pytest.raises(EngineUnavailable, match="serves m, n: name one of them"):
        asked(model="")
    endpoint.models = {"data": []}
    with pytest.raises(EngineUnavailable, match="serves none"):
        asked(model="")


@pytest.mark.parametrize("models", [[], {"data": 3}, {"models": ["m"]}, {"data": ["m"]}, None])
def test_a_list_of_models_that_is_none(endpoint: Endpoint, asked: Asked, models: Any) -> None:
    """Another kind of server listens there."""
    endpoint.models = models
    with pytest.raises(EngineUnavailable, match="expected an OpenAI-compatible server"):
        asked()


def test_a_server_without_a_list_of_models(endpoint: Endpoint, asked: Asked) -> None:
    """Nothing is assumed about what it serves."""
    endpoint.models_status = "404 Not Found"
    with pytest.raises(EngineUnavailable, match="answers 404"):
        asked()


def test_a_key_is_sent_and_not_shown(endpoint: Endpoint, asked: Asked) -> None:
    """In every request's head, in no error."""
    endpoint.models_status = "401 Unauthorized"
    with pytest.raises(EngineUnavailable) as refused:
        asked(key="sesame")
    assert "sesame" not in str(refused.value)
    assert "Authorization: Bearer sesame" in endpoint.heads[-1]


def test_a_certificate_is_checked(endpoint: Endpoint, tmp_path: Path) -> None:
    """One that nobody vouches for is an error; with its authority named it is none."""
    authority = pytest.importorskip("trustme").CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)

    async def main() -> list[Event]:
        async with served(endpoint, ssl=context) as url:
            with pytest.raises(EngineUnavailable, match="does not check"):
                await OpenAI(url).open()
            adapter = OpenAI(url, ca_file=str(tmp_path / "authority.pem"))
            await adapter.open()
            try:
                return [e async for e in adapter.send(REQUEST)]
            finally:
                await adapter.close()

    assert asyncio.run(main()) == EVENTS


def test_a_file_without_certificates_is_refused(tmp_path: Path) -> None:
    """Before anything is sent."""
    file = tmp_path / "none.pem"
    file.write_text("none")
    for name in (file, tmp_path / "missing.pem"):
        with pytest.raises(OptionError, match="expected a PEM file"):
            asyncio.run(OpenAI("https://127.0.0.1:9", ca_file=str(name)).open())


def test_counts_that_are_no_numbers_are_unknown() -> None:
    """And an answer is read all the same."""
    for usage in ({}, {"completion_tokens": "3"}, {"completion_tokens": None}, 7, [], None):
        answer = Answer("m")
        choice = {"text": "a", "finish_reason": "length"}
        found = answer.take(json.dumps({"choices": [choice], "usage": usage}).encode())
        assert found == Event(None, "a")
        assert answer.end() == Event(done=True)


def test_counts_that_stop_are_unknown_from_there_on() -> None:
    """A later count says nothing of the events between."""
    answer = Answer("m")
    chunks = [said(" a", 1), said(" b"), said(" c", 3, "length")]
    found = [answer.take(chunk.removeprefix(b"data: ")) for chunk in chunks]
    assert found == [Event(1, " a"), Event(None, " b"), Event(None, " c")]
    assert answer.end() == Event(done=True, usage=(3, 3))


def test_stamps_are_those_of_the_bytes(
    endpoint: Endpoint, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three tokens in one read came together, however long each takes to be understood."""
    take = Answer.take

    def slowly(self: Answer, data: bytes) -> Event | None:
        time.sleep(0.05)
        return take(self, data)

    monkeypatch.setattr(Answer, "take", slowly)
    endpoint.pieces = [b"".join(GOOD)]
    before = time.perf_counter()
    found = asked()
    stamps = {one.arrived_s for one in found[1:]}
    assert len(stamps) == 1
    (stamp,) = stamps
    assert stamp is not None
    assert before < stamp < time.perf_counter() - 0.19
    assert found[0].arrived_s is not None
    assert before < found[0].arrived_s < stamp


def test_another_process_makes_the_same_client() -> None:
    """All that it was made with, in JSON's types."""
    client = OpenAI("http://127.0.0.1:8000", "m", chat=True, key="k", silence_s=5.0)
    name, arguments = client.elsewhere()
    module, _, kind = name.partition(":")
    again = getattr(importlib.import_module(module), kind)(**json.loads(json.dumps(arguments)))
    assert again.elsewhere() == client.elsewhere()
    assert arguments["url"] == "http://127.0.0.1:8000/v1"
    assert (arguments["key"], arguments["chat"], arguments["silence_s"]) == ("k", True, 5.0)
