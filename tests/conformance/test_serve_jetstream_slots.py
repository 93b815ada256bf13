"""The JetStream engine behind the server: the same comings and goings, on the ring."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("jax", reason="needs jax")

from engines.serve.jetstream_slots import JetStreamSlots
from engines.weights import seeded_weights
from perfsuite.workloads.workload import Model
from tests.conformance.jetstream_runs import opened
from tests.conformance.serve_slots import Driver, interleaved, judge


def scores(engine: Any, row: int, slot: int) -> Any:
    return engine._state.logits()[slot]


@pytest.mark.parametrize("cache_tokens", [48, 13], ids=["whole", "rolling"])
def test_sequences_agree_with_the_reference(tiny: Model, cache_tokens: int) -> None:
    model = replace(tiny, layers=2)
    engine = JetStreamSlots(opened(model, batch=4, cache_tokens=cache_tokens, tokens=48), 20)
    found = interleaved(Driver(engine, model, scores))
    weights = seeded_weights(model)
    options = {"window": cache_tokens}
    assert [judge(one, model, weights, "float32", **options) for one in found] == [None] * 7


def test_warming_up_leaves_all_slots_empty(tiny: Model) -> None:
    engine = JetStreamSlots(opened(replace(tiny, layers=1), batch=2), 20)
    engine.warm_up()
    assert not np.asarray(engine._state.slots.lengths).any()
    assert engine.step() == [0, 0]
