"""Sharded and unsharded agree: 8 host devices, over heads, over one head's numbers, over slots."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("jax", reason="needs jax")

from engines.jetstream.sharding import sharding_over
from perfsuite.workloads.workload import Model

ROOT = Path(__file__).parents[2]
CASES = ["heads", "heads_batch_1", "head_dim", "batch"]
SPLITS = dict(zip(CASES, ["heads", "heads", "head_dim", "batch"], strict=True))


@cache
def results() -> dict[str, dict[str, Any]]:
    """All cases from one process, by name."""
    script = ROOT / "tests/conformance/jetstream_shards.py"
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {row["case"]: row for row in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("numbers", ["plain", "int8"])
@pytest.mark.parametrize("case", CASES)
def test_eight_devices_agree_with_one_and_with_the_reference(case: str, numbers: str) -> None:
    row = results()[f"{case} {numbers}"]
    assert (row["devices"], row["sharding"]) == (8, SPLITS[case])
    assert row["wrong"] is None
    assert row["first_tokens_equal"]
    assert row["apart"] <= 1.0
    assert row["slots"] in (None, [None] * 3)


@pytest.mark.parametrize("numbers", ["plain", "int8"])
@pytest.mark.parametrize("case", CASES)
def test_no_device_holds_a_cache_twice_or_whole(case: str, numbers: str) -> None:
    row = results()[f"{case} {numbers}"]
    assert row["whole_caches"] == 0
    if SPLITS[case] == "head_dim" and numbers == "int8":
        assert row["aliased"] > row["cache"]  # the scales are whole on every device
    else:
        assert row["aliased"] == row["aliased_by_insert"] == row["cache"]


@pytest.mark.parametrize(
    ("fields", "batch", "on_batch", "words"),
    [
        ({}, 12, True, "batch of 12 does not divide over 8"),
        ({"kv_heads": 6, "head_dim": 12}, 8, False, "head dimension of 12 does not divide"),
        ({"intermediate_size": 100}, 8, False, "intermediate size of 100"),
        ({"vocab_size": 1001}, 8, False, "vocabulary of 1001"),
    ],
)
def test_what_does_not_divide_is_named(
    tiny: Model, fields: dict[str, int], batch: int, on_batch: bool, words: str
) -> None:
    model = SimpleNamespace(**(vars(tiny) | fields))
    devices = [SimpleNamespace(id=number) for number in range(8)]
    with pytest.raises(ValueError, match=words):
        sharding_over(devices, model, batch=batch, on_batch=on_batch)
