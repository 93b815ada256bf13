"""Triton kernels in the static tier: gated with --perf-device=cuda on a machine without a GPU.

The kernel is a softmax whose block holds a row; what is planted is read from a file, as the losses
of measured tests are.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="needs triton")

_KERNELS = """
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
import triton.language as tl

PLANTED = json.loads(Path(__file__).with_name("planted.json").read_text())


@triton.jit
def softmax(x, out, columns, BLOCK: tl.constexpr):
    row, at = tl.program_id(0), tl.arange(0, BLOCK)
    values = tl.load(x + row * columns + at, mask=at < columns, other=-float("inf"))
    weights = tl.exp(values - tl.max(values, 0))
    tl.store(out + row * columns + at, weights / tl.sum(weights, 0), mask=at < columns)


@dataclass
class Program:
    name: str
    kernel: Any
    signature: Any
    constants: Any
    num_warps: int = 4
    num_stages: int = 2


def kernels():
    signature = {"x": "*bf16", "out": "*bf16", "columns": "i32:16", "BLOCK": "constexpr"}
    if PLANTED.get("unknown"):
        signature["rows"] = "i32"
    return [Program("row_softmax", softmax, signature, {"BLOCK": PLANTED.get("block", 1024)})]
"""

_CONFTEST = """
import pytest


class Offer:
    name, framework = "mine", "triton"

    def refuses(self, workload, device):
        return None if workload.kind == "kernels" else "kernels alone"

    def programs(self, workload, target):
        assert target == "cuda"
        from row_kernels import kernels
        return kernels()


@pytest.hookimpl(optionalhook=True)
def pytest_perf_engines(config):
    return [Offer()]
"""

_TEST = """
import pytest

@pytest.mark.perf(workloads="hydragen-kernels-codellama_7b")
def test_kernels(perf, perf_engine, perf_workload):
    perf(perf_engine, perf_workload)
"""

NAME = "test_kernels[hydragen-kernels-codellama_7b-mine-static]"
ON_GPU = "--perf-device=cuda"
STORES = "static_spill_stores/per_thread"


@pytest.fixture
def kernels(project: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """One workload of kernels on an offer of one kernel, nothing planted."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    project.write("row_kernels.py", _KERNELS)
    project.write("test_it.py", _TEST)
    project.conftest(_CONFTEST)
    plant(project)
    return project


def plant(project: Any, **what: Any) -> None:
    project.write("planted.json", json.dumps(what))


def test_a_kernel_that_spills_is_red_and_named(kernels: Any) -> None:
    """Recorded under static-cuda, the same in a second run; a larger block spills."""
    first = kernels.perf(ON_GPU, "--perf-save")
    assert first.ret == 0
    first.assert_outcomes(passed=1)
    assert list((kernels.path / "baselines").glob("static-cuda/*.json"))
    assert kernels.perf(ON_GPU).ret == 0
    verdicts = {row["figure"]: row["verdict"] for row in kernels.results[NAME]["rows"]}
    for arch in (80, 90, 100):
        assert verdicts[f"{STORES}@row_softmax sm_{arch}"] == "SAME"
    assert set(verdicts.values()) == {"SAME"}

    plant(kernels, block=32768)
    worse = kernels.perf(ON_GPU)
    worse.assert_outcomes(failed=1)
    worse.stdout.fnmatch_lines([
        "WORSE: spill stores (row_softmax sm_80) * B",
        "baseline 0 B, *, baselines/static-cuda/test_it.json",
        "*changed since: *constants num_stages 2, num_warps 4, BLOCK 1024 -> *, BLOCK 32768*",
        "also registers (row_softmax sm_80) WORSE, spill loads (row_softmax sm_80) WORSE, *",
        "to accept: pytest --perf --perf-device=cuda:0 *",
    ])  # fmt: skip
    verdicts = {row["figure"]: row["verdict"] for row in kernels.results[NAME]["rows"]}
    for arch in (80, 90, 100):
        assert verdicts[f"{STORES}@row_softmax sm_{arch}"] == "WORSE"
        assert verdicts[f"static_idle_warps/occupancy_bound@row_softmax sm_{arch}"] == "WORSE"


def test_a_signature_that_does_not_fit_is_void_in_one_line(kernels: Any) -> None:
    """Without a traceback, with the arguments that there are."""
    plant(kernels, unknown=True)
    done = kernels.perf(ON_GPU)
    assert done.ret == 1
    done.stdout.fnmatch_lines([
        "VOID: row_softmax: argument rows: which the kernel does not take;"
        " softmax takes x, out, columns, BLOCK"
    ])  # fmt: skip
    assert "Traceback" not in done.stdout.str()


def test_interpreted_kernels_are_void(kernels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is read where a kernel is decorated, so it is refused before."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    done = kernels.perf(ON_GPU)
    assert done.ret == 1
    done.stdout.fnmatch_lines(["VOID: TRITON_INTERPRET is set*remedy: unset TRITON_INTERPRET*"])
    assert "Traceback" not in done.stdout.str()


def test_kernels_are_for_gpus_alone(kernels: Any) -> None:
    """On another device they are skipped with the reason, and never measured."""
    done = kernels.perf("-rs")
    done.assert_outcomes(skipped=1)
    done.stdout.fnmatch_lines(["SKIPPED * kernels are compiled with --perf-device=cuda*"])
    listed = kernels.perf(ON_GPU, "--perf-list", "--perf-scale=full")
    listed.stdout.fnmatch_lines(["hydragen-kernels-codellama_7b *", "1 workloads"])
