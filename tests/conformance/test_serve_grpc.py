"""JetStream's contract on the wire: bytes written by hand, and a client made of the descriptor."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

grpc = pytest.importorskip("grpc", reason="needs perfsuite[serve]")
pytest.importorskip("aiohttp", reason="needs perfsuite[serve]")

from google.protobuf.descriptor_pool import DescriptorPool  # noqa: E402
from google.protobuf.message_factory import GetMessageClass  # noqa: E402

from engines.serve.jetstream_proto import file_descriptor  # noqa: E402
from tests.conformance.serve_runs import Fake, answer_to, served, until  # noqa: E402

DECODE = "/jetstream_proto.Orchestrator/Decode"
HEALTH = "/jetstream_proto.Orchestrator/HealthCheck"
Body = Callable[[Any, Any], Coroutine[Any, Any, None]]


def run(body: Body, *arguments: Any, **options: Any) -> None:
    """With a server and a channel to it."""

    async def limited() -> None:
        async with (
            asyncio.timeout(50),
            served(*arguments, **options) as server,
            grpc.aio.insecure_channel(server.grpc) as channel,
        ):
            await body(server, channel)

    asyncio.run(limited())


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def by_hand(prompt: list[int], max_tokens: int) -> bytes:
    """A DecodeRequest of token ids: field 4 max_tokens, field 6 { field 1: packed ids }."""
    ids = b"".join(varint(token) for token in prompt)
    content = b"\x0a" + varint(len(ids)) + ids
    return b"\x20" + varint(max_tokens) + b"\x32" + varint(len(content)) + content


def ids_by_hand(response: bytes) -> list[int]:
    """A DecodeResponse's token ids: field 3 { field 1 { field 2: packed ids } }, no text."""
    sample = inside(inside(response, 0x1A), 0x0A)
    return numbers(inside(sample, 0x12)) if sample else []


def inside(message: bytes, tag: int) -> bytes:
    """The only field of a message, which has this tag and a length."""
    assert message[0] == tag
    end = next(place for place in range(1, len(message)) if message[place] < 128) + 1
    assert numbers(message[1:end]) == [len(message) - end]
    return message[end:]


def numbers(packed: bytes) -> list[int]:
    found, number, shift = [], 0, 0
    for byte in packed:
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            found.append(number)
            number = shift = 0
    return found


def test_bytes_written_by_hand_are_answered() -> None:
    async def body(server: Any, channel: Any) -> None:
        decode = channel.unary_stream(DECODE)
        found: list[int] = []
        async for response in decode(by_hand([5, 300, 7], 6)):
            found += ids_by_hand(response)
        assert found == answer_to([5, 300, 7], 6)
        assert await channel.unary_unary(HEALTH)(b"") == b"\x08\x01"

    run(body)


def test_a_client_made_of_the_descriptor_alone_works() -> None:
    pool = DescriptorPool()
    file = pool.Add(file_descriptor()) or pool.FindFileByName("jetstream.proto")
    service = file.services_by_name["Orchestrator"]
    method = service.methods_by_name["Decode"]
    request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)

    async def body(server: Any, channel: Any) -> None:
        decode = channel.unary_stream(
            f"/{service.full_name}/{method.name}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        asked = request(max_tokens=4, num_samples=1, has_bos=True)
        asked.text_content.text = "hi"
        asked.metadata.start_time = 1.5
        samples = [each.stream_content.samples[0] async for each in decode(asked)]
        ids = [token for sample in samples for token in sample.token_ids]
        assert ids == answer_to(list(b"hi"), 4)
        assert "".join(sample.text for sample in samples)

    run(body)


def test_a_stop_token_is_not_sent() -> None:
    async def body(server: Any, channel: Any) -> None:
        found: list[int] = []
        async for response in channel.unary_stream(DECODE)(by_hand([5], 50)):
            found += ids_by_hand(response)
        assert found == answer_to([5], 2)

    run(body, Fake(stop_after=3))


@pytest.mark.parametrize(
    ("message", "status", "words"),
    [
        (b"\xff\xff\xff", "INVALID_ARGUMENT", "no DecodeRequest"),
        (b"", "INVALID_ARGUMENT", "neither text_content nor token_content"),
        (b"\x20\x05", "INVALID_ARGUMENT", "neither text_content nor token_content"),
        (by_hand([5], 0), "INVALID_ARGUMENT", "got max_tokens 0"),
        (by_hand([5], 5000), "INVALID_ARGUMENT", "got max_tokens 5000, expected 1 to 4096"),
        (by_hand([], 5), "INVALID_ARGUMENT", "a prompt of 0 tokens"),
        (by_hand([5000], 5), "INVALID_ARGUMENT", "token ids from 5000"),
        (by_hand([5], 5) + b"\x40\x02", "INVALID_ARGUMENT", "num_samples 2"),
        (by_hand([5], 5) + b"\x4a\x01x", "INVALID_ARGUMENT", "lora_adapter_id 'x'"),
        (b" " * 2_000_000, "RESOURCE_EXHAUSTED", ""),
    ],
)
def test_what_can_not_be_given_is_refused(message: bytes, status: str, words: str) -> None:
    async def body(server: Any, channel: Any) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in channel.unary_stream(DECODE)(message):
                pass
        assert caught.value.code() == grpc.StatusCode[status]
        assert words in caught.value.details()
        assert not server.engine.calls

    run(body)


def test_a_full_queue_is_resource_exhausted_and_health_answers() -> None:
    async def body(server: Any, channel: Any) -> None:
        first = channel.unary_stream(DECODE)(by_hand([5], 50))
        await until(lambda: server.front.load.running == 1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in channel.unary_stream(DECODE)(by_hand([6], 5)):
                pass
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await channel.unary_unary(HEALTH)(b"") == b"\x08\x01"
        first.cancel()

    run(body, Fake(slots=1, gate=threading.Semaphore(0)), queue=0)


def test_a_client_that_cancels_frees_its_slot() -> None:
    engine = Fake(slots=1, gate=threading.Semaphore(0))

    async def body(server: Any, channel: Any) -> None:
        call = channel.unary_stream(DECODE)(by_hand([5], 4000))
        assert ids_by_hand(await call.read()) == answer_to([5], 1)
        call.cancel()
        await until(lambda: engine.gate.release() or server.front.load.running == 0)

    run(body, engine)


def test_a_failing_engine_is_an_error_and_not_live() -> None:
    async def body(server: Any, channel: Any) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in channel.unary_stream(DECODE)(by_hand([5], 50)):
                pass
        assert caught.value.code() == grpc.StatusCode.INTERNAL
        assert "RuntimeError: planted" in caught.value.details()
        assert await channel.unary_unary(HEALTH)(b"") in (b"", b"\x08\x00")

    run(body, Fake(fails_at=3))


def test_frames_that_are_no_http_2_do_not_stop_others() -> None:
    async def body(server: Any, channel: Any) -> None:
        host, port = server.grpc.split(":")
        for junk in (b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 64):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(junk)
            await reader.read()
            writer.close()
        found: list[int] = []
        async for response in channel.unary_stream(DECODE)(by_hand([5], 3)):
            found += ids_by_hand(response)
        assert found == answer_to([5], 3)

    run(body)


def test_a_slow_reader_stops_nobody() -> None:
    async def body(server: Any, channel: Any) -> None:
        slow = channel.unary_stream(DECODE)(by_hand([5], 30_000))
        assert ids_by_hand(await slow.read())
        for number in range(20):
            found: list[int] = []
            async for response in channel.unary_stream(DECODE)(by_hand([number + 1], 3)):
                found += ids_by_hand(response)
            assert found == answer_to([number + 1], 3)
        await until(lambda: server.front.load.running == 0)
        slow.cancel()

    run(body, Fake(slots=2), output_tokens=30_000)


def test_many_answers_at_once_are_whole() -> None:
    async def body(server: Any, channel: Any) -> None:
        async def ask(number: int) -> bool:
            prompt = [number % 900, number // 900 + 1]
            found: list[int] = []
            async for response in channel.unary_stream(DECODE)(by_hand(prompt, 1 + number % 5)):
                found += ids_by_hand(response)
            return found == answer_to(prompt, 1 + number % 5)

        assert all(await asyncio.gather(*(ask(number) for number in range(500))))

    run(body, Fake(slots=32), queue=1000)
