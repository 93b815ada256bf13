"""The static peak against the allocator's own, of programs in which activations matter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec

import pytest

pytest.importorskip("torch", reason="needs torch")

from engines.offers import offers
from perfsuite.runtimes import torch_runtime
from perfsuite.static import facts_of
from perfsuite.workloads.workload import Model, Workload

PEAK = "static_peak_memory/live_tensors"
INT4 = "int4_kv_quant_linear_mask"
OPTIONS = {
    "kv_quant": ("kv_cache_quantization",),
    "kv_quant_linear_mask": ("kv_cache_quantization", "linear_causal_mask"),
    INT4: ("kv_cache_quantization", "linear_causal_mask"),
}


@pytest.fixture
def model(tiny: Model) -> Model:
    """Weights of some 20 MB in bfloat16."""
    sizes = {"heads": 8, "kv_heads": 4, "head_dim": 64, "intermediate_size": 1536}
    return replace(tiny, layers=2, hidden_size=512, vocab_size=4096, max_context=4096, **sizes)


def within_three_percent(engine: str, cell: Workload, name: str, least_made: float) -> None:
    """The same program once without data and once with memory; so much of it is activations."""
    offer = next(offer for offer in offers() if offer.name == engine)
    program = next(p for p in offer.programs(cell, "cpu") if p.name == name)
    static = facts_of(program, "torch", "cpu")
    measured = torch_runtime.peak(program.make(), "cpu").allocated
    assert measured == pytest.approx(static[PEAK], rel=0.03)
    assert static["static_at_peak/activations"] > least_made * static[PEAK]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize(("name", "least_made"), [("prefill", 0.5), ("decode", 0.1)])
def test_of_the_torch_engine(
    workload: Callable[..., Workload], model: Model, name: str, least_made: float, dtype: str
) -> None:
    """A prefill of 2048 tokens, a decode step of 256 sequences."""
    sizes = {"batch": 256, "input_tokens": 8, "output_tokens": 8, "cache_tokens": 16}
    within_three_percent(
        "torch_llama", workload(model=model, dtype=dtype, **sizes), name, least_made
    )


@pytest.mark.parametrize("mode", ["normal", *OPTIONS])
@pytest.mark.parametrize("name", ["prefill", "decode"])
def test_of_the_torchao_engine(
    workload: Callable[..., Workload], model: Model, name: str, mode: str
) -> None:
    """A quantised cache that is longer than the text, its mask, and int4 weights."""
    if mode == INT4 and find_spec("torchao") is None:
        pytest.skip("needs torchao")
    options = [(option, "true") for option in OPTIONS.get(mode, ())]
    if mode == INT4:
        options.append(("quantization", "int4wo"))
    cell = workload(
        document="torchao", mode=mode, model=model, dtype="bfloat16", options=tuple(options),
        batch=4, input_tokens=256, output_tokens=8, cache_tokens=2048,
    )  # fmt: skip
    within_three_percent("torchao_llama", cell, name, 0.3 if name == "prefill" else 0)
