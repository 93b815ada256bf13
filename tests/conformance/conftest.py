"""Small shapes, one for each thing in which the models of the documents differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from perfsuite.workloads.workload import Model, RopeScaling, Workload

TINY = Model(
    "tiny",
    layers=3,
    hidden_size=64,
    heads=4,
    kv_heads=2,
    head_dim=16,
    intermediate_size=128,
    vocab_size=256,
    max_context=128,
)
SHAPES = {
    "grouped": TINY,
    "every_head": replace(TINY, kv_heads=4),
    "one_head": replace(TINY, kv_heads=1),
    "wide_head": replace(TINY, head_dim=32),
    "tied": replace(TINY, tied_embeddings=True),
    "llama3_1": replace(TINY, rope_theta=500_000.0, rope_scaling=RopeScaling(8.0, 1.0, 4.0, 16)),
    "gemma": replace(
        TINY,
        kv_heads=1,
        activation="gelu_tanh",
        tied_embeddings=True,
        scaled_embeddings=True,
        norm_adds_one=True,
        norm_eps=1e-6,
    ),
}


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> Model:
    """Every small shape in turn."""
    return SHAPES[request.param]


@pytest.fixture
def tiny() -> Model:
    """The grouped-query shape."""
    return TINY


@pytest.fixture
def workload() -> Callable[..., Workload]:
    """A cell that the torch engine runs, at a tiny size; any field may be given."""

    def make(**changes: Any) -> Workload:
        fields: dict[str, Any] = {
            "id": "cell",
            "document": "jetstream",
            "place": "a row",
            "kind": "generate",
            "mode": "bf16",
            "model": TINY,
            "device": "TPU v5e-8",
            "batch": 3,
            "input_tokens": 12,
            "output_tokens": 8,
            "cache_tokens": 20,
        }
        return Workload(**(fields | changes))

    return make
