"""What the JetStream offer runs, refuses and proves, and its full-size programs for a TPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from engines import memory
from engines.jetstream import offer as offer_module
from engines.jetstream.offer import JetStreamOffer
from perfsuite.workloads.workload import Workload

ROOT = Path(__file__).parents[2]
QUANTIZED = (("quantize_kv_cache", "true"), ("quantize_weights", "true"))
INT8 = {"mode": "int8", "dtype": "int8", "options": QUANTIZED}
LLM = {"document": "llm", "kind": "single_user", "mode": "plain", "batch": 1, "cache_tokens": 0}


@pytest.fixture
def offer() -> JetStreamOffer:
    return JetStreamOffer()


def test_the_offer_imports_no_framework() -> None:
    check = "import engines.jetstream.offer, sys; assert not {'jax', 'numpy'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=True, env={"PYTHONPATH": "."})


@pytest.mark.parametrize(
    ("changes", "device", "words"),
    [
        ({"kind": "serving"}, "cpu", "serving: server"),
        ({"document": "torchao", "mode": "kv_quant"}, "cpu", "torchao generate kv_quant"),
        ({"document": "llm", "kind": "multi_user", "mode": "plain"}, "cpu", "llm multi_user"),
        ({"input_tokens": 121}, "cpu", "context of 129 tokens: tiny has 128"),
        ({"dtype": "float8"}, "cpu", "float8 weights"),
        (INT8 | {"options": ()}, "cpu", "int8 without quantize_weights or quantize_kv_cache"),
        ({"options": (("tensor_parallel", "8"),)}, "cpu", "option tensor_parallel=8"),
        ({"options": (("shard_on_batch", "yes"),)}, "cpu", "option shard_on_batch=yes"),
        ({}, "mps", "mps support"),
    ],
)
def test_refusals_name_what_is_missing(
    offer: JetStreamOffer,
    workload: Callable[..., Workload],
    changes: dict[str, Any],
    device: str,
    words: str,
) -> None:
    cell = workload(**changes)
    reason = offer.refuses(cell, device)
    assert reason is not None
    assert reason.startswith(f"jetstream has no {words}")
    with pytest.raises(ValueError, match="jetstream has no"):
        offer.open(cell, device)


@pytest.mark.parametrize(
    ("device", "found", "words"),
    [
        ("cpu", (), "jax: install it with pip install 'perfsuite[jax]'"),
        ("tpu", (), "jax: install"),
        ("cuda:0", ("jax",), "CUDA in its jax: install it with pip install 'jax[cuda13]'"),
        ("cuda:0", ("jax", "jax_cuda12_plugin"), None),
        ("tpu", ("jax",), None),
    ],
)
def test_what_is_not_installed_is_named(
    offer: JetStreamOffer,
    workload: Callable[..., Workload],
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    found: tuple[str, ...],
    words: str | None,
) -> None:
    monkeypatch.setattr(offer_module, "find_spec", lambda name: name in found or None)
    reason = offer.refuses(workload(), device)
    assert (reason is None) == (words is None)
    assert reason is None or reason.startswith(f"jetstream has no {words}")


def test_a_device_that_jax_does_not_see_is_named() -> None:
    pytest.importorskip("jax", reason="needs jax")
    with pytest.raises(ValueError, match="jax sees no rocm device on this machine"):
        offer_module.attached("rocm")
    with pytest.raises(ValueError, match="expected one numbered 99"):
        offer_module.attached("cpu:99")


CELLS: list[dict[str, Any]] = [
    {},
    {"cache_tokens": 14},
    INT8 | {"cache_tokens": 14},
    {"options": (("quantize_weights", "true"), ("shard_on_batch", "false"))},
    {"options": (("shard_on_batch", "true"),)},
    LLM,
    {"batch": 1, "input_tokens": 1, "output_tokens": 1, "cache_tokens": 2},
]


@pytest.mark.parametrize("changes", CELLS)
def test_what_is_run_is_proved(
    offer: JetStreamOffer, workload: Callable[..., Workload], changes: dict[str, Any]
) -> None:
    pytest.importorskip("jax", reason="needs jax")
    cell = workload(**changes)
    assert offer.refuses(cell, "cpu") is None
    engine = offer.open(cell, "cpu")
    config = engine.config
    assert config["verifiable"]
    assert config["weights"] == "seed 0, numpy"
    asked = dict(cell.options)
    assert (config["weights_dtype"] == "int8") == (asked.get("quantize_weights") == "true")
    assert (config["cache_dtype"] == "int8") == (asked.get("quantize_kv_cache") == "true")
    assert {type(value) for value in config.values()} <= {str, int, bool}
    assert offer.verify(engine, cell) is None
    engine.close()


def test_verify_finds_wrong_weights(
    offer: JetStreamOffer, workload: Callable[..., Workload]
) -> None:
    pytest.importorskip("jax", reason="needs jax")
    cell = workload(dtype="float32", cache_tokens=14)
    engine = offer.open(cell, "cpu")
    layers = engine.weights.layers
    wrong = layers[2]._replace(down=layers[2].down * 1.001)
    engine.weights = engine.weights._replace(layers=(*layers[:2], wrong))
    assert "are off by" in (offer.verify(engine, cell) or "")


def test_what_does_not_fit_says_the_arithmetic(
    offer: JetStreamOffer, workload: Callable[..., Workload], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jax", reason="needs jax")
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)
    with pytest.raises(MemoryError, match=r"tiny with a cache of 3 x 20 tokens needs 0\.0 GB"):
        offer.open(workload(), "cpu")


# Full-size programs, compiled for a slice of TPUs that is not there

COMPILE = """
import json, sys
from types import SimpleNamespace
from dataclasses import replace
from jax.experimental import topologies
from engines.jetstream.offer import JetStreamOffer
from perfsuite.workloads import load_catalogue

devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x4").devices
cells = {cell.id: cell for cell in load_catalogue()}
for name in sys.argv[1:]:
    cell = cells[name]
    cell = cell.sized(model=replace(cell.model, layers=1))
    for program in JetStreamOffer().programs(cell, SimpleNamespace(name="v5e-8", devices=devices)):
        if program.name == "decode":
            compiled = program.jitted.lower(*program.arguments).compile()
            memory = compiled.memory_analysis()
            peak = memory.argument_size_in_bytes + memory.output_size_in_bytes
            peak += memory.temp_size_in_bytes - memory.alias_size_in_bytes
            print(json.dumps({
                "cell": name, "peak": peak, "aliased": memory.alias_size_in_bytes,
                "weights": program.weights_bytes, "cache": program.cache_bytes,
            }))
"""
ROWS = {
    "jetstream-llama3_8b-v5e_8-bf16-b128-c2048": 1.02,
    "jetstream-llama3_8b-v5e_8-int8-b256-c2048": 1.08,
    "jetstream-gemma_2b-v5e_8-bf16-b512-c2048": 1.02,
}


@cache
def compiled_rows() -> dict[str, dict[str, Any]]:
    """One layer of each row for v5e-8, by name; in a process of its own, as libtpu wants it."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_SKIP_MDS_QUERY": "1",
    }
    command = [sys.executable, "-c", COMPILE, *ROWS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {row["cell"]: row for row in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", ROWS)
def test_a_decode_step_on_a_tpu_holds_weights_and_cache_once(name: str) -> None:
    pytest.importorskip("libtpu", reason="needs libtpu")
    row = compiled_rows()[name]
    assert row["aliased"] == row["cache"]
    assert row["peak"] <= ROWS[name] * (row["weights"] + row["cache"])
