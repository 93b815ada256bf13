"""Bytes, operations and floors of a model small enough to count by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from perfsuite.roofline import (
    Ceilings,
    Part,
    attention_parts,
    decode_parts,
    floor_s,
    prefill_parts,
    working_set_bytes,
)
from perfsuite.workloads import Workload, load_catalogue, smoke_catalogue

# The tiny model in float32: 304 weights in the layers, 40 in the projection to the vocabulary,
# 8 cached values a token; attention takes 4 * 2 layers * 2 heads * 2 dimensions = 32 a pair.
READ_ONCE = (304 + 40) * 4
CACHED = 8 * 4
PAIR = 32


def test_a_part_is_bound_by_the_slower_of_its_two_ceilings() -> None:
    """Ten bytes at 5 bytes/s, or six operations at 2 operations/s."""
    assert Part(10, 6).floor_s(Ceilings(bandwidth=5, peak=100)) == 2
    assert Part(10, 6).floor_s(Ceilings(bandwidth=100, peak=2)) == 3


def test_the_floor_of_parts_is_their_sum() -> None:
    """One after the other: bandwidth binds the first, the peak the second."""
    assert floor_s([Part(10, 1), Part(1, 10)], Ceilings(10, 10)) == 2


def test_prefill(make_workload: Callable[..., Workload]) -> None:
    """Three prompts of five tokens: weights once, logits of the last, pairs up to the diagonal."""
    weights, attention = prefill_parts(make_workload(), 3)
    assert weights == Part(READ_ONCE, 2 * (15 * 304 + 3 * 40))
    assert attention == Part(15 * CACHED, 3 * (1 + 2 + 3 + 4 + 5) * PAIR)


def test_decode(make_workload: Callable[..., Workload]) -> None:
    """Three steps of three sequences, which see 6, 7 and 8 tokens; weights once a step."""
    weights, attention = decode_parts(make_workload(), 3)
    assert weights == Part(3 * READ_ONCE, 3 * 2 * 3 * (304 + 40))
    live = 3 * (6 + 7 + 8)
    assert attention == Part(live * CACHED, live * PAIR)


def test_one_output_token_has_no_decode(make_workload: Callable[..., Workload]) -> None:
    """The first token comes from the prefill."""
    parts = decode_parts(make_workload(output_tokens=1), 3)
    assert all(part == Part(0, 0) for part in parts)


def test_without_attention_there_are_only_weights(make_workload: Callable[..., Workload]) -> None:
    """The mode that skips the operation keeps no cache either."""
    workload = make_workload(mode="noattention")
    assert prefill_parts(workload, 3) == prefill_parts(make_workload(), 3)[:1]
    assert decode_parts(workload, 3) == decode_parts(make_workload(), 3)[:1]
    assert working_set_bytes(workload, 3) == 388 * 4


def test_a_shared_prefix_is_run_once(make_workload: Callable[..., Workload]) -> None:
    """Six tokens for three sequences: one sequence's prefill, three sequences' logits."""
    workload = make_workload(mode="hydragen", shared_tokens=6, input_tokens=0)
    weights, attention = prefill_parts(workload, 3)
    assert weights == Part(READ_ONCE, 2 * (6 * 304 + 3 * 40))
    assert attention == Part(6 * CACHED, 21 * PAIR)


def test_a_shared_prefix_is_read_once_a_step(make_workload: Callable[..., Workload]) -> None:
    """All three sequences compute with it, its bytes are read once; their own tokens apart."""
    workload = make_workload(mode="hydragen", shared_tokens=6, input_tokens=0)
    _, prefix, suffix = decode_parts(workload, 3)
    assert prefix == Part(3 * 6 * CACHED, 3 * 3 * 6 * PAIR)
    assert suffix == Part(3 * (1 + 2 + 3) * CACHED, 3 * (1 + 2 + 3) * PAIR)
    assert working_set_bytes(workload, 3) == 388 * 4 + (6 + 3 * 4) * CACHED


def test_copies_of_a_prefix_are_made_and_read_each(
    make_workload: Callable[..., Workload],
) -> None:
    """Without sharing each sequence has its own copy."""
    workload = make_workload(mode="hydragen_noshared", shared_tokens=6, input_tokens=0)
    assert prefill_parts(workload, 3)[2] == Part(3 * 6 * CACHED, 0)
    assert decode_parts(workload, 3)[1].bytes == 3 * (7 + 8 + 9) * CACHED
    assert working_set_bytes(workload, 3) == 388 * 4 + 3 * (6 + 4) * CACHED


@pytest.mark.parametrize(("mode", "read"), [("base", 3 * 6), ("hydragen", 6)])
def test_attention_alone(make_workload: Callable[..., Workload], mode: str, read: int) -> None:
    """One of two layers: three queries on six shared keys and four of their own each."""
    workload = make_workload(kind="attention", mode=mode, shared_tokens=6, input_tokens=0)
    prefix, suffix = attention_parts(workload, 3)
    assert prefix == Part(read * CACHED / 2, 3 * 6 * PAIR / 2)
    assert suffix == Part(3 * 4 * CACHED / 2, 3 * 4 * PAIR / 2)
    assert working_set_bytes(workload, 3) == (read + 3 * 4) * CACHED / 2


def test_attention_without_a_suffix(make_workload: Callable[..., Workload]) -> None:
    """The sweep begins at 0."""
    workload = make_workload(kind="attention", mode="hydragen", shared_tokens=6, output_tokens=0)
    assert attention_parts(workload, 3)[1] == Part(0, 0)


def test_the_needles_modes_mean_what_they_do(make_workload: Callable[..., Workload]) -> None:
    """`disable_hydragen` copies the prefix, `no_attention` has no cache."""
    sizes = {"shared_tokens": 6, "input_tokens": 0}
    same = {"disable_hydragen": "hydragen_noshared", "no_attention": "noattention"}
    for modes in same.items():
        one, other = (make_workload(mode=mode, **sizes) for mode in modes)
        for parts in (prefill_parts, decode_parts, working_set_bytes):
            assert parts(one, 3) == parts(other, 3)  # type: ignore[operator]


def test_a_rolling_cache_bounds_what_is_attended(make_workload: Callable[..., Workload]) -> None:
    """A window of three over a prompt of five: 1 + 2 + 3 + 3 + 3 pairs, then 3 a step."""
    workload = make_workload(cache_tokens=3)
    assert prefill_parts(workload, 1)[1] == Part(3 * CACHED, 12 * PAIR)
    assert decode_parts(workload, 1)[1] == Part(9 * CACHED, 9 * PAIR)
    assert working_set_bytes(workload, 2) == 388 * 4 + 2 * 3 * CACHED


def test_a_rolling_cache_that_fills_while_decoding(make_workload: Callable[..., Workload]) -> None:
    """A window of seven: steps see 6, 7 and 7 tokens."""
    assert decode_parts(make_workload(cache_tokens=7), 1)[1].bytes == (6 + 7 + 7) * CACHED


@pytest.mark.parametrize(
    ("changes", "weight_bytes", "cache_bytes"),
    [
        ({"dtype": "bfloat16"}, 2.0, 2.0),
        ({"dtype": "int8"}, 1.0, 1.0),
        ({"dtype": "bfloat16", "options": (("quantize_kv_cache", "true"),)}, 2.0, 1.0),
    ],
)
def test_quantised_values_are_smaller(
    make_workload: Callable[..., Workload],
    changes: dict[str, object],
    weight_bytes: float,
    cache_bytes: float,
) -> None:
    """Weights and cache by the type, or by the quantisation that the document's flags name."""
    weights, attention = prefill_parts(make_workload(**changes), 3)
    assert weights.bytes == 344 * weight_bytes
    assert attention.bytes == 15 * 8 * cache_bytes


LEVELS_AND_SCALES = 8 + 4 * 2  # of a token: 8 levels, and a scale for each of 4 heads of 2
MATRICES, NORMS = 328, 16  # read once: what a quantisation takes in, and what stays as it is


@pytest.mark.parametrize(
    ("dtype", "quantization", "matrix", "other"),
    [
        ("bfloat16", "int4wo", 0.5 + 4 / 32, 2.0),
        ("float32", "int4wo", 0.5 + 8 / 32, 4.0),
        ("bfloat16", "int8wo", 1 + 2 / 4, 2.0),
    ],
)
def test_torchaos_weights_with_their_scales(
    make_workload: Callable[..., Workload],
    dtype: str,
    quantization: str,
    matrix: float,
    other: float,
) -> None:
    """Matrices are quantised, the one to the vocabulary too; norms and embedding are not."""
    workload = make_workload(dtype=dtype, options=(("quantization", quantization),))
    plain = make_workload(dtype=dtype)
    weights, attention = prefill_parts(workload, 3)
    assert weights.bytes == MATRICES * matrix + NORMS * other
    assert attention == prefill_parts(plain, 3)[1]
    assert weights.operations == prefill_parts(plain, 3)[0].operations
    saved = MATRICES * (other - matrix)
    assert working_set_bytes(plain, 3) - working_set_bytes(workload, 3) == saved


@pytest.mark.parametrize(("intermediate", "group"), [(14336, 128), (192, 64), (96, 32)])
def test_int4_groups_are_the_largest_that_divide_every_width(
    make_workload: Callable[..., Workload], intermediate: int, group: int
) -> None:
    """Hidden size and heads are 256 wide here; the MLP's width decides."""
    model = replace(make_workload().model, hidden_size=256, heads=16, kv_heads=4, head_dim=16)
    options = (("quantization", "int4wo"),)
    workload = make_workload(
        model=replace(model, intermediate_size=intermediate), options=options, dtype="bfloat16"
    )
    layer = 2 * 256 * 256 + 2 * 256 * 64 + 3 * 256 * intermediate
    expected = (2 * layer + 256 * 10) * (0.5 + 4 / group) + 2 * 2 * 256 * 2
    assert prefill_parts(workload, 1)[0].bytes == pytest.approx(expected, rel=1e-12)


def test_a_head_that_is_the_embedding_stays_as_it_is(
    make_workload: Callable[..., Workload],
) -> None:
    """40 weights in bfloat16, read as they are held."""
    model = replace(make_workload().model, tied_embeddings=True)
    options = (("quantization", "int4wo"),)
    tied, apart = (
        make_workload(dtype="bfloat16", options=options, **changes)
        for changes in ({"model": model}, {})
    )
    more = prefill_parts(tied, 1)[0].bytes - prefill_parts(apart, 1)[0].bytes
    assert more == 40 * (2 - (0.5 + 4 / 32))
    assert working_set_bytes(tied, 1) < working_set_bytes(apart, 1)


def test_torchaos_cache_with_its_scales(make_workload: Callable[..., Workload]) -> None:
    """A byte for each of two values of a head, and two for their scale."""
    options = (("kv_cache_quantization", "true"),)
    weights, attention = decode_parts(make_workload(dtype="bfloat16", options=options), 3)
    assert attention.bytes == 3 * (6 + 7 + 8) * LEVELS_AND_SCALES
    assert weights == decode_parts(make_workload(dtype="bfloat16"), 3)[0]


def test_the_documents_longest_cell() -> None:
    """Llama 3.1 8B, int4 weights and int8 cache, 131,072 tokens: by hand, in bytes.

    A layer's matrices: query and output 4096 x 4096, key and value 4096 x 1024, the MLP's three
    4096 x 14336. A token's cache: 32 layers, keys and values, 8 heads of 128 levels and a scale.
    """
    cell = "torchao-131072-int4_kv_quant_linear_mask"
    workload = next(w for w in load_catalogue() if w.id == cell)
    layer = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336
    matrices = 32 * layer + 4096 * 128_256
    read = matrices * (0.5 + 4 / 128) + 32 * 2 * 4096 * 2
    steps, live = 199, sum(range(7, 206))
    weights, attention = decode_parts(workload, 1)
    assert weights.bytes == steps * read
    assert attention.bytes == live * 32 * 2 * 8 * (128 + 2)


def test_every_workload_has_a_floor() -> None:
    """All cells at both sizes: positive, and no shorter for twice the batch."""
    ceilings = Ceilings(bandwidth=1e10, peak=1e11)
    full = load_catalogue()
    for workload in [*full, *smoke_catalogue(full)]:
        if workload.kind in ("single_user", "multi_user", "generate", "shared"):
            one, two = (
                floor_s(prefill_parts(workload, b) + decode_parts(workload, b), ceilings)
                for b in (4, 8)
            )
            assert 0 < one <= two
        if workload.kind == "attention":
            one, two = (floor_s(attention_parts(workload, b), ceilings) for b in (4, 8))
            assert 0 < one <= two
