"""The floors of JetStream's 13 rows by hand: 1024 prompt tokens, 1024 to generate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from perfsuite.roofline import Ceilings, Part, decode_parts, prefill_parts, working_set_bytes
from perfsuite.workloads import Workload, load_catalogue


@dataclass(frozen=True)
class Counted:
    """Weights read once a step (layers and head), cached values a token, operations a pair."""

    weights: int
    head: int
    cached: int
    pair: int


# A layer: query and output, key and value, gate, up and down, two norms.
MODELS = {
    "llama3_8b": Counted(
        weights=32 * (2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 2 * 4096) + 525_336_576,
        head=4096 * 128_256,
        cached=2 * 32 * 8 * 128,
        pair=4 * 32 * 32 * 128,
    ),
    "gemma_2b": Counted(  # one key/value head of 256
        weights=18 * (2 * 2048**2 + 2 * 2048 * 256 + 3 * 2048 * 16384 + 2 * 2048) + 524_288_000,
        head=2048 * 256_000,
        cached=2 * 18 * 256,
        pair=4 * 18 * 8 * 256,
    ),
    "gemma_7b": Counted(  # 16 heads of 256 on a hidden size of 3072
        weights=28 * (4 * 3072 * 4096 + 3 * 3072 * 24576 + 2 * 3072) + 786_432_000,
        head=3072 * 256_000,
        cached=2 * 28 * 16 * 256,
        pair=4 * 28 * 16 * 256,
    ),
    "llama2_7b": Counted(
        weights=32 * (4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096) + 131_072_000,
        head=4096 * 32_000,
        cached=2 * 32 * 32 * 128,
        pair=4 * 32 * 32 * 128,
    ),
    "llama2_13b": Counted(
        weights=40 * (4 * 5120**2 + 3 * 5120 * 13824 + 2 * 5120) + 163_840_000,
        head=5120 * 32_000,
        cached=2 * 40 * 40 * 128,
        pair=4 * 40 * 40 * 128,
    ),
}

STEPS = 1023  # the first token comes from the prefill
WHOLE = 1_571_328  # 1025 + 1026 + ... + 2047 = 1023 * 1536
ROLLING = 295_040 + 767 * 1280  # 1025 + ... + 1280, and 1280 from there on
PAIRS = 524_800  # 1 + 2 + ... + 1024

ROWS = [
    ("llama3_8b", "v5e_8", "bf16", 128, 2048),
    ("llama3_8b", "v5e_8", "int8", 256, 2048),
    ("gemma_7b", "v5e_8", "bf16", 96, 2048),
    ("gemma_7b", "v5e_8", "int8", 128, 2048),
    ("gemma_2b", "v5e_8", "bf16", 512, 2048),
    ("gemma_2b", "v5e_8", "int8", 1024, 2048),
    ("gemma_2b", "v5e_1", "bf16", 1024, 2048),
    ("llama2_7b", "v5e_8", "bf16", 96, 2048),
    ("llama2_7b", "v5e_8", "int8", 96, 2048),
    ("llama2_13b", "v5e_8", "bf16", 48, 2048),
    ("llama2_13b", "v5e_8", "int8", 96, 2048),
    ("llama2_13b", "v5e_8", "bf16", 80, 1280),
    ("llama2_13b", "v5e_8", "int8", 96, 1280),
]


@pytest.fixture(scope="module")
def rows() -> dict[str, Workload]:
    """The document's `generate` cells by id."""
    return {w.id: w for w in load_catalogue() if w.document == "jetstream" and w.kind == "generate"}


def test_these_are_all_rows(rows: dict[str, Workload]) -> None:
    """None is missing here and none is new there."""
    assert set(rows) == {f"jetstream-{m}-{s}-{mode}-b{b}-c{c}" for m, s, mode, b, c in ROWS}


@pytest.mark.parametrize(("model", "slice_", "mode", "batch", "cache"), ROWS)
def test_a_row_by_hand(
    rows: dict[str, Workload], model: str, slice_: str, mode: str, batch: int, cache: int
) -> None:
    """Weights once a step or prompt; the live part of every sequence's cache once a step."""
    of, size = MODELS[model], 1 if mode == "int8" else 2
    workload = rows[f"jetstream-{model}-{slice_}-{mode}-b{batch}-c{cache}"]
    live = batch * (ROLLING if cache == 1280 else WHOLE)

    assert decode_parts(workload, batch) == [
        Part(STEPS * of.weights * size, STEPS * 2 * batch * of.weights),
        Part(live * of.cached * size, live * of.pair),
    ]
    layers = of.weights - of.head
    assert prefill_parts(workload, 1) == [
        Part(of.weights * size, 2 * (1024 * layers + of.head)),
        Part(1024 * of.cached * size, PAIRS * of.pair),
    ]


def test_the_cache_of_gemma_2b_at_batch_1024(rows: dict[str, Workload]) -> None:
    """38.7 GB, and 5 GB of weights in which embedding and head are one: no chip of 16 GB."""
    workload = rows["jetstream-gemma_2b-v5e_1-bf16-b1024-c2048"]
    held = working_set_bytes(workload, 1024)
    assert held - 2 * 2_506_172_416 == 2 * 9216 * 2048 * 1024 == 38_654_705_664


def test_a_rolling_row_holds_its_window(rows: dict[str, Workload]) -> None:
    """1280 of 2048 tokens: 80 sequences of 13B take 83.9 GB in place of 134.2."""
    workload = rows["jetstream-llama2_13b-v5e_8-bf16-b80-c1280"]
    held = working_set_bytes(workload, 80)
    assert held - 2 * 13_015_864_320 == 2 * 409_600 * 1280 * 80 == 83_886_080_000


def test_a_decode_step_on_eight_chips(rows: dict[str, Workload]) -> None:
    """Llama 3 8B at batch 128 on 8 x 819 GB/s: 6.2 ms a step at least, 20.6 ktok/s at most.

    15.0 GB of weights, and 128 x 1536 tokens of 131 kB in the middle step: 25.8 GB. The peak of
    8 x 197 Top/s takes 1.5 ms.
    """
    workload = rows["jetstream-llama3_8b-v5e_8-bf16-b128-c2048"]
    shown = Ceilings(bandwidth=8 * 819e9, peak=8 * 197e12)
    weights, attention = decode_parts(workload, 128)
    step = (weights.floor_s(shown) + attention.floor_s(shown)) / STEPS
    assert step == pytest.approx((15.010e9 + 25.770e9) / (8 * 819e9), rel=1e-3)
    assert 128 / step == pytest.approx(20_565, rel=1e-3)


@pytest.mark.parametrize(
    ("options", "weights", "cache"),
    [
        ({}, 4, 4),
        ({"quantize_weights": "true"}, 1, 4),
        ({"quantize_kv_cache": "true"}, 4, 1),
        ({"quantize_weights": "true", "quantize_kv_cache": "true"}, 1, 1),
        ({"quantize_weights": "false", "quantize_kv_cache": "false"}, 4, 4),
    ],
)
def test_the_flags_decide_where_the_type_does_not(
    make_workload: Callable[..., Workload], options: dict[str, str], weights: int, cache: int
) -> None:
    """Each flag alone; the operations stay the same."""
    of_weights, attention = decode_parts(make_workload(options=tuple(options.items())), 3)
    plain = decode_parts(make_workload(), 3)
    assert of_weights.bytes == plain[0].bytes * weights / 4
    assert attention.bytes == plain[1].bytes * cache / 4
    assert [part.operations for part in (of_weights, attention)] == [p.operations for p in plain]
