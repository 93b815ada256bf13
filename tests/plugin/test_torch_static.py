"""Torch programs in the static tier, from the command line: faults are red and name the tensor."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(find_spec("torch") is None, reason="needs torch")

_CONFTEST = """
import json
from pathlib import Path

import pytest

PLANTED = json.loads(Path(__file__).with_name("planted.json").read_text())


class Program:
    name = "decode"

    def make(self):
        import torch

        if PLANTED.get("broken"):
            raise MemoryError("no room for layer 3")
        rows = 4096 if PLANTED.get("dense") else 1
        self.mask = torch.empty(rows, 4096, dtype=torch.bool, device="cuda")
        self.weight = torch.empty(1024, 1024, dtype=torch.bfloat16, device="cuda")
        row = self.mask.narrow(0, 0, 1).narrow(1, 0, 1024)
        return lambda: (self.weight @ self.weight).masked_fill(row, 0)

    def held(self):
        return {"mask": self.mask, "weights.layers.0.down": self.weight}


class Offer:
    name, framework = "mine", "torch"

    def refuses(self, workload, device):
        return None if workload.kind == "single_user" else "one user is all it fakes"

    def open(self, workload, device):
        raise AssertionError("nothing is opened for the static tier")

    def programs(self, workload, target):
        assert target == "cuda"
        return [Program()]


@pytest.hookimpl(optionalhook=True)
def pytest_perf_engines(config):
    return [Offer()]
"""

_TEST = """
import pytest

@pytest.mark.perf(workloads="llm-llama2_13b-1024-single_user")
def test_user(perf, perf_engine, perf_workload):
    perf(perf_engine, perf_workload)
"""

NAME = "test_user[llm-llama2_13b-1024-single_user-mine-static]"
ON_GPU = ("--perf-device=cuda", "--perf-scale=full")


@pytest.fixture
def torch_program(project: Any) -> Any:
    """One program that holds a mask and a matrix, nothing planted."""
    project.write("test_it.py", _TEST)
    project.conftest(_CONFTEST)
    plant(project)
    return project


def plant(project: Any, **what: Any) -> None:
    project.write("planted.json", json.dumps(what))


def verdicts(project: Any) -> dict[str, str]:
    return {row["figure"]: row["verdict"] for row in project.results[NAME]["rows"]}


def test_a_dense_mask_is_red_and_named(torch_program: Any) -> None:
    """The same in a second run; dense, the peak and the mask are worse and nothing else held."""
    assert torch_program.perf(*ON_GPU, "--perf-save").ret == 0
    assert torch_program.perf(*ON_GPU).ret == 0
    assert set(verdicts(torch_program).values()) == {"SAME"}

    plant(torch_program, dense=True)
    worse = torch_program.perf(*ON_GPU)
    worse.assert_outcomes(failed=1, skipped=1)  # no GPU: it is not measured
    worse.stdout.fnmatch_lines([
        "WORSE: peak mask (decode) 16.78 MB",
        "baseline 4.096 kB, *, baselines/static-cuda/test_it.json",
        "*changed since: decode: at the peak *-> mask bool?4096,4096?, 16.78 MB; decode: mask *",
        "also static peak (decode) WORSE, static loaded (decode) WORSE",
    ])  # fmt: skip
    found = verdicts(torch_program)
    assert found["static_at_peak/mask@decode"] == "WORSE"
    assert found["static_at_peak/weights@decode"] == "SAME"
    assert found["static_at_peak/activations@decode"] == "SAME"


def test_a_baseline_without_words_stays_readable(torch_program: Any) -> None:
    """As those recorded before there were any: green and silent, and a failure still names."""
    torch_program.perf(*ON_GPU, "--perf-save")
    (file,) = (torch_program.path / "baselines").glob("static-cuda/*.json")
    document = json.loads(file.read_text())
    for entry in document["entries"].values():
        entry["config"] = {}
        for group in (entry["figures"], entry.get("best", {})):
            for name in [n for n in group if n.startswith("static_at_peak/")]:
                del group[name]
    file.write_text(json.dumps(document))

    done = torch_program.perf(*ON_GPU)
    assert done.ret == 0
    assert "absent" not in done.stdout.str()
    assert set(verdicts(torch_program).values()) == {"SAME", "NEW"}

    plant(torch_program, dense=True)
    worse = torch_program.perf(*ON_GPU)
    worse.assert_outcomes(failed=1, skipped=1)  # no GPU: it is not measured
    worse.stdout.fnmatch_lines([
        "WORSE: static * (decode) *",
        "*changed since: decode: at the peak absent -> mask bool?4096,4096?, 16.78 MB; *",
    ])  # fmt: skip


def test_a_program_that_cannot_be_built_is_void_and_named(torch_program: Any) -> None:
    """In one line, without a traceback."""
    plant(torch_program, broken=True)
    done = torch_program.perf(*ON_GPU)
    assert done.ret == 1
    done.stdout.fnmatch_lines(["VOID: decode: make() raised MemoryError: no room for layer 3"])
    assert "Traceback" not in done.stdout.str()
