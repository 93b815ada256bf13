"""Engines and tests that raise, hang, crash or cheat: each fails alone, with its reason."""

from __future__ import annotations

from typing import Any

_BAD_ENGINES = """
import pytest
from fake import Engine, Offer, Step


class Short(Engine):
    def decode(self, step):
        return Step(len(step.tokens) - 1)


class Shape:
    shape = (1, 1)


class Square(Engine):
    def decode(self, step):
        next_step = Step(1)
        next_step.tokens = Shape()
        return next_step


class NaN(Engine):
    def decode(self, step):
        next_step = Step(1)
        next_step.logits = lambda: [[float("nan")] * 256]  # its smoke vocabulary
        return next_step


class Wide(NaN):
    def decode(self, step):
        next_step = Step(1)
        next_step.logits = lambda: [[0.0] * 256] * 2
        return next_step


class Raises(Engine):
    steps = 0

    def decode(self, step):
        self.steps += 1
        if self.steps > 40:  # not in the warm-up, but while a block is measured
            raise ArithmeticError("planted in decode")
        return Step(1)


class Moody(Engine):
    def __init__(self):
        import os
        self.config = {"process": os.getpid()}


class Unopened(Offer):
    def open(self, workload, device):
        raise RuntimeError("planted in open")


class Unclosed(Engine):
    def close(self):
        raise RuntimeError("planted in close")


class Refuses(Offer):
    def refuses(self, workload, device):
        return "needs a moon"


@pytest.hookimpl(optionalhook=True)
def pytest_perf_engines(config):
    return [
        Offer("short", engine=Short), Offer("square", engine=Square), Offer("nan", engine=NaN),
        Offer("wide", engine=Wide), Offer("raises", engine=Raises), Offer("moody", engine=Moody),
        Unopened("unopened"), Offer("unclosed", engine=Unclosed), Refuses("refuses"),
        Offer("wrong", verify=lambda engine, workload: "logits 3.2 apart, 0.1 allowed"),
        Offer("right", verify=lambda engine, workload: None),
    ]
"""

_REASONS = {
    "short": "the engine returned 1 tokens, 16 were asked for",
    "square": "step.tokens has shape (1, 1), expected [batch]",
    "nan": "logits contain NaN or infinity",
    "wide": "logits of 2 sequences, expected 1",
    "raises": "ArithmeticError: planted in decode",
    "moody": "the engine's effective configuration differs between processes",
    "unopened": "RuntimeError: planted in open",
    "unclosed": "RuntimeError: planted in close",
    "wrong": "wrong outputs: logits 3.2 apart, 0.1 allowed",
}


def test_every_engine_that_breaks_the_contract_is_void(engine_test: Any) -> None:
    """What came back wrong is named and not saved; the engine after it is measured."""
    engine_test.conftest(_BAD_ENGINES)
    engine_test.seconds(prefill=0.001, decode=0.0005)

    result = engine_test.perf("--perf-save")

    assert result.ret == 1
    results = {r["engine"]: r["rows"][0] for r in engine_test.report["results"]}
    reasons = {engine: row["note"] for engine, row in results.items() if row["verdict"] == "VOID"}
    assert set(reasons) == set(_REASONS)
    for engine, reason in _REASONS.items():
        assert reason in reasons[engine]
    assert results["right"]["verdict"] == "NEW"
    assert "refuses" not in results
    (saved,) = engine_test.baselines
    assert "| right |" in saved


def test_processes_that_die_fail_their_test_alone(project: Any) -> None:
    """A crash and a kill are named; the test after each is measured in a new worker."""
    project.write(
        "test_it.py",
        """
import ctypes
import os
import signal
from spinning import spin

def crash():
    ctypes.string_at(0)

def test_crash(perf):
    perf(crash)

def test_after_crash(perf):
    perf(lambda: spin("one"))

def test_killed(perf):
    perf(lambda: os.kill(os.getpid(), signal.SIGKILL))

def test_exits(perf):
    perf(lambda: os._exit(7))

def test_after_all(perf):
    perf(lambda: spin("one"))
""",
    )

    result = project.perf("--perf-save")

    assert result.ret == 1
    result.assert_outcomes(failed=3, passed=2)
    notes = {name: r["rows"][0]["note"] for name, r in project.results.items()}
    assert "was killed by SIGSEGV while" in notes["test_crash"]
    assert "was killed by SIGKILL (out of memory, most likely) while" in notes["test_killed"]
    assert "ended with exit status 7 while" in notes["test_exits"]
    assert set(project.baselines) == {"test_after_crash | measured", "test_after_all | measured"}


def test_a_hang_is_ended_and_the_next_test_is_measured(project: Any) -> None:
    """A worker that says nothing for --perf-timeout is ended; its test fails with the remedy."""
    project.write(
        "test_it.py",
        """
from spinning import spin

def test_hangs(perf):
    perf(lambda: spin("forever"))

def test_next(perf):
    perf(lambda: spin("one"))
""",
    )
    project.seconds(forever=1000)

    result = project.perf("--perf-timeout=2", "--perf-save")

    assert result.ret == 1
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(
        [
            "VOID: the worker said nothing for 2 s while running the test and was ended",
            "a slow engine needs a larger --perf-timeout; *",
        ]
    )
    assert set(project.baselines) == {"test_next | measured"}


def test_clocks_that_lie_give_no_figure(project: Any) -> None:
    """A time of zero or below is no measurement, whatever made it so."""
    project.write(
        "test_it.py",
        """
import itertools
import time

def test_stands(perf, monkeypatch):
    monkeypatch.setattr(time, "perf_counter", lambda: 1.0)
    perf(lambda: None)

def test_runs_backwards(perf, monkeypatch):
    ticks = itertools.count(0, -1)
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
    perf(lambda: None)
""",
    )

    result = project.perf("--perf-processes=1", "--perf-save")

    assert result.ret == 1
    assert project.verdicts == {"test_stands": "VOID", "test_runs_backwards": "VOID"}
    assert "the clock stood still" in project.results["test_stands"]["rows"][0]["note"]
    assert project.baselines == {}


def test_wrong_calls_of_perf_name_the_remedy(project: Any) -> None:
    """Two calls without names, no call at all, and something that can't be called."""
    project.write(
        "test_it.py",
        """
import pytest

def test_twice(perf):
    perf(lambda: None)
    perf(lambda: None)

def test_named(perf):
    perf(lambda: None)
    perf(lambda: None, name="second")

def test_never(perf):
    pass

@pytest.mark.perf
def test_marked_only():
    pass

def test_not_callable(perf):
    perf(42)

def test_no_tokens(perf):
    perf(lambda: None, tokens=0)
""",
    )

    result = project.perf("--perf-processes=1", "--perf-save")

    assert result.ret == 1
    notes = {name: r["rows"][0]["note"] for name, r in project.results.items()}
    assert (
        "called twice with name='' in one test; give each call its own name" in notes["test_twice"]
    )
    assert notes["test_never"] == notes["test_marked_only"]
    assert notes["test_never"].endswith("it never called perf(...)")
    assert "perf(int): expected a callable" in notes["test_not_callable"]
    assert "tokens=0: expected a count above zero" in notes["test_no_tokens"]
    figures = project.baselines["test_named | measured"]["figures"]
    assert {"call_time/per_call", "call_time/per_call@second"} <= set(figures)


def test_what_a_worker_can_not_collect_is_told(project: Any) -> None:
    """A test that exists in the pytest process alone is lost with a word, not silently."""
    project.write(
        "test_it.py",
        """
import sys
from spinning import spin

if "perfsuite.worker" not in sys.orig_argv:
    def test_here_only(perf):
        perf(lambda: spin("one"))

def test_everywhere(perf):
    perf(lambda: spin("one"))
""",
    )

    result = project.perf("--perf-processes=1")

    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "VOID: the worker collected 1 tests, test_it.py::test_here_only not among them",
            "tests must be collected equally in every process",
        ]
    )
    assert project.verdicts["test_everywhere"] == "NEW"
