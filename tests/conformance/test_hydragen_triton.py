"""The engine that decodes by the Triton kernels: right without a GPU, a graph a step on one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if not (find_spec("torch") and find_spec("triton")):
    pytest.skip("needs torch and triton", allow_module_level=True)

import torch

from engines.hydragen import graphs
from engines.hydragen.offer import HydragenOffer
from tests.conformance.conftest import SHAPES, TINY
from tests.conformance.test_hydragen import opened, row, verdict

ROOT = Path(__file__).parents[2]
RIGHT = [*(f"shared {name}" for name in SHAPES), "bfloat16", "copied", "ragged suffixes",
         "ragged prefixes", "an empty row", "one after the other"]  # fmt: skip


@cache
def results() -> dict[str, Any]:
    """What was wrong in each case, from one process in which kernels are interpreted."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.conformance.hydragen_triton_runs"],
        cwd=ROOT, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {one["case"]: one["wrong"] for one in found}


@pytest.mark.parametrize("case", RIGHT)
def test_decoding_by_the_kernels_agrees(case: str) -> None:
    assert results()[case] is None


@pytest.mark.parametrize("case", ["planted length", "planted weight"])
def test_planted_bugs_are_seen(case: str) -> None:
    assert results()[case]


def test_levels_of_equal_shapes_keep_their_memory() -> None:
    """What a recorded step reads lies where it lay, and is what the last prompt wrote."""
    engine = opened(TINY, 3)
    engine.prefill_shared(row(9, 1), 3)
    before, prefix = engine.lies(), row(9, 2)
    step = engine.prefill_shared(prefix, 3)
    assert engine.lies() == before
    assert verdict(engine, step, [prefix] * 3) is None
    engine.prefill_shared(row(8, 3), 3)
    assert engine.lies() != before


class Recording:
    """Stands for torch.cuda where there is none: says in which order it is asked."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def asked(*given: Any) -> Recording:
            self.said.append(name)
            return self

        return asked

    def __enter__(self) -> None:
        self.said.append("enter")

    def __exit__(self, *error: object) -> None:
        self.said.append("exit")


def test_a_call_runs_once_before_it_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a stream of its own, which waits and is waited for; replays copy the results out."""
    cuda = Recording()
    monkeypatch.setattr(torch, "cuda", cuda)
    held = torch.zeros(2)

    def call() -> tuple[torch.Tensor, ...]:
        cuda.said.append("called")
        return (held,)

    replay = graphs.captured(call)
    warm, recorded = [number for number, name in enumerate(cuda.said) if name == "called"]
    assert "wait_stream" in cuda.said[:warm]
    assert "wait_stream" in cuda.said[warm:recorded]
    assert cuda.said.index("graph") > warm
    held += 1
    first, held[0] = replay()[0], 5.0
    assert cuda.said.count("called") == 2
    assert "replay" in cuda.said
    assert first.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("device", "kind", "words"),
    [
        ("cpu", "shared", "cpu support: Triton compiles for GPUs"),
        ("cuda", "attention", "attention without a model"),
    ],
)
def test_refusals(workload: Any, device: str, kind: str, words: str) -> None:
    offer = HydragenOffer("hydragen_triton", default=False, triton=True)
    cell = workload(document="hydragen", kind=kind, mode="hydragen", dtype="bfloat16",
                    shared_tokens=8, input_tokens=0, cache_tokens=0)  # fmt: skip
    assert offer.refuses(cell, device) == f"hydragen_triton has no {words}"
    assert not offer.has_programs


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_recorded_step_agrees_on_a_gpu(dtype: str) -> None:
    engine = opened(TINY, 3, dtype, device="cuda", triton=True)
    assert engine.config["graphs"] == "decode"
    for seed in (1, 2):
        prefix = row(9, seed)
        assert verdict(engine, engine.prefill_shared(prefix, 3), [prefix] * 3) is None
