"""The memory of a torch engine through the front door: its peak, what was alive, its loading."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs torch")

PEAK = "peak_memory/allocator"
LOAD = "load_memory/allocator"

# int8 cache of 2 heads, 4096 places and 16 numbers; what goes wrong is read from a file.
_CACHED = """
import json
from pathlib import Path
import pytest
import torch
from fake import Engine, Offer, Step
from spinning import spin

PLANTED = json.loads(Path(__file__).with_name("planted.json").read_text())


class Cached(Engine):
    def __init__(self):
        wide = torch.ones(512, 1024)
        self.weights = wide.to(torch.int8)
        if PLANTED.get("weights are loaded twice"):
            again = [wide.clone(), wide.clone()]
        self.cache = torch.zeros(1, 2, 4096, 16, dtype=torch.int8)

    def decode(self, step):
        spin("decode")
        if PLANTED.get("cache is widened whole"):
            self.cache.to(torch.float32).neg_()
        return Step(len(step.tokens))


class TorchOffer(Offer):
    framework = "torch"

    def open(self, workload, device):
        return Cached()


@pytest.hookimpl(optionalhook=True)
def pytest_perf_engines(config):
    return [TorchOffer("cached")]
"""


@pytest.fixture
def cached(engine_test: Any) -> Any:
    """A project with that engine, nothing planted, and its baseline."""
    engine_test.conftest(_CACHED)
    engine_test.seconds(prefill=0.001, decode=0.0005)
    engine_test.write("planted.json", "{}")
    assert engine_test.exact("--perf-save").ret == 0
    return engine_test


def plant(project: Any, fault: str) -> None:
    """From the next process on."""
    project.write("planted.json", json.dumps({fault: True}))


def test_a_temporary_of_the_size_of_the_cache_is_named(cached: Any) -> None:
    """Planted: 131 kB of int8 become 524 kB of float32 for a moment."""
    assert cached.exact().ret == 0
    before = cached.rows
    assert before[PEAK]["verdict"] == before[LOAD]["verdict"] == "SAME"
    assert before[PEAK]["value"] == 512 * 1024 + 2 * 4096 * 16
    assert not before[PEAK]["note"]

    plant(cached, "cache is widened whole")
    result = cached.exact()
    assert result.ret == 1
    after = cached.rows
    assert after[PEAK]["verdict"] == "WORSE"
    assert after[PEAK]["value"] - before[PEAK]["value"] == 4 * 2 * 4096 * 16
    result.stdout.fnmatch_lines(
        ["WORSE: peak memory *", "*alive at the peak: made aten::to 524.3 kB; held *"]
    )
    held = "held [512, 1024] int8 524.3 kB, [1, 2, 4096, 16] int8 131.1 kB"
    assert held in after[PEAK]["note"]
    assert after[LOAD]["verdict"] == "SAME"


def test_a_load_that_needs_more_than_the_run_is_a_figure_of_its_own(cached: Any) -> None:
    """Planted: weights are there three times while loading; the run takes what it took."""
    wide = 512 * 1024 * 4
    cached.exact()
    assert cached.rows[LOAD]["value"] == wide + wide // 4 + 2 * 4096 * 16

    plant(cached, "weights are loaded twice")
    result = cached.exact()
    assert result.ret == 1
    found = cached.rows
    assert found[LOAD]["verdict"] == "WORSE"
    assert found[LOAD]["value"] == 3 * wide + wide // 4 + 2 * 4096 * 16
    assert found[PEAK]["verdict"] == "SAME"
    result.stdout.fnmatch_lines(["WORSE: load peak *"])


def test_the_process_beside_the_tensors_is_shown(cached: Any) -> None:
    """Never judged: what else a process does while it loads is in it."""
    cached.exact()
    found = cached.rows
    assert found["load_memory/process_rise"]["verdict"] == "SHOWN"
    assert found["resident_memory/process_peak"]["verdict"] == "SHOWN"
