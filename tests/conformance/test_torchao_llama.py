"""The torchao engine against the reference, within the derived bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from engines.torchao_llama import cache as cache_module  # noqa: E402
from engines.torchao_llama import engine as engine_module  # noqa: E402
from engines.torchao_llama.plan import MODES, NORMAL, Plan  # noqa: E402
from engines.torchao_llama.weights import QuantisedWeights  # noqa: E402
from perfsuite.workloads.workload import Model  # noqa: E402
from tests.conformance.torchao_runs import (  # noqa: E402
    CACHE,
    PLANS,
    continued,
    opened,
    prompts,
    sampled,
)


@pytest.fixture(params=PLANS)
def plan(request: pytest.FixtureRequest) -> Plan:
    return PLANS[request.param]


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 8 places, read in blocks of 4, so that short texts meet their borders."""
    monkeypatch.setattr(cache_module, "TILE", 8)
    monkeypatch.setattr(engine_module, "BLOCK", 4)


def test_every_plan_agrees_with_the_reference(shape: Model, plan: Plan) -> None:
    """Several samples in a row on one engine: long, short, long."""
    engine = opened(shape, plan)
    for number, time in enumerate((9, 5, 12)):
        assert sampled(engine, time, seed=number) is None


@pytest.mark.parametrize(("dtype", "batch"), [("bfloat16", 1), ("bfloat16", 3), ("float16", 2)])
@pytest.mark.parametrize("kv_heads", [2, 4], ids=["grouped", "every_head"])
def test_other_types_and_batches_agree(
    tiny: Model, plan: Plan, kv_heads: int, dtype: str, batch: int
) -> None:
    engine = opened(replace(tiny, kv_heads=kv_heads), plan, dtype, batch)
    for number, time in enumerate((9, 5)):
        assert sampled(engine, time, seed=number) is None


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("time", [1, 4, 7, 8, 9, 16])
def test_prompts_at_the_borders_of_tiles_and_blocks(tiny: Model, plan: Plan, time: int) -> None:
    engine = opened(tiny, plan)
    assert sampled(engine, 20, seed=1) is None
    assert sampled(engine, time, decodes=10) is None


@pytest.mark.usefixtures("small_tiles")
def test_tiles_change_nothing(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """To rounding: the same text with one tile and with many."""
    ids, plan = prompts(2, 13), PLANS["kv_quant"]
    many = opened(tiny, plan)
    _, in_tiles = continued(many, many.prefill(ids))
    monkeypatch.setattr(cache_module, "TILE", 4096)
    one = opened(tiny, plan)
    np.testing.assert_allclose(continued(one, one.prefill(ids))[1], in_tiles, atol=1e-4)


def test_a_text_up_to_the_last_place(tiny: Model, plan: Plan) -> None:
    engine = opened(tiny, plan, cache_tokens=14)
    assert sampled(engine, 9, decodes=5) is None
    full = engine.prefill(prompts(2, 14))
    with pytest.raises(ValueError, match="the cache holds 14 tokens and is full"):
        engine.decode(full)


def test_an_older_step_can_be_decoded_again(tiny: Model, plan: Plan) -> None:
    """What the first continuation left behind the step is not seen by the second."""
    engine = opened(tiny, plan)
    start = engine.prefill(prompts(2, 9))
    first, second = continued(engine, start), continued(engine, start)
    np.testing.assert_array_equal(first[1], second[1])


def test_a_longer_cache_changes_nothing(tiny: Model, plan: Plan) -> None:
    """cache_size larger than what is generated: the same logits, bit for bit."""
    ids = prompts(2, 9)
    short, long = opened(tiny, plan, cache_tokens=64), opened(tiny, plan, cache_tokens=100)
    expected = continued(short, short.prefill(ids))[1]
    np.testing.assert_array_equal(continued(long, long.prefill(ids))[1], expected)


def test_the_effective_configuration_is_read_off_what_is_held(tiny: Model) -> None:
    normal = opened(tiny, NORMAL, "bfloat16", batch=1).config
    assert normal["cache"] == f"keys bfloat16 [1, 2, {CACHE}, 16], values bfloat16 " + str(
        [1, 2, CACHE, 16]
    )
    assert normal["mask"] == f"bool [{CACHE}, {CACHE}]"
    assert normal["linear"] == "row kernels in decode"
    assert normal["matrices"] == "Tensor"
    assert normal["weights_bytes"] == 2 * tiny.parameters
    quantised = opened(tiny, MODES["kv_quant_linear_mask"], "bfloat16", batch=1).config
    assert "keys int8" in quantised["cache"]
    assert "key_scales bfloat16" in quantised["cache"]
    assert quantised["mask"] == f"bool [{CACHE}]"
    assert quantised["cache_bytes"] == tiny.kv_values_per_token * CACHE * 18 // 16
    assert {type(value) for value in quantised.values()} <= {str, int, bool}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # torch's own
@pytest.mark.filterwarnings("ignore:.*_stable_hash_for_caching:UserWarning")  # torchao's
@pytest.mark.parametrize(
    ("plan", "dtype"),
    [
        (NORMAL, "float32"),
        (MODES["kv_quant_linear_mask"], "bfloat16"),
        (Plan(True, True, "int8wo"), "bfloat16"),
    ],
    ids=["normal", "kv_quant_linear_mask", "int8wo"],
)
def test_compiled_agrees_with_the_reference(
    tiny: Model, plan: Plan, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts of several lengths are one program, and so are steps of all positions."""
    if plan.scheme:
        pytest.importorskip("torchao", reason="needs torchao")
    monkeypatch.setattr(cache_module, "TILE", 16)
    engine = opened(replace(tiny, layers=1), plan, dtype, batch=1, compiled=True)
    try:
        assert sampled(engine, 9) is None
        with torch._dynamo.config.patch(error_on_recompile=True):
            for number, time in enumerate((12, 5, 9)):
                assert sampled(engine, time, seed=number) is None
        assert engine.config["compiled"] == "prefill and decode"
    finally:
        engine.close()


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda e: e.prefill([[1, 2], [3]]), "tokens, expected 2 of one length"),
        (lambda e: e.prefill([[1, 2]]), "got 1 prompts of"),
        (lambda e: e.prefill([[], []]), "at least 1"),
        (lambda e: e.prefill([[1] * 49] * 2), "a prompt of 49 tokens exceeds 48"),
        (lambda e: e.prefill([[1, 256]] * 2), "got token ids from 1 to 256, expected 0 to 255"),
    ],
    ids=["ragged", "few", "empty", "long", "vocabulary"],
)
def test_bad_prompts_are_refused(tiny: Model, ask: Callable[[Any], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ask(opened(tiny, NORMAL))


def test_no_size_is_refused(tiny: Model) -> None:
    with pytest.raises(ValueError, match="got batch 0 and a cache of 48 tokens"):
        opened(tiny, NORMAL, batch=0)


# Weights


@pytest.fixture(params=["int8wo", "int4wo"])
def scheme(request: pytest.FixtureRequest) -> str:
    pytest.importorskip("torchao", reason="needs torchao")
    return str(request.param)


def test_quantised_weights_agree_with_the_reference_on_them(shape: Model, scheme: str) -> None:
    engine = opened(shape, Plan(scheme=scheme))
    for number, time in enumerate((9, 5)):
        assert sampled(engine, time, seed=number) is None
    assert isinstance(engine.weights, QuantisedWeights)


@pytest.mark.parametrize("batch", [1, 3])
def test_quantised_weights_agree_in_bfloat16(tiny: Model, scheme: str, batch: int) -> None:
    engine = opened(tiny, Plan(scheme=scheme), "bfloat16", batch)
    assert sampled(engine, 9) is None


def test_everything_together_agrees(tiny: Model, scheme: str) -> None:
    engine = opened(tiny, Plan(True, True, scheme), "bfloat16", batch=1)
    for number, time in enumerate((9, 5, 12)):
        assert sampled(engine, time, seed=number) is None


def test_weights_drawn_on_the_device_are_the_unquantised_ones(tiny: Model, scheme: str) -> None:
    """The same seed gives the same numbers, quantised or not."""
    plain = opened(tiny, NORMAL, weights=3)
    quantised = opened(tiny, Plan(scheme=scheme), weights=3)
    torch.testing.assert_close(quantised.weights.embedding, plain.weights.embedding)
    numbers = dict(quantised.weights.numbers())["lm_head.weight"]
    steps = {"int8wo": 0.03, "int4wo": 0.3}[scheme]  # of the largest weight, about 4 deviations
    np.testing.assert_allclose(numbers, plain.weights.head.numpy(), atol=4 * steps / 8)


def test_quantised_weights_take_as_many_bytes_as_they_should(tiny: Model, scheme: str) -> None:
    """Matrices of int8 with a scale of 2 bytes a row; int4 with 4 bytes a group of 64."""
    engine = opened(tiny, Plan(scheme=scheme), "bfloat16", batch=1)
    matrices = tiny.layers * tiny.layer_parameters - 2 * tiny.layers * tiny.hidden_size
    matrices += tiny.vocab_size * tiny.hidden_size
    kept = 2 * (tiny.parameters - matrices)
    if scheme == "int4wo":
        assert engine.config["weights_bytes"] == kept + matrices * (0.5 + 4 / 64)
    else:
        rows = tiny.layers * (128 + 64 + 256 + 64) + tiny.vocab_size  # qkv, output, gate_up, down
        assert engine.config["weights_bytes"] == kept + matrices + 2 * rows
    assert engine.config["matrices"] in ("Int8Tensor", "Int4OpaqueTensor")


def test_blocks_of_rows_are_packed_as_the_whole(scheme: str, monkeypatch: Any) -> None:
    """A matrix is quantised a few rows at a time; each block lies where the whole has it."""
    from engines.torchao_llama import blocks
    from engines.torchao_llama.schemes import scheme_for
    from tests.conformance.conftest import TINY

    made = scheme_for(TINY, scheme, torch.bfloat16, "cpu")
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn((208, 64), generator=generator).bfloat16()
    whole, parts = made.empty(208, 64), made.empty(208, 64)
    made.fill(whole, matrix)
    monkeypatch.setattr(blocks, "ROWS", 64)
    made.fill(parts, matrix)
    assert torch.equal(made.numbers(parts), made.numbers(whole))
    x = torch.randn((3, 64), generator=generator).bfloat16()
    assert torch.equal(made.linear(x, parts), made.linear(x, whole))


def test_many_rows_of_inputs_give_what_few_give(tiny: Model) -> None:
    """int8: the operator for few rows, and blocks of widened weights."""
    pytest.importorskip("torchao", reason="needs torchao")
    from engines.torchao_llama.int8_weights import FEW_ROWS
    from engines.torchao_llama.schemes import scheme_for

    made = scheme_for(tiny, "int8wo", torch.float32, "cpu")
    held = made.empty(48, 64)
    made.fill(held, torch.randn((48, 64), generator=torch.Generator().manual_seed(1)))
    x = torch.randn((FEW_ROWS + 1, 64), generator=torch.Generator().manual_seed(2))
    apart = torch.cat([made.linear(row.unsqueeze(0), held) for row in x])
    torch.testing.assert_close(made.linear(x, held), apart)
