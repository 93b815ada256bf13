"""The JetStream engine against the reference: every option, slots that come and go, bugs planted.

float32 on the CPU; the largest error of every position is within the derived bound.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("jax", reason="needs jax")

import jax
import jax.numpy as jnp

from engines.jetstream import model as decoder
from engines.jetstream import programs
from engines.jetstream.cache import abstract_caches
from engines.jetstream.plan import bytes_a_chip
from engines.jetstream.quantize import Int8, quantized, quantized_on_host
from engines.jetstream.weights import abstract_weights
from perfsuite.workloads.workload import Model
from tests.conformance.jetstream_runs import Seats, continued, opened, prompts, verdict

OPTIONS = [
    {"quantize_weights": weights, "quantize_cache": cache}
    for weights in (False, True)
    for cache in (False, True)
]
BOTH = OPTIONS[-1]


@pytest.fixture
def tiny(tiny: Model) -> Model:
    """Two layers are enough for all that is looked at here, and compile faster."""
    return replace(tiny, layers=2)


@pytest.mark.parametrize("options", [OPTIONS[0], BOTH], ids=["plain", "int8"])
def test_every_shape_agrees_past_the_rings_end(shape: Model, options: dict[str, Any]) -> None:
    engine = opened(shape, cache_tokens=11, **options)
    assert verdict(engine, prompts(engine, 9), 6) is None


@pytest.mark.parametrize("options", [OPTIONS[0], BOTH], ids=["plain", "int8"])
def test_a_head_two_tiles_wide_agrees(tiny: Model, options: dict[str, Any]) -> None:
    engine = opened(replace(tiny, head_dim=256, heads=2), cache_tokens=11, **options)
    assert engine.plan.size("BKNCP") == (2, 2, 2, 11, 128)
    assert verdict(engine, prompts(engine, 9), 4) is None


@pytest.mark.parametrize("cache_tokens", [11, 32])
@pytest.mark.parametrize("options", OPTIONS)
def test_every_option_agrees(tiny: Model, options: dict[str, bool], cache_tokens: int) -> None:
    engine = opened(tiny, cache_tokens=cache_tokens, **options)
    assert verdict(engine, prompts(engine, 9), 5) is None


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("options", [OPTIONS[0], BOTH], ids=["plain", "int8"])
def test_every_type_agrees(tiny: Model, options: dict[str, bool], dtype: str) -> None:
    engine = opened(tiny, cache_tokens=11, dtype=dtype, **options)
    assert verdict(engine, prompts(engine, 9), 5) is None


@pytest.mark.parametrize(("prompt", "ring"), [(20, 7), (7, 7), (1, 1), (3, 4), (16, 40), (17, 40)])
def test_prompts_shorter_and_longer_than_the_ring(tiny: Model, prompt: int, ring: int) -> None:
    options = {"quantize_cache": prompt % 2 == 0, "quantize_weights": ring % 2 == 0}
    engine = opened(tiny, batch=1, cache_tokens=ring, tokens=40, **options)
    assert verdict(engine, prompts(engine, prompt), 10) is None


@pytest.mark.parametrize("options", [OPTIONS[0], BOTH], ids=["plain", "int8"])
def test_sequences_come_and_go(tiny: Model, options: dict[str, Any]) -> None:
    """Lengths around a bucket's edge, inserted at different times; the ring turns twice."""
    seats = Seats(opened(tiny, batch=3, cache_tokens=24, tokens=60, **options))
    first = seats.start(1, 16, seed=1)
    seats.step(3)
    second = seats.start(0, 5, seed=2)
    seats.step(6)
    seats.end(1)
    seats.step(2)
    third = seats.start(1, 17, seed=3)  # the slot is used again
    fourth = seats.start(2, 1, seed=4)
    seats.step(10)
    fifth = seats.start(0, 8, seed=5)  # without a release: the sequence is replaced
    seats.step(30)
    for one, tokens in [(first, 10), (second, 19), (third, 41), (fourth, 41), (fifth, 31)]:
        assert len(one.tokens) == tokens
        assert seats.judge(one) is None


def test_a_second_prompt_starts_afresh(tiny: Model) -> None:
    engine = opened(tiny)
    ids = prompts(engine, 9)
    before = continued(engine, ids, 4)
    continued(engine, prompts(engine, 12, seed=7), 9)
    for found, expected in zip(continued(engine, ids, 4), before, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_nothing_is_compiled_twice(tiny: Model) -> None:
    engine = opened(tiny)
    ids = prompts(engine, 9)
    continued(engine, ids, 3)
    seats = Seats(engine)
    seats.start(0, 5, seed=1)
    seats.step()
    seats.end(0)
    seats.start(1, 7, seed=1)
    seats.step(2)
    continued(engine, prompts(engine, 11), 3)
    made = engine.programs
    sizes = [program._cache_size() for program in (made.prefill, made.insert, made.generate)]
    assert sizes == [1, 1, 1]


@pytest.mark.parametrize("options", OPTIONS)
def test_caches_are_donated_to_the_byte(tiny: Model, options: dict[str, bool]) -> None:
    engine = opened(tiny, **options)
    state = engine.emptied()
    compiled = engine.programs.generate.lower(engine.weights, state.caches, state.slots).compile()
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(state.caches))
    assert compiled.memory_analysis().alias_size_in_bytes == held


@pytest.mark.parametrize("batch", [1, 2])
def test_a_step_copies_no_weights(tiny: Model, batch: int) -> None:
    """XLA's CPU compiler transposed q, k, v and output in every step, at a fifth of the speed."""
    shape = replace(tiny, head_dim=64, hidden_size=256, intermediate_size=512)
    engine = opened(shape, batch=batch)
    state = engine.emptied()
    compiled = engine.programs.generate.lower(engine.weights, state.caches, state.slots).compile()
    shapes = re.findall(r"= \w+\[([\d,]+)\]\S* copy\(", compiled.as_text())
    sizes = [math.prod(map(int, shape.split(","))) for shape in shapes]
    assert sizes
    assert max(sizes) < engine.weights.layers[0].k.size


@pytest.mark.parametrize("options", [OPTIONS[0], BOTH], ids=["plain", "int8"])
def test_what_is_compiled_without_data_is_what_runs(shape: Model, options: dict[str, bool]) -> None:
    engine = opened(replace(shape, layers=1), **options)
    pairs = [
        (abstract_weights(engine.plan), engine.weights),
        (abstract_caches(engine.plan), engine.emptied().caches),
    ]
    for abstract, real in pairs:
        assert jax.tree.structure(abstract) == jax.tree.structure(real)
        assert bytes_a_chip(abstract) == sum(leaf.nbytes for leaf in jax.tree.leaves(real))
        for like, leaf in zip(jax.tree.leaves(abstract), jax.tree.leaves(real), strict=True):
            assert (like.shape, like.dtype, like.sharding) == (
                leaf.shape,
                leaf.dtype,
                leaf.sharding,
            )


# What is refused


def test_a_state_continues_once(tiny: Model) -> None:
    engine = opened(tiny)
    step = engine.prefill(prompts(engine, 4).tolist())
    engine.decode(step)
    with pytest.raises(ValueError, match="given to a later one"):
        engine.decode(step)


def test_a_sequence_ends_at_the_plans_tokens(tiny: Model) -> None:
    engine = opened(tiny, tokens=10)
    step = engine.prefill(prompts(engine, 9).tolist())
    step = engine.decode(step)
    with pytest.raises(ValueError, match="holds 11 tokens, the engine was opened for 10"):
        engine.decode(step)


def test_beyond_the_plans_tokens_a_slot_says_nan(tiny: Model) -> None:
    seats = Seats(opened(tiny, tokens=4))
    one = seats.start(0, 3, seed=1)
    seats.step(2)
    finite = [bool(np.isfinite(logits).all()) for logits in one.logits]
    assert finite == [True, True, False]


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([[1, 2]], "got 1 prompts of"),
        ([[1, 2], [1]], "slots take prompts of different lengths"),
        ([[], []], "a prompt of 0 tokens, expected 1 to 32"),
        ([[1] * 33] * 2, "a prompt of 33 tokens"),
        ([[1, 256]] * 2, "got token ids from 1 to 256, expected 0 to 255"),
        ([[-1, 2]] * 2, "got token ids from -1"),
    ],
)
def test_bad_prompts_are_named(tiny: Model, ids: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        opened(tiny).prefill(ids)


def test_bad_slots_and_sizes_are_named(tiny: Model) -> None:
    engine = opened(tiny)
    with pytest.raises(ValueError, match="got slot 2, expected 0 to 1"):
        engine.insert(engine.prefill_one([1]), engine.emptied(), 2)
    with pytest.raises(ValueError, match="got slot -1"):
        engine.release(engine.emptied(), -1)
    with pytest.raises(ValueError, match="got cache_tokens 0"):
        opened(tiny, cache_tokens=0)
    with pytest.raises(ValueError, match="got activation 'relu'"):
        decoder.activation("relu")


def test_close_gives_the_memory_back(tiny: Model) -> None:
    engine = opened(tiny)
    leaves = jax.tree.leaves((engine.weights, engine.prefill([[1], [2]]).state.caches))
    engine.close()
    assert all(leaf.is_deleted() for leaf in leaves)


# Quantisation


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_levels_are_the_nearest_and_use_all_of_the_range(dtype: str) -> None:
    x = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)
    held = quantized(jnp.asarray(x), -1, jnp.dtype(dtype))
    scale = np.asarray(held.scale, np.float64)[:, None]
    off = np.abs(np.asarray(held.values, np.float64) * scale - x)
    inside = np.abs(x) <= 127 * scale
    assert (off[inside] <= 0.5001 * np.broadcast_to(scale, x.shape)[inside]).all()
    assert (np.abs(np.asarray(held.values)).max(axis=-1) >= 126).all()
    assert (off <= np.abs(x) * 2.0**-8 + 0.5001 * scale).all()


@pytest.mark.parametrize("quantize", [lambda x: quantized(jnp.asarray(x), -1, jnp.float32),
                                      lambda x: quantized_on_host(x, -1)])  # fmt: skip
def test_zeros_extremes_and_halves(quantize: Callable[[Any], Int8]) -> None:
    x = np.array([[0, 0, 0], [-127, 2.5, 3.5], [1e-30, -1e-30, 0], [254, -3, 1]], np.float32)
    values, scale = quantize(x)
    np.testing.assert_array_equal(values, [[0, 0, 0], [-127, 2, 4], [127, -127, 0], [127, -2, 0]])
    np.testing.assert_allclose(scale, [1, 1, 1e-30 / 127, 2], rtol=1e-6)


# Planted bugs: what the comparison catches


def ring_off_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps write one place further on than they say."""
    written = programs.written

    def shifted(cache: Any, position: Any, new: Any) -> Any:
        values = cache.values if isinstance(cache, Int8) else cache
        return written(cache, (position + 1) % values.shape[3], new)

    monkeypatch.setattr(programs, "written", shifted)


def insert_off_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prefix ends one place too early."""
    inserted = programs.inserted
    monkeypatch.setattr(
        programs,
        "inserted",
        lambda cache, slot, prefix, length, position: inserted(
            cache, slot, prefix, length, position - 1
        ),
    )


def window_off_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step does not see the oldest token of its sequence."""
    visible = programs.visible
    monkeypatch.setattr(
        programs,
        "visible",
        lambda position, lengths, ring: visible(
            position, jnp.maximum(jnp.minimum(lengths, ring) - 1, 1), ring
        ),
    )


def mask_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the ring is seen, whoever wrote it."""
    visible = programs.visible
    monkeypatch.setattr(
        programs,
        "visible",
        lambda position, lengths, ring: jnp.ones_like(visible(position, lengths, ring)),
    )


def wrong_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefixes go into one slot too far; the last wraps."""
    inserted = programs.inserted
    monkeypatch.setattr(
        programs,
        "inserted",
        lambda cache, slot, *rest: inserted(cache, (slot + 1) % 2, *rest),
    )


def scales_of_another_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scale of a place is its neighbour's."""
    by_place = decoder._by_place
    monkeypatch.setattr(decoder, "_by_place", lambda scale: jnp.roll(by_place(scale), 1, -1))


def groups_mistaken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Query heads read the wrong key/value head: 0 1 0 1 instead of 0 0 1 1."""
    monkeypatch.setattr(
        decoder,
        "_grouped",
        lambda q, kv_heads: q.reshape(*q.shape[:2], -1, kv_heads, q.shape[-1]).swapaxes(2, 3),
    )


def padding_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first token comes from the last place of the bucket."""
    slice_in_dim = jax.lax.dynamic_slice_in_dim
    monkeypatch.setattr(
        programs.jax.lax,
        "dynamic_slice_in_dim",
        lambda x, start, size, axis=0: slice_in_dim(x, x.shape[axis] - 1, size, axis),
    )


BUGS = [ring_off_by_one, insert_off_by_one, window_off_by_one, mask_missing, wrong_slot]
BUGS += [groups_mistaken, padding_counts]


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_caught(
    tiny: Model, monkeypatch: pytest.MonkeyPatch, bug: Callable[[pytest.MonkeyPatch], None]
) -> None:
    bug(monkeypatch)
    engine = opened(tiny, cache_tokens=11)
    assert verdict(engine, prompts(engine, 9), 4) is not None


@pytest.mark.parametrize("bug", [ring_off_by_one, mask_missing, wrong_slot])
def test_gross_bugs_are_caught_in_an_int8_cache_too(
    tiny: Model, monkeypatch: pytest.MonkeyPatch, bug: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """Its bound is the widest."""
    bug(monkeypatch)
    engine = opened(tiny, **BOTH)
    assert verdict(engine, prompts(engine, 9), 4) is not None


def test_wrong_scales_are_caught(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    scales_of_another_place(monkeypatch)
    engine = opened(tiny, quantize_cache=True)
    assert verdict(engine, prompts(engine, 9), 4) is not None
