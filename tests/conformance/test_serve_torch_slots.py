"""The torch slots against the reference: prompts of all lengths come and go, with a prefix too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from engines.serve.front import Front  # noqa: E402
from engines.serve.torch_slots import TorchSlots, padded_rows, padded_tokens  # noqa: E402
from engines.weights import SeededWeights  # noqa: E402
from perfsuite.workloads.workload import Model  # noqa: E402
from tests.conformance.serve_slots import (  # noqa: E402
    Driver,
    Run,
    interleaved,
    judge,
    judge_tokens,
    prompt,
)

PREFIX = prompt(11, 99)


def opened(model: Model, dtype: str = "float32", slots: int = 4, **options: Any) -> TorchSlots:
    weights = SeededWeights(model, dtype)
    return TorchSlots(model, slots=slots, tokens=48, weights=weights, dtype=dtype, **options)


def scores(engine: Any, row: int, slot: int) -> Any:
    return engine.scores[row].float().numpy().copy()


def verdicts(engine: TorchSlots, model: Model, dtype: str = "float32") -> list[str | None]:
    driver = Driver(engine, model, scores)
    weights = dict(SeededWeights(model, dtype))
    return [judge(one, model, weights, dtype) for one in interleaved(driver, engine.prefix)]


def test_every_shape_agrees(shape: Model) -> None:
    """With a prefix, which four of the seven sequences begin with."""
    assert verdicts(opened(shape, prefix=PREFIX), shape) == [None] * 7


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("prefix", [(), PREFIX], ids=["plain", "shared"])
def test_every_type_agrees(tiny: Model, prefix: list[int], dtype: str) -> None:
    engine = opened(tiny, dtype, prefix=prefix)
    assert verdicts(engine, tiny, dtype) == [None] * 7


def test_one_slot_agrees(tiny: Model) -> None:
    for dtype in ("float32", "bfloat16"):
        driver = Driver(opened(tiny, dtype, slots=1), tiny, scores)
        (one,) = driver.start({0: prompt(7, 1)})
        driver.step(5)
        assert judge(one, tiny, dict(SeededWeights(tiny, dtype)), dtype) is None


def test_sizes_are_padded_to_few() -> None:
    assert len({padded_tokens(count) for count in range(1, 2049)}) == 35
    assert all(padded_tokens(count) >= count for count in range(1, 5000))
    assert {padded_rows(count) for count in range(1, 33)} == {1, 8, 16, 24, 32}


def test_a_prompt_that_is_the_prefix_alone_does_not_share(tiny: Model) -> None:
    engine = opened(tiny, prefix=PREFIX)
    driver = Driver(engine, tiny, scores)
    same, other = driver.start({0: PREFIX, 1: [*PREFIX, 5]})
    driver.step(3)
    weights = dict(SeededWeights(tiny))
    assert [seat.shares for seat in engine.seats[:2]] == [False, True]
    assert [engine.cached(ids) for ids in (PREFIX, [*PREFIX, 5], [5, *PREFIX])] == [0, 11, 0]
    assert [judge(one, tiny, weights, "float32") for one in (same, other)] == [None, None]


def test_a_sequence_fills_its_slot_to_the_end(tiny: Model) -> None:
    driver = Driver(opened(tiny), tiny, scores)
    (one,) = driver.start({3: prompt(40, 1)})
    driver.step(8)
    assert judge(one, tiny, dict(SeededWeights(tiny)), "float32") is None


def test_answers_to_concurrent_requests_agree(tiny: Model) -> None:
    """Through the queue and the thread: 14 requests in 3 slots, some given up on the way."""

    async def asked() -> list[Run]:
        front = Front(opened(tiny, slots=3, prefix=PREFIX), queue=20)

        async def ask(number: int) -> Run:
            begin = PREFIX if number % 3 else []
            one = Run([*begin, *prompt(1 + 5 * number % 17, number)])
            with front.ask(one.prompt, 2 + number, frozenset()) as answer:
                async for tokens, _ in answer:
                    one.tokens += tokens
                    if number % 5 == 4:
                        break
            return one

        found = await asyncio.gather(*(ask(number) for number in range(14)))
        await front.drained(30)
        return found

    weights = dict(SeededWeights(tiny))
    runs = asyncio.run(asked())
    assert [len(one.tokens) for n, one in enumerate(runs) if n % 5 < 4] == [
        2 + n for n in range(14) if n % 5 < 4
    ]
    assert [judge_tokens(one, tiny, weights) for one in runs] == [None] * 14


def _no_mask(engine: Any, own: Any, longest: int) -> Any:
    return torch.zeros(len(own), 1, 1, longest, dtype=engine.dtype)


def _no_offset(engine: Any, seat: Any) -> int:
    return 0


def _everybody_shares(engine: Any, layer: int, q: Any, own: Any, shares: Any) -> Any:
    return _JOINED(engine, layer, q, own, torch.ones_like(shares))


def _late(engine: Any, own: Any, longest: int) -> Any:
    return _MASK(engine, own - 1, longest)


_JOINED, _MASK = TorchSlots._joined, TorchSlots._mask


@pytest.mark.parametrize(
    ("name", "planted"),
    [
        ("_mask", _no_mask),
        ("_mask", _late),
        ("_offset", _no_offset),
        ("_joined", _everybody_shares),
    ],
    ids=["other_slots_leftovers", "blind_to_itself", "positions", "prefix_for_all"],
)
def test_planted_bugs_are_caught(
    tiny: Model, monkeypatch: pytest.MonkeyPatch, name: str, planted: Callable[..., Any]
) -> None:
    monkeypatch.setattr(TorchSlots, name, planted)
    assert any(verdicts(opened(tiny, prefix=PREFIX), tiny))
