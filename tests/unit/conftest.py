"""A model small enough to compute by hand, and results as the reports take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from perfsuite.results import Result, Row
from perfsuite.verdict import Verdict
from perfsuite.workloads import Model, Workload

# 152 weights a layer, 304 in both; 40 in the output projection; 388 in all with embedding and
# final norm; 8 cached values a token.
TINY = Model(
    "tiny",
    layers=2,
    hidden_size=4,
    heads=2,
    kv_heads=1,
    head_dim=2,
    intermediate_size=8,
    vocab_size=10,
    max_context=64,
)


@pytest.fixture
def make_workload() -> Callable[..., Workload]:
    """A cell of four output tokens on the tiny model; any field may be given."""

    def make(**changes: Any) -> Workload:
        fields: dict[str, Any] = {
            "id": "llm-tiny",
            "document": "llm",
            "place": "",
            "kind": "generate",
            "mode": "plain",
            "model": TINY,
            "device": "",
            "dtype": "float32",
            "batch": 3,
            "input_tokens": 5,
            "output_tokens": 4,
        }
        return Workload(**{**fields, **changes})

    return make


@pytest.fixture
def make_row() -> Callable[..., Row]:
    """A compared figure that got 10 % slower; any field may be given."""

    def make(**changes: Any) -> Row:
        fields: dict[str, Any] = {
            "figure": "time_to_first_token/prefill_until_first_token",
            "verdict": Verdict.WORSE,
            "value": 0.011,
            "low": 0.0108,
            "high": 0.0112,
            "processes": (0.0109, 0.011, 0.0111),
            "samples": 30,
            "ratio": 1.1,
            "ratio_low": 1.07,
            "ratio_high": 1.13,
            "limit": 1.05,
            "baseline": 0.010,
            "baseline_file": "baselines/cpu-model-2x-x86_64/jetstream.json",
            "baseline_date": "2026-01-31T12:00:00+00:00",
            "ceiling": 0.42,
        }
        return Row(**{**fields, **changes})

    return make


@pytest.fixture
def make_result(make_row: Callable[..., Row]) -> Callable[..., Result]:
    """A result of one figure with its samples; any field may be given."""

    def make(**changes: Any) -> Result:
        rows = changes.pop("rows", (make_row(),))
        fields: dict[str, Any] = {
            "nodeid": "tests/test_a.py::test_a",
            "test": "tests/test_a.py",
            "machine": "cpu-model-2x-x86_64",
            "suite": "tests/test_a.py",
            "key": "test_a | measured",
            "workload": "test_a",
            "engine": "torch_llama",
            "tier": "measured",
            "scale": "smoke",
            "date": "2026-02-01T12:00:00+00:00",
            "toolchain": "python 3.11.7, torch 2.13.0",
            "rows": rows,
            "samples": {row.figure: [[v, v] for v in row.processes] for row in rows},
        }
        return Result(**{**fields, **changes})

    return make
