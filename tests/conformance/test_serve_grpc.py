"""JetStream's contract on the wire: bytes written by hand, and a client made of the descriptor."""

from __future__ import annotations

import asyncio
import gc
import gzip
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest

grpc = pytest.importorskip("grpc", reason="needs perfsuite[serve]")
pytest.importorskip("aiohttp", reason="needs perfsuite[serve]")

from google.protobuf.descriptor_pb2 import FileDescriptorProto  # noqa: E402
from google.protobuf.descriptor_pool import DescriptorPool  # noqa: E402
from google.protobuf.message_factory import GetMessageClass  # noqa: E402

from engines.serve.jetstream_proto import (  # noqa: E402
    PACKAGE,
    DecodeRequest,
    DecodeResponse,
    file_descriptor,
)
from engines.serve.text import Bytes  # noqa: E402
from perfsuite.adapters import Event, jetstream_proto  # noqa: E402
from perfsuite.adapters.jetstream import JetStream  # noqa: E402
from perfsuite.serving.request import Request  # noqa: E402
from tests.conformance import serve_frames  # noqa: E402
from tests.conformance.serve_runs import (  # noqa: E402
    VOCABULARY,
    Fake,
    answer_to,
    served,
    until,
)

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


def test_both_descriptions_of_the_contract_are_the_same() -> None:
    """The client's, in perfsuite, and the server's: every name, number and type of every field."""
    pool = DescriptorPool()
    pool.Add(file_descriptor())
    ours, theirs = FileDescriptorProto(), FileDescriptorProto()
    pool.FindFileByName("jetstream.proto").CopyToProto(ours)
    jetstream_proto._POOL.FindFileByName("jetstream.proto").CopyToProto(theirs)
    by_name = {message.name: message for message in ours.message_type}
    assert by_name == {message.name: message for message in theirs.message_type}
    methods = {f"/{PACKAGE}.Orchestrator/{each.name}" for each in ours.service[0].method}
    assert methods == {jetstream_proto.DECODE, jetstream_proto.HEALTH_CHECK}


@pytest.mark.parametrize("ids", [(0,), (5, 300, 7), (127, 128, 16383, 16384, 2**31 - 1), ()])
@pytest.mark.parametrize("tokens", [1, 127, 128, 4000])
def test_both_sides_write_the_same_bytes(ids: tuple[int, ...], tokens: int) -> None:
    """Those that are written by hand, too."""
    request = DecodeRequest(max_tokens=tokens)
    request.token_content.token_ids.extend(ids)
    if ids:
        assert jetstream_proto.request(ids, tokens) == by_hand(list(ids), tokens)
    assert jetstream_proto.request(ids, tokens) == request.SerializeToString()
    text = DecodeRequest(max_tokens=tokens)
    text.text_content.text = "é" * len(ids)
    assert jetstream_proto.request("é" * len(ids), tokens) == text.SerializeToString()
    response = DecodeResponse()
    response.stream_content.samples.add(text="é", token_ids=ids)
    assert jetstream_proto.samples(response.SerializeToString()) == [(ids, "é")]


@pytest.mark.parametrize("kind", ["ids", "text"])
def test_the_adapter_counts_what_the_server_made(kind: str) -> None:
    """Every answer ends, with the tokens that are its own."""

    async def counted(adapter: JetStream, number: int) -> Any:
        prompt = "hello" if kind == "text" else (5, number + 1)
        request = Request(number, prompt, 1 + number % 9)
        events = [event async for event in adapter.send(request)]
        ids = [token for event in events for token in event.token_ids]
        assert ids == answer_to(list(b"hello") if kind == "text" else prompt, request.max_tokens)
        assert max(event.tokens for event in events if event.tokens) == request.max_tokens
        return events[-1]

    async def body(server: Any, channel: Any) -> None:
        adapter = JetStream(f"grpc://{server.grpc}")
        await adapter.open()
        found = await asyncio.gather(*(counted(adapter, number) for number in range(150)))
        await adapter.close()
        both = [None if kind == "text" else (2, 1 + number % 9) for number in range(150)]
        assert found == [Event(done=True, usage=usage) for usage in both]

    run(body, Fake(slots=4), queue=200)


class Stub:
    """What protoc's plugin makes of the service: a callable for each method."""

    def __init__(self, channel: Any) -> None:
        self.Decode = channel.unary_stream(
            DECODE,
            request_serializer=DecodeRequest.SerializeToString,
            response_deserializer=DecodeResponse.FromString,
        )


def test_jetstreams_benchmark_works_unchanged() -> None:
    """Its calls as it makes them: a channel for every request, the client's clock beside the ids,
    the first sample of every message read without a look at what the message is."""

    async def one(address: str, prompt: list[int], tokens: int) -> list[int]:
        request = DecodeRequest(
            token_content=DecodeRequest.TokenContent(token_ids=prompt),
            max_tokens=tokens,
            metadata=DecodeRequest.Metadata(start_time=time.perf_counter()),
        )
        found: list[int] = []
        options = [("grpc.keepalive_timeout_ms", 10_000)]
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            async for response in Stub(channel).Decode(request):
                found.extend(response.stream_content.samples[0].token_ids)
        return found

    async def body(server: Any, channel: Any) -> None:
        asks = [([number + 1, 5], 1 + number % 7) for number in range(60)]
        found = await asyncio.gather(*(one(server.grpc, *ask) for ask in asks))
        assert found == [answer_to(*ask) for ask in asks]

    run(body, Fake(slots=4))
    run(body, Fake(slots=64))


@pytest.mark.parametrize("content", ["text_content", "token_content"])
def test_jetstreams_requester_works_unchanged(content: str) -> None:
    """It blocks, waits for its channel, and gathers every sample of as many as it asked for."""

    def ask(address: str) -> dict[int, list[Any]]:
        request = DecodeRequest(
            text_content=DecodeRequest.TextContent(text="My dog is cute"),
            max_tokens=3, num_samples=1, lora_adapter_id="",
        )  # fmt: skip
        if content == "token_content":
            ids = DecodeRequest.TokenContent(token_ids=list(b"My dog is cute"))
            request = DecodeRequest(token_content=ids, max_tokens=3, num_samples=1)
        outputs: dict[int, list[Any]] = {index: [] for index in range(request.num_samples)}
        with grpc.insecure_channel(address) as channel:
            grpc.channel_ready_future(channel).result(timeout=30)
            for response in Stub(channel).Decode(request):
                for index, sample in enumerate(response.stream_content.samples):
                    outputs[index].extend(sample.token_ids if "token" in content else sample.text)
        return outputs

    async def body(server: Any, channel: Any) -> None:
        found = await asyncio.to_thread(ask, server.grpc)
        ids = answer_to(list(b"My dog is cute"), 3)
        reader = Bytes(VOCABULARY).reader()
        assert found == {0: list(reader.read(ids) + reader.rest()) if "text" in content else ids}

    run(body)


async def answered(channel: Any, prompt: list[int], tokens: int) -> list[int]:
    found: list[int] = []
    async for response in channel.unary_stream(DECODE)(by_hand(prompt, tokens)):
        found += ids_by_hand(response)
    return found


async def raw(server: Any, *sent: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = server.grpc.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"".join(sent))
    await writer.drain()
    return reader, writer


async def read_to(reader: asyncio.StreamReader, words: bytes) -> bytes:
    """All that came until these words, which must come."""
    found = b""
    while words not in found:
        piece = await reader.read(1000)
        assert piece, found
        found += piece
    return found


WHOLE = serve_frames.opening() + serve_frames.decode(by_hand([5], 3))


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"\x00" * 100, id="zeros"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01" + b"\x00" * 200, id="TLS"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{}", id="HTTP/1.1"),
        pytest.param(serve_frames.opening()[:-5], id="half an opening"),
        pytest.param(serve_frames.opening() + b"\xff" * 200, id="junk for frames"),
        pytest.param(WHOLE[:-3], id="half a request"),
        pytest.param(
            serve_frames.opening() + serve_frames.frame(1, 4, 1, b"\xff" * 100), id="junk headers"
        ),
        pytest.param(
            serve_frames.opening() + serve_frames.frame(0, 1, 7, b"x" * 10), id="no such stream"
        ),
        pytest.param(
            serve_frames.opening() + serve_frames.asked(1) + serve_frames.frame(
                0, 1, 1, serve_frames.message(by_hand([5], 3), length=9000)
            ), id="longer by its own word",
        ),
        pytest.param(
            serve_frames.opening() + serve_frames.asked(1, **{"grpc-encoding": "gzip"})
            + serve_frames.frame(0, 1, 1, serve_frames.message(b"no gzip", compressed=1)),
            id="no gzip",
        ),
        pytest.param(
            serve_frames.opening() + serve_frames.asked(1, **{"grpc-timeout": "1e9S"}),
            id="no such deadline",
        ),
    ],
)  # fmt: skip
def test_malformed_frames_take_no_slot_and_stop_nobody(sent: bytes) -> None:
    async def body(server: Any, channel: Any) -> None:
        _, writer = await raw(server, sent)
        assert await answered(channel, [5], 3) == answer_to([5], 3)
        writer.close()
        assert await answered(channel, [6], 3) == answer_to([6], 3)
        assert await channel.unary_unary(HEALTH)(b"") == b"\x08\x01"
        assert [call for call in server.engine.calls if call[0] == "start"] == [("start", [0])] * 2

    run(body)


def test_frames_by_hand_are_a_request() -> None:
    """What the tests above spoil is good before."""

    async def body(server: Any, channel: Any) -> None:
        reader, writer = await raw(server, WHOLE)
        found = await read_to(reader, b"grpc-status")
        wanted = answer_to([5], 3)
        assert wanted == [token for piece in found.split(b"\x1a")[1:] for token in tokens_in(piece)]
        writer.close()

    run(body)


def tokens_in(piece: bytes) -> list[int]:
    """Of the rest of a response behind its first tag; frames of HTTP/2 follow."""
    return ids_by_hand(b"\x1a" + piece[: piece[0] + 1])


@pytest.mark.parametrize("path", ["/jetstream_proto.Orchestrator/Encode", "/x.Y/Decode", "/"])
def test_another_method_is_unimplemented(path: str) -> None:
    async def body(server: Any, channel: Any) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(path)(b"")
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED

    run(body)


def test_a_message_that_grows_when_it_is_unpacked_is_refused() -> None:
    """Half a megabyte of it would be 500 MB."""

    async def body(server: Any, channel: Any) -> None:
        packed = gzip.compress(b" " * 20_000_000)
        assert len(packed) < 2**20
        reader, writer = await raw(
            server,
            serve_frames.opening(),
            serve_frames.asked(1, **{"grpc-encoding": "gzip"}),
            *in_frames(serve_frames.message(packed, compressed=1)),
        )
        assert b"larger than max" in await read_to(reader, b"grpc-status")
        assert not server.engine.calls
        writer.close()

    run(body)


@pytest.mark.parametrize("times", [1, 3])
def test_a_path_that_is_no_text_ends_no_answer_and_the_port_listens_again(
    times: int, caplog: pytest.LogCaptureFixture
) -> None:
    """It ends the library's loop that takes requests, which would be the end of the service."""
    engine = Fake(slots=4, gate=threading.Semaphore(0))

    async def body(server: Any, channel: Any) -> None:
        under_way = asyncio.create_task(answered(channel, [5], 6))
        await until(lambda: server.front.load.running == 1)
        for number in range(times):
            _, writer = await raw(server, WHOLE.replace(b"proto.Orch", b"proto\xf1Orch"))
            await until(lambda: caplog.text.count("it listens again") > number)  # noqa: B023
            await until_live(server)
            writer.close()
        engine.gate.release(1000)
        assert await under_way == answer_to([5], 6)
        async with grpc.aio.insecure_channel(server.grpc, options=OWN) as other:
            assert await answered(other, [6], 3) == answer_to([6], 3)

    run(body, engine)


OWN = [("grpc.use_local_subchannel_pool", 1)]


async def until_live(server: Any) -> None:
    live = b""
    while live != b"\x08\x01":
        async with grpc.aio.insecure_channel(server.grpc, options=OWN) as fresh:
            with suppress(grpc.aio.AioRpcError):
                live = await fresh.unary_unary(HEALTH)(b"", timeout=5)


def in_frames(data: bytes) -> list[bytes]:
    """Frames of a stream as long as HTTP/2 lets them be; the last one ends it."""
    cuts = range(0, len(data), 16384)
    return [
        serve_frames.frame(0, int(at + 16384 >= len(data)), 1, data[at : at + 16384]) for at in cuts
    ]


def test_a_message_of_100_megabytes_is_refused_unread() -> None:
    """By the length that it claims: the client can send no more than a window of it."""

    async def body(server: Any, channel: Any) -> None:
        claimed = serve_frames.message(b"", length=100_000_000)
        reader, writer = await raw(
            server,
            serve_frames.opening(),
            serve_frames.asked(1),
            serve_frames.frame(0, 0, 1, claimed),
        )
        await read_to(reader, b"larger than max")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(DECODE)(b" " * 100_000_000)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert not server.engine.calls
        writer.close()

    run(body)


def test_clients_that_vanish_free_their_slots() -> None:
    """Without a word of HTTP/2: their connection is reset. Who was in a slot leaves it, once."""
    engine = Fake(slots=8, gate=threading.Semaphore(0))

    async def body(server: Any, channel: Any) -> None:
        sent = serve_frames.opening() + serve_frames.decode(by_hand([5], 4000))
        clients = [await raw(server, sent) for _ in range(20)]
        await until(lambda: now(server) == (8, 12) or engine.gate.release())
        for _, writer in clients:
            linger = struct.pack("ii", 1, 0)  # the system sends a reset, and nothing before it
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.close()
        await until(lambda: engine.gate.release() or not any(now(server)))
        started = sum(len(slots) for name, slots in engine.calls if name == "start")
        assert started == sum(name == "end" for name, _ in engine.calls)
        task = asyncio.create_task(answered(channel, [6], 3))
        await until(lambda: engine.gate.release() or task.done())
        assert task.result() == answer_to([6], 3)

    run(body, engine)


def now(server: Any) -> tuple[int, int]:
    return server.front.load.running, server.front.load.waiting


LITTLE = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1024)]


def test_a_reader_that_takes_nothing_is_cut() -> None:
    """Its slot is free at once, and it is told why when it reads again."""

    async def body(server: Any, channel: Any) -> None:
        async with grpc.aio.insecure_channel(server.grpc, options=LITTLE) as narrow:
            slow = narrow.unary_stream(DECODE)(by_hand([5], 10**6))
            assert ids_by_hand(await slow.read())
            await until(lambda: server.front.load.running == 0)
            assert server.engine.steps < 10**6 - 1
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await read_on(slow)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert caught.value.details() == "nothing was taken for 0.5 s"

    run(body, Fake(slots=1), output_tokens=10**6, stall_s=0.5)


async def read_on(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


def test_slow_readers_hold_up_nobody_and_lose_nothing() -> None:
    """They read one message until the quick ones have their answers, and then each a while after
    the one before; what came meanwhile is in the next."""

    async def body(server: Any, channel: Any) -> None:
        quick_are_answered = asyncio.Event()

        async def slowly(number: int) -> bool:
            found: list[int] = []
            async for response in narrow.unary_stream(DECODE)(by_hand([number], 3000)):
                found += ids_by_hand(response)
                await quick_are_answered.wait()
                await asyncio.sleep(0.02)
            return found == answer_to([number], 3000)

        async with grpc.aio.insecure_channel(server.grpc, options=LITTLE) as narrow:
            slow = [asyncio.create_task(slowly(number + 1)) for number in range(20)]
            while server.front.load.running + server.front.load.waiting < 20:
                await asyncio.sleep(0.001)
            for number in range(30):
                assert await answered(channel, [number + 1], 3) == answer_to([number + 1], 3)
            assert not any(task.done() for task in slow)
            quick_are_answered.set()
            assert all(await asyncio.gather(*slow))

    run(body, Fake(slots=32))


def test_a_thousand_streams_at_once_lose_nothing_and_health_answers() -> None:
    """All of them open before the first is answered; each gets its own tokens."""
    engine = Fake(slots=64, gate=threading.Semaphore(0))

    async def body(server: Any, channel: Any) -> None:
        async def ask(connection: Any, number: int) -> bool:
            prompt, tokens = [number % 900, number // 900 + 1], 2 + number % 7
            return await answered(connection, prompt, tokens) == answer_to(prompt, tokens)

        async with AsyncExitStack() as open_:
            local = [("grpc.use_local_subchannel_pool", 1)]
            channels = [
                await open_.enter_async_context(
                    grpc.aio.insecure_channel(server.grpc, options=local)
                )
                for _ in range(10)
            ]
            asked = [asyncio.create_task(ask(channels[at % 10], at)) for at in range(1000)]
            await until(lambda: sum(now(server)) == 1000)
            healthy = 0
            while not all(task.done() for task in asked):
                healthy += await channel.unary_unary(HEALTH)(b"") == b"\x08\x01"
                engine.gate.release()
            assert healthy > 20
            assert all(task.result() for task in asked)
        assert now(server) == (0, 0)

    run(body, engine, queue=2000)


def test_answered_requests_leave_nothing_in_memory() -> None:
    """Whole answers, refusals and clients that go, again and again."""

    async def body(server: Any, channel: Any) -> None:
        async def ask(number: int) -> None:
            call = channel.unary_stream(DECODE)(
                by_hand([number % 900], 0 if number % 5 == 1 else 5)
            )
            if number % 7 == 0:
                await call.wait_for_connection()
                call.cancel()
                return
            with suppress(grpc.aio.AioRpcError):
                async for _ in call:
                    pass

        async def objects_after(count: int) -> int:
            for _ in range(count // 20):
                await asyncio.gather(*(ask(number) for number in range(20)))
            await until(lambda: not any(now(server)))
            server.engine.calls.clear()
            gc.collect()
            return len(gc.get_objects())

        before = await objects_after(600)
        after = await objects_after(1800)
        assert after < before * 1.02

    run(body, Fake(slots=16))
