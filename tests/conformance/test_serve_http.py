"""OpenAI's endpoints over real sockets: streams, counts, refusals, clients that go or stall."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

aiohttp = pytest.importorskip("aiohttp", reason="needs perfsuite[serve]")
pytest.importorskip("grpc", reason="needs perfsuite[serve]")

from tests.conformance.serve_runs import STOP, Fake, Served, answer_to, served, until  # noqa: E402

Test = Callable[[], Coroutine[Any, Any, None]]


def run(test: Test) -> None:
    async def limited() -> None:
        async with asyncio.timeout(50):
            await test()

    asyncio.run(limited())


async def posted(client: Any, server: Served, path: str, body: Any) -> tuple[int, Any, Any]:
    async with client.post(server.http + path, json=body) as response:
        return response.status, await response.json(), response.headers


async def events(response: Any) -> AsyncIterator[Any]:
    """The data of each event; "[DONE]" as it is."""
    async for line in response.content:
        if line.startswith(b"data: "):
            data = line.removeprefix(b"data: ").strip()
            yield "[DONE]" if data == b"[DONE]" else json.loads(data)


def test_a_completion_in_one_piece() -> None:
    async def test() -> None:
        async with served() as server, aiohttp.ClientSession() as client:
            body = {"model": "fake", "prompt": [5, 6], "max_tokens": 4, "return_token_ids": True}
            status, found, _ = await posted(client, server, "/v1/completions", body)
            assert status == 200
            assert found["choices"][0]["token_ids"] == answer_to([5, 6], 4)
            assert found["choices"][0]["finish_reason"] == "length"
            assert found["usage"] == {
                "prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6,
                "prompt_tokens_details": {"cached_tokens": 0},
            }  # fmt: skip
            _, found, _ = await posted(client, server, "/v1/completions", {"prompt": [99, 1]})
            assert found["usage"]["prompt_tokens_details"] == {"cached_tokens": 1}

    run(test)


def test_a_stream_has_a_count_in_every_chunk_and_ends_with_done() -> None:
    async def test() -> None:
        async with served() as server, aiohttp.ClientSession() as client:
            options = {"include_usage": True, "continuous_usage_stats": True}
            body = {"prompt": "hi", "max_tokens": 5, "stream": True, "stream_options": options}
            async with client.post(server.http + "/v1/completions", json=body) as response:
                assert response.headers["Content-Type"] == "text/event-stream"
                found = [event async for event in events(response)]
            assert found[-1] == "[DONE]"
            assert found[-2]["choices"] == []
            assert found[-2]["usage"]["completion_tokens"] == 5
            counts = [event["usage"]["completion_tokens"] for event in found[:-2]]
            assert counts == sorted(set(counts))
            assert found[-3]["choices"][0]["finish_reason"] == "length"
            assert found[0]["usage"]["prompt_tokens"] == 2

    run(test)


def test_a_chat_begins_with_its_role_and_stops_at_the_stop_token() -> None:
    async def test() -> None:
        async with served(Fake(stop_after=3)) as server, aiohttp.ClientSession() as client:
            messages = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
            body = {"messages": messages, "stream": True, "stream_options": {"include_usage": True}}
            async with client.post(server.http + "/v1/chat/completions", json=body) as response:
                found = [event async for event in events(response)]
            assert found[0]["object"] == "chat.completion.chunk"
            assert found[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
            assert found[-3]["choices"][0]["finish_reason"] == "stop"
            assert found[-2]["usage"]["completion_tokens"] == 3
            body = {"messages": messages, "max_completion_tokens": 6, "ignore_eos": True}
            _, whole, _ = await posted(client, server, "/v1/chat/completions", body)
            assert whole["choices"][0]["finish_reason"] == "length"
            assert whole["usage"]["completion_tokens"] == 6
            assert whole["choices"][0]["message"]["role"] == "assistant"
            assert STOP not in answer_to([5], 100)

    run(test)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"prompt": []}, "a prompt of 0 tokens, expected 1 to 4096"),
        ({"prompt": [1] * 5000}, "a prompt of 5000 tokens"),
        ({"prompt": [1000]}, "token ids from 1000 to 1000, expected 0 to 999"),
        ({"prompt": [-1]}, "token ids from -1"),
        ({"prompt": [True]}, "expected one string or one list of token ids"),
        ({"prompt": [[1], [2]]}, "send several prompts as several requests"),
        ({"prompt": "a", "max_tokens": 0}, "got max_tokens 0, expected 1 to 4096"),
        ({"prompt": "a", "max_tokens": "5"}, "expected one whole number"),
        ({"prompt": "a", "temperature": 0.7}, "got temperature 0.7, expected 0"),
        ({"prompt": "a", "n": 2}, "got n 2, expected 1"),
        ({"prompt": "a", "stop": ["."]}, "got stop"),
        ({"prompt": "a", "surprise": 1}, 'the field "surprise" is not known here'),
        ({"prompt": "a", "stream": 1}, "got stream 1, expected true or false"),
        ({"prompt": "a", "stream_options": {}}, "need stream: true"),
        ({}, "got prompt null"),
        ([], "the body is a list, expected an object"),
    ],
)
def test_what_can_not_be_given_is_refused_by_name(body: Any, words: str) -> None:
    async def test() -> None:
        async with served() as server, aiohttp.ClientSession() as client:
            status, found, _ = await posted(client, server, "/v1/completions", body)
            assert status == 400
            assert words in found["error"]["message"]
            assert not server.engine.calls

    run(test)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"prompt": 1e999}'])
def test_bodies_that_are_no_json_are_refused(body: bytes) -> None:
    async def test() -> None:
        async with served() as server, aiohttp.ClientSession() as client:
            url = server.http + "/v1/completions"
            async with client.post(url, data=body) as response:
                assert response.status == 400
                assert "message" in (await response.json())["error"]

    run(test)


def test_another_model_and_another_path_are_not_found() -> None:
    async def test() -> None:
        async with served() as server, aiohttp.ClientSession() as client:
            body = {"model": "other", "prompt": "a"}
            status, found, _ = await posted(client, server, "/v1/completions", body)
            assert status == 404
            assert found["error"]["message"] == 'got model "other", this server has \'fake\''
            async with client.get(server.http + "/v2") as response:
                assert response.status == 404
                assert (await response.json())["error"]["code"] == 404
            async with client.get(server.http + "/v1/models") as response:
                model = (await response.json())["data"][0]
                assert model["id"] == "fake"

    run(test)


def test_a_full_queue_is_429_and_health_still_answers() -> None:
    async def test() -> None:
        engine = Fake(slots=1, gate=threading.Semaphore(0))
        async with served(engine, queue=1) as server, aiohttp.ClientSession() as client:
            body = {"prompt": "a", "max_tokens": 3}
            asks = [
                asyncio.create_task(posted(client, server, "/v1/completions", body))
                for _ in range(2)
            ]
            await until(lambda: server.front.load.running + server.front.load.waiting == 2)
            status, found, headers = await posted(client, server, "/v1/completions", body)
            assert status == 429
            assert headers["Retry-After"] == "1"
            assert found["error"]["type"] == "rate_limit_error"
            for _ in range(20):
                async with client.get(server.http + "/health") as response:
                    health = await response.json()
                    assert response.status == 200
            assert (health["running"], health["waiting"]) == (1, 1)
            engine.gate.release(100)
            assert [status for status, _, _ in await asyncio.gather(*asks)] == [200, 200]

    run(test)


def test_a_client_that_goes_frees_its_slot() -> None:
    async def test() -> None:
        engine = Fake(slots=1, gate=threading.Semaphore(0))
        async with served(engine) as server:
            for stream in (True, False):
                body = {"prompt": "a", "max_tokens": 4000, "stream": stream}
                reader, writer = await raw_post(server, json.dumps(body).encode())
                await until(lambda: server.front.load.running == 1)
                if stream:
                    await reader.readuntil(b"data: ")
                writer.close()
                await writer.wait_closed()
                await until(lambda: released(engine) and server.front.load.running == 0)

    def released(engine: Fake) -> bool:
        engine.gate.release()
        return True

    run(test)


async def raw_post(server: Served, body: bytes, length: int | None = None) -> tuple[Any, Any]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port)
    writer.write(post_of(body, length))
    await writer.drain()
    return reader, writer


def post_of(body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
    return head.encode() + body


def test_a_body_of_100_mb_is_refused_unread() -> None:
    """With its length said, and without: in chunks."""

    async def pushed(writer: Any, piece: bytes) -> int:
        """Bytes that the server's side took before it ended the connection, of 100 MB."""
        sent = 0
        try:
            while sent < 100_000_000:
                writer.write(piece)
                await writer.drain()
                sent += len(piece)
        except ConnectionError:
            pass
        return sent

    async def test() -> None:
        async with served() as server:
            reader, writer = await raw_post(server, b"", length=100_000_000)
            assert b" 413 " in await reader.readline()
            assert b"expected at most 1048576" in await reader.read()
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port)
            head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            writer.write(head.encode())
            assert await pushed(writer, b"10000\r\n" + b" " * 65536 + b"\r\n") < 20_000_000
            writer.close()
            async with aiohttp.ClientSession() as client:
                status, _, _ = await posted(
                    client, server, "/v1/completions", {"prompt": "a", "max_tokens": 1}
                )
                assert status == 200

    run(test)


def test_a_small_body_that_inflates_is_refused() -> None:
    async def test() -> None:
        async with served() as server, aiohttp.ClientSession() as client:
            body = gzip.compress(b" " * 100_000_000)
            assert len(body) < 2**20
            url, headers = server.http + "/v1/completions", {"Content-Encoding": "gzip"}
            async with client.post(url, data=body, headers=headers) as response:
                assert response.status == 413

    run(test)


def test_who_asks_first_is_told_before_the_body() -> None:
    async def test() -> None:
        async with served() as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port)
            writer.write(
                b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n"
                b"Expect: 100-continue\r\n\r\n"
            )
            assert b" 413 " in await reader.readline()
            writer.close()

    run(test)


def test_a_body_that_does_not_come_ends_in_408() -> None:
    async def test() -> None:
        async with served(stall_s=0.2) as server:
            reader, writer = await raw_post(server, b"{", length=100)
            assert b" 408 " in await reader.readline()
            writer.close()

    run(test)


def test_frames_that_are_no_http_do_not_stop_others() -> None:
    async def test() -> None:
        async with served() as server, aiohttp.ClientSession() as client:
            for junk in (b"\x00\x01\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET\r\n"):
                reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port)
                writer.write(junk)
                await reader.read()
                writer.close()
            body = {"prompt": "a", "max_tokens": 1}
            assert (await posted(client, server, "/v1/completions", body))[0] == 200

    run(test)


def test_a_slow_reader_stops_nobody_and_is_cut() -> None:
    """It holds no slot once its answer is made; the connection ends when it takes nothing."""

    async def test() -> None:
        async with served(Fake(slots=2), output_tokens=50_000, stall_s=1.0) as server:
            server.send_little()
            body = {"prompt": "a", "max_tokens": 50_000, "stream": True, "return_token_ids": True}
            slow = await asyncio.to_thread(connected_with_little_room, server.http_port)
            await asyncio.to_thread(slow.sendall, post_of(json.dumps(body).encode()))
            async with aiohttp.ClientSession() as client:
                for _ in range(20):
                    quick = {"prompt": "b", "max_tokens": 3}
                    assert (await posted(client, server, "/v1/completions", quick))[0] == 200
            await until(lambda: server.front.load.running == 0)
            await until(lambda: server.connections == 0)
            assert b"[DONE]" not in await asyncio.to_thread(all_of, slow)

    run(test)


def connected_with_little_room(port: int) -> socket.socket:
    """A client whose system buffers little, so that the server notices who does not read."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(20)
    client.connect(("127.0.0.1", port))
    return client


def all_of(client: socket.socket) -> bytes:
    """What can be read until the end of the connection."""
    found = b""
    with client:
        try:
            while piece := client.recv(65536):
                found += piece
        except ConnectionError:
            pass
    return found


def test_a_failing_engine_ends_streams_with_an_error_and_health_says_so() -> None:
    async def test() -> None:
        engine = Fake(slots=1, fails_at=3, gate=threading.Semaphore(0))
        async with served(engine) as server, aiohttp.ClientSession() as client:
            body = {"prompt": "a", "max_tokens": 100, "stream": True}
            async with client.post(server.http + "/v1/completions", json=body) as response:
                engine.gate.release(3)
                found = [event async for event in events(response)]
            assert "RuntimeError: planted" in found[-1]["error"]["message"]
            status, found, _ = await posted(client, server, "/v1/completions", {"prompt": "a"})
            assert status == 503
            async with client.get(server.http + "/health") as response:
                assert response.status == 503
                assert "planted" in (await response.json())["reason"]

    run(test)


def test_a_thousand_connections_at_once_lose_nothing() -> None:
    async def test() -> None:
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            served(Fake(slots=64), queue=2000) as server,
            aiohttp.ClientSession(connector=connector) as client,
        ):

            async def ask(number: int) -> bool:
                prompt = [number % 900, number // 900 + 1]
                body = {"prompt": prompt, "max_tokens": 1 + number % 7, "return_token_ids": True}
                status, found, _ = await posted(client, server, "/v1/completions", body)
                wanted = answer_to(prompt, 1 + number % 7)
                return status == 200 and found["choices"][0]["token_ids"] == wanted

            asked = asyncio.gather(*(ask(number) for number in range(1000)))
            answered = 0
            while not asked.done():
                async with client.get(server.http + "/health") as response:
                    answered += response.status == 200
            assert answered
            assert all(await asked)
            assert server.front.load.running == server.front.load.waiting == 0

    run(test)


def test_answered_requests_leave_nothing_in_memory() -> None:
    """Streams, whole answers, refusals and clients that go, again and again."""

    async def test() -> None:
        async with served(Fake(slots=16)) as server, aiohttp.ClientSession() as client:

            async def ask(number: int) -> None:
                body = {"prompt": [number % 900], "max_tokens": 5, "stream": number % 2 == 0}
                url = server.http + "/v1/completions"
                async with client.post(url, json=body | {"n": 1 + (number % 5 == 1)}) as response:
                    if number % 7:
                        await response.read()

            async def objects_after(count: int) -> int:
                for _ in range(count // 20):
                    await asyncio.gather(*(ask(number) for number in range(20)))
                await until(lambda: server.front.load.running == 0)
                server.engine.calls.clear()
                gc.collect()
                return len(gc.get_objects())

            before = await objects_after(600)
            after = await objects_after(1800)
            assert after < before * 1.02

    run(test)
