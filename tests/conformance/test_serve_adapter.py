"""perfsuite's OpenAI adapter against this repository's server: both sides of the contract meet."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("aiohttp", reason="needs perfsuite[serve]")
pytest.importorskip("grpc", reason="needs perfsuite[serve]")

from perfsuite.adapters.openai import OpenAI
from perfsuite.serving.request import Request
from tests.conformance.serve_runs import Fake, served


@pytest.mark.parametrize("chat", [False, True], ids=["completions", "chat"])
def test_counts_are_exact_and_every_answer_ends(chat: bool) -> None:
    async def counted(adapter: OpenAI, number: int) -> tuple[int, int] | None:
        prompt = "hello" if chat else (5, number + 1)
        request = Request(number, prompt, 1 + number % 9, 0.0)
        events = [event async for event in adapter.send(request)]
        counts = [event.tokens for event in events if event.tokens]
        assert events[-1].done
        assert counts == sorted(counts)
        assert counts[-1] == request.max_tokens
        return events[-1].usage

    async def test() -> None:
        async with asyncio.timeout(50), served(Fake(slots=4), queue=100) as server:
            adapter = OpenAI(server.http, "fake", chat=chat)
            await adapter.open()
            found = await asyncio.gather(*(counted(adapter, number) for number in range(40)))
            await adapter.close()
            prompt = len("user: hello\nassistant:") if chat else 2
            assert found == [(prompt, 1 + number % 9) for number in range(40)]

    asyncio.run(test())
