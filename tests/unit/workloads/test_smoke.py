"""What shrinking keeps, held over every cell of the catalogue."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from perfsuite.workloads import (
    MergeError,
    Model,
    Workload,
    catalogue_with_checkpoint,
    load_catalogue,
    load_models,
    shrink,
    smoke_catalogue,
)
from perfsuite.workloads.merging import merge
from perfsuite.workloads.smoke import shrink_model

FULL = load_catalogue()
SMALL = {workload.id: shrink(workload) for workload in FULL}
SMOKE = smoke_catalogue(FULL)
PLAIN = replace(FULL[0], cache_tokens=0)

SIZES: list[Callable[[Workload], int]] = [
    lambda w: w.batch,
    lambda w: w.input_tokens,
    lambda w: w.shared_tokens,
    lambda w: w.output_tokens,
    lambda w: w.cache_tokens,
    lambda w: w.sequence_tokens,
]


@pytest.mark.parametrize("size", SIZES)
def test_no_size_grows(size: Callable[[Workload], int]) -> None:
    """A smoke size is never larger than the full one, except where the full one has no bound."""
    for workload in FULL:
        if size(workload) or workload.kind != "multi_user":
            assert size(SMALL[workload.id]) <= size(workload)


@pytest.mark.parametrize("name", ["input_tokens", "shared_tokens", "output_tokens", "batch"])
def test_sizes_are_monotone(name: str) -> None:
    """Of two full sizes the larger one is never the smaller one after shrinking."""
    sizes = [*range(1, 600), *range(600, 20000, 37)]
    shrunk = [getattr(shrink(replace(PLAIN, **{name: size})), name) for size in sizes]
    assert all(a <= b for a, b in pairwise(shrunk))
    assert len(set(shrunk)) >= 2


def test_nothing_stays_nothing() -> None:
    """A length of zero (no prefix, no suffix, no cache) stays zero, and no other becomes zero."""
    for workload in FULL:
        small = SMALL[workload.id]
        for name in ("input_tokens", "shared_tokens", "output_tokens", "cache_tokens"):
            assert (getattr(small, name) == 0) == (getattr(workload, name) == 0)


def test_order_of_lengths_is_kept() -> None:
    """A prefix longer than the completion stays longer; so does a prompt."""
    for workload in FULL:
        small = SMALL[workload.id]
        if workload.shared_tokens > workload.output_tokens:
            assert small.shared_tokens > small.output_tokens
        if workload.input_tokens > workload.output_tokens:
            assert small.input_tokens > small.output_tokens


def test_a_prefix_keeps_its_place_among_its_document() -> None:
    """The longest prefix of the document stays longer than its shortest."""
    shortest = SMALL["hydragen-codellama_7b-hydragen-b32-s1024-u128"]
    longest = SMALL["hydragen-codellama_7b-hydragen-b32-s16256-u128"]
    assert shortest.shared_tokens < longest.shared_tokens


def test_the_cache_stays_on_its_side() -> None:
    """A rolling cache keeps rolling, an exact one stays exact, a long one stays long."""
    sides = set()
    for workload in FULL:
        if workload.cache_tokens:
            small = SMALL[workload.id]
            assert _side(small) == _side(workload)
            assert small.is_rolling == workload.is_rolling
            sides.add(_side(workload))
    assert sides == {-1, 0, 1}


def _side(workload: Workload) -> int:
    difference = workload.cache_tokens - workload.sequence_tokens
    return (difference > 0) - (difference < 0)


def test_a_cache_longer_than_a_long_text_stays_longer() -> None:
    """The small cache never ends before a small text that the full cache had room for."""
    text = replace(PLAIN, shared_tokens=8192, input_tokens=2048, output_tokens=1024)
    small = shrink(replace(text, cache_tokens=12000))
    assert small.cache_tokens > small.sequence_tokens


@pytest.mark.parametrize("cache", [1, 2, 512, 1023, 1024, 1025, 1280, 2047])
def test_a_rolling_cache_overflows_in_the_same_phase(cache: int) -> None:
    """A cache that the prompt alone overflows is overflown by the small prompt too."""
    workload = replace(PLAIN, input_tokens=1024, output_tokens=1024, cache_tokens=cache)
    small = shrink(workload)
    assert small.is_rolling
    assert (small.cache_tokens < small.input_tokens) == (cache < 1024)


def test_one_sequence_stays_one() -> None:
    """Batch 1 stays 1 and every larger batch stays larger, within 2 to 16."""
    for workload in FULL:
        batch = SMALL[workload.id].batch
        assert batch == 1 if workload.batch == 1 else 2 <= batch <= 16


@pytest.mark.parametrize("model", load_models().values(), ids=lambda model: model.name)
def test_a_model_keeps_its_build(model: Model) -> None:
    """Query heads for each key/value head, MHA, GQA or MQA, activation and embeddings are kept."""
    small = shrink_model(model)
    assert small.heads * model.kv_heads == model.heads * small.kv_heads
    assert (small.kv_heads == 1) == (model.kv_heads == 1)
    assert (small.kv_heads == small.heads) == (model.kv_heads == model.heads)
    kept = ("activation", "tied_embeddings", "scaled_embeddings", "norm_adds_one", "norm_eps")
    for name in (*kept, "rope_theta", "rope_scaling"):
        assert getattr(small, name) == getattr(model, name)
    for name in ("vocab_size", "intermediate_size"):
        assert (getattr(small, name) == 0) == (getattr(model, name) == 0)
    # Whether attention is as wide as the hidden state (Gemma 7B: wider).
    assert small.heads * small.head_dim * model.hidden_size == (
        small.hidden_size * model.heads * model.head_dim
    )


@pytest.mark.parametrize("model", load_models().values(), ids=lambda model: model.name)
def test_a_model_becomes_small(model: Model) -> None:
    """A smoke model has at most five layers and four million weights, in whole groups of 64."""
    small = shrink_model(model)
    assert small.layers == 1 if model.layers == 1 else 2 <= small.layers <= 5
    assert small.parameters < 4_000_000
    assert small.hidden_size % 64 == small.intermediate_size % 64 == 0
    assert small.head_dim % 16 == 0
    assert small.name == f"{model.name}_smoke"


def test_models_stay_distinguishable() -> None:
    """No two models become the same, and the deeper Llama 2 13B stays deeper than Llama 3 8B."""
    small = {name: shrink_model(model) for name, model in load_models().items()}
    shapes = {replace(model, name="") for model in small.values()}
    assert len(shapes) == len(small)
    assert small["llama2_13b"].layers > small["llama3_8b"].layers
    others = {model.head_dim for name, model in small.items() if not name.startswith("gemma")}
    assert small["gemma_2b"].head_dim == small["gemma_7b"].head_dim > max(others)


def test_the_text_fits_the_context() -> None:
    """The small text ends within the small model's context."""
    for small in SMALL.values():
        assert small.sequence_tokens <= small.model.max_context


def test_what_needs_many_chips_goes() -> None:
    """The small workload asks for no device, no spreading over chips and no repetitions."""
    for small in SMALL.values():
        assert (small.device, small.place) == ("", "")
        assert (small.iterations, small.warmup_iterations) == (0, 0)
        for option in ("tensor_parallel", "shard_on_batch", "platform", "one_process_per_point"):
            assert small.option(option) is None


def test_techniques_stay() -> None:
    """Options that change the computation are kept."""
    small = SMALL["torchao-131072-int4_kv_quant_linear_mask"]
    full = next(w for w in FULL if w.id == "torchao-131072-int4_kv_quant_linear_mask")
    assert small.options == full.options
    assert len(small.options) == 3
    serving = SMALL["jetstream-serving-gemma_7b-int8-b128-c2048"]
    assert serving.option("quantize_kv_cache") == "true"
    assert serving.option("num_prompts") == "64"


def test_shrinking_is_deterministic_and_happens_once() -> None:
    """The same cell shrinks to the same workload, and a smoke workload comes back as it is."""
    for workload in FULL:
        small = SMALL[workload.id]
        assert shrink(workload) == small
        assert shrink(small) is small
        assert small.scale == "smoke"
        assert small.stands_for == (workload.id,)


def test_question_is_kept() -> None:
    """Document, kind, mode and data type are the full cell's."""
    for workload in FULL:
        small = SMALL[workload.id]
        for name in ("document", "kind", "mode", "dtype"):
            assert getattr(small, name) == getattr(workload, name)


def test_size_of_the_smoke_catalogue() -> None:
    """Between 60 and 130 workloads, of which a plain engine can run 25 to 40."""
    assert 60 <= len(SMOKE) <= 130
    plain = [w for w in SMOKE if _runs_on_a_plain_engine(w)]
    assert 25 <= len(plain) <= 40
    assert {w.document for w in plain} == {"jetstream", "hydragen", "torchao", "llm"}


def _runs_on_a_plain_engine(workload: Workload) -> bool:
    if workload.kind == "generate" and workload.mode == "bf16":
        return not workload.is_rolling
    return workload.mode in ("plain", "normal", "hydragen_noshared", "noattention")


def test_every_cell_is_stood_for_once() -> None:
    """The smoke catalogue stands for all that is run, each cell exactly once, sorted."""
    named = [origin for workload in SMOKE for origin in workload.stands_for]
    assert sorted(named) == sorted(w.id for w in FULL if not w.is_compiled_only)
    assert any(w.is_compiled_only for w in FULL)
    for workload in SMOKE:
        assert list(workload.stands_for) == sorted(workload.stands_for)


def test_smoke_ids() -> None:
    """Smoke ids are unique, plain, start with the document and never equal a full id."""
    ids = [workload.id for workload in SMOKE]
    assert len(set(ids)) == len(ids)
    assert not set(ids) & {workload.id for workload in FULL}
    for workload in SMOKE:
        assert re.fullmatch(rf"{workload.document}-smoke-[a-z0-9_.-]+", workload.id)


def test_equal_questions_are_one() -> None:
    """No two smoke workloads ask the same."""
    questions = {replace(w, id="", stands_for=()) for w in SMOKE}
    assert len(questions) == len(SMOKE)


def test_cells_that_differ_only_in_repetitions_merge() -> None:
    """Ten iterations or three, batch 32 or 128: one small question that names both cells."""
    first, second = (f"hydragen-codellama_7b-vllm-b{batch}-s1024-u128" for batch in (32, 128))
    (both,) = [w for w in SMOKE if first in w.stands_for]
    assert second in both.stands_for
    assert both.id == "hydragen-smoke-codellama_7b-shared-vllm-b4-s64-u16"


def test_an_added_row_changes_no_other_id() -> None:
    """Leaving out any document's rows leaves the ids of the other workloads as they are."""
    for document in ("jetstream", "hydragen", "torchao", "llm"):
        rest = smoke_catalogue(w for w in FULL if w.document != document)
        assert [w.id for w in rest] == [w.id for w in SMOKE if w.document != document]


def test_order_of_the_cells_does_not_matter() -> None:
    """The same cells in another order give the same smoke workloads."""
    assert set(smoke_catalogue(reversed(FULL))) == set(SMOKE)


def test_different_questions_of_one_id_are_an_error() -> None:
    """Merging refuses to drop a workload whose question differs from its namesake's."""
    other = replace(PLAIN, output_tokens=1)
    with pytest.raises(MergeError, match="they differ"):
        merge([(PLAIN, "first"), (other, "second")])


def test_a_model_with_weights_of_its_own_is_not_shrunk() -> None:
    """Only lengths and batch shrink around a checkpoint, and cells that differed in the model
    alone become one.
    """
    mine = replace(load_models()["mistral_7b"], name="Mine", checkpoint="folder")
    small = smoke_catalogue(catalogue_with_checkpoint(load_catalogue(), mine))
    assert {workload.model for workload in small} == {mine}
    single = [w for w in small if (w.document, w.kind) == ("llm", "single_user")]
    assert [w.id for w in single] == [
        f"llm-smoke-mine-single_user-plain-b1-i{length}-u16" for length in (16, 64, 128)
    ]
