"""The attention benchmark against float64, and what its offer runs and refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from perfsuite.workloads.workload import Model, Workload

pytest.importorskip("torch", reason="needs torch")

import torch

from engines.hydragen import attention, checking, microbenchmark
from engines.hydragen.offer import HydragenOffer
from engines.offers import offers

MODEL = Model("attention", layers=1, hidden_size=1, heads=8, kv_heads=1, head_dim=64,
              intermediate_size=1, vocab_size=1, max_context=10_000)  # fmt: skip


def opened(dtype: str = "float32", mode: str = "hydragen", **changes: Any) -> Any:
    fields = {"batch": 3, "shared_tokens": 200, "own_tokens": 17} | changes
    model = replace(MODEL, kv_heads=fields.pop("kv_heads", 1))
    attend = attention.Flash("cpu", getattr(torch, dtype))
    return microbenchmark.AttentionBenchmark(model, mode=mode, attend=attend, dtype=dtype, **fields)


@pytest.mark.parametrize("own_tokens", [0, 1, 17])
@pytest.mark.parametrize("kv_heads", [1, 8])
@pytest.mark.parametrize("mode", ["base", "hydragen"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_both_modes_agree_with_float64(
    dtype: str, mode: str, kv_heads: int, own_tokens: int
) -> None:
    engine = opened(dtype, mode, kv_heads=kv_heads, own_tokens=own_tokens)
    engine.flush()
    assert checking.verify(engine) is None
    assert engine.attention().shape == (3, 8, 1, 64)


@pytest.mark.parametrize("mode", ["base", "hydragen"])
def test_one_sequence(mode: str) -> None:
    assert checking.verify(opened(mode=mode, batch=1)) is None


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="got mode 'vllm', expected 'base' or 'hydragen'"):
        opened(mode="vllm")


def weighed_in_half(monkeypatch: pytest.MonkeyPatch) -> None:
    real = attention.combine

    def half(parts: Any) -> Any:
        return real([attention.Part(part.out.half().float(), part.lse) for part in parts])

    monkeypatch.setattr(microbenchmark, "combine", half)


def head_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    real = attention.combine

    def scaled(parts: Any) -> Any:
        found = real(parts)
        found[:, 1] *= 1.01
        return found

    monkeypatch.setattr(microbenchmark, "combine", scaled)


def mask_off_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    real = attention.attend_joined

    def shorter(attend: Any, q: Any, keys: Any, values: Any) -> Any:
        time = keys.shape[2] - 1
        return real(attend, q, keys.narrow(2, 0, time), values.narrow(2, 0, time))

    monkeypatch.setattr(microbenchmark, "attend_joined", shorter)


@pytest.mark.parametrize("bug", [weighed_in_half, head_scaled, mask_off_by_one])
def test_planted_bugs_are_caught(
    bug: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    bug(monkeypatch)
    assert "is off by" in (checking.verify(opened()) or "")


def test_not_a_number_is_caught() -> None:
    engine = opened()
    engine.queries.fill_(float("nan"))
    assert checking.verify(engine) == "sequence 0 of 3: the output is not finite"


# The offer


@pytest.fixture
def offer() -> HydragenOffer:
    found = next(offer for offer in offers() if offer.name == "hydragen")
    assert isinstance(found, HydragenOffer)
    return found


SHARED = {"document": "hydragen", "kind": "shared", "shared_tokens": 24, "input_tokens": 0,
          "cache_tokens": 0}  # fmt: skip
ATTENTION = SHARED | {"kind": "attention", "model": MODEL}
CELLS: list[dict[str, Any]] = [
    SHARED | {"mode": "hydragen", "options": (("tensor_parallel", "8"),)},
    SHARED | {"mode": "hydragen", "batch": 1, "dtype": "float32"},
    ATTENTION | {"mode": "base"},
    ATTENTION | {"mode": "hydragen", "output_tokens": 0},
    SHARED | {"kind": "needles", "mode": "hydragen"},
    SHARED | {"kind": "needles", "mode": "disable_hydragen", "batch": 5, "dtype": "float32"},
]


@pytest.mark.parametrize("changes", CELLS)
def test_what_is_run_is_proved(
    offer: HydragenOffer, workload: Callable[..., Workload], changes: dict[str, Any]
) -> None:
    cell = workload(**changes)
    assert offer.refuses(cell, "cpu") is None
    engine = offer.open(cell, "cpu")
    assert offer.verify(engine, cell) is None
    assert {type(value) for value in engine.config.values()} <= {str, int, bool}
    engine.close()


def test_questions_that_read_their_neighbours_prefix_are_caught(
    offer: HydragenOffer, workload: Callable[..., Workload], monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = workload(**SHARED | {"kind": "needles", "mode": "hydragen", "dtype": "float32"})
    engine, real = offer.open(cell, "cpu"), attention.attend_joined

    def turned(attend: Any, q: Any, keys: Any, values: Any) -> Any:
        return real(attend, q, keys.roll(1, 2), values)

    monkeypatch.setattr(attention, "attend_joined", turned)
    assert (offer.verify(engine, cell) or "").startswith("question 1 of 3: ")


@pytest.mark.parametrize(
    ("changes", "device", "words"),
    [
        (SHARED | {"mode": "hydragen"}, "tpu", "tpu support"),
        (SHARED | {"mode": "hydragen_noshared"}, "cpu", "hydragen shared hydragen_noshared"),
        (SHARED | {"mode": "hydragen", "shared_tokens": 2**20}, "cpu", "context of 10485"),
        (SHARED | {"mode": "hydragen", "options": (("speculate", "5"),)}, "cpu", "option spec"),
        ({}, "cpu", "jetstream generate bf16"),
    ],
)  # fmt: skip
def test_refusals_name_what_is_missing(
    offer: HydragenOffer,
    workload: Callable[..., Workload],
    changes: dict[str, Any],
    device: str,
    words: str,
) -> None:
    cell = workload(**changes)
    assert (offer.refuses(cell, device) or "").startswith(f"hydragen has no {words}")
    with pytest.raises(ValueError, match="hydragen has no"):
        offer.open(cell, device)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (SHARED | {"mode": "hydragen", "batch": 2**20}, "with 8388632 cached tokens needs"),
        (ATTENTION | {"mode": "base", "batch": 2**24}, "attention over 16777216 x 24 tokens needs"),
    ],
)
def test_what_does_not_fit_is_told_with_the_arithmetic(
    offer: HydragenOffer,
    workload: Callable[..., Workload],
    changes: dict[str, Any],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engines.memory.free_bytes", lambda device: 10**6)
    with pytest.raises(MemoryError, match=words):
        offer.open(workload(**changes), "cpu")
