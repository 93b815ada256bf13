"""--perf-timeout, and living beside plugins that repeat tests or end them."""

from __future__ import annotations

from typing import Any

import pytest


def test_the_marker_sets_a_timeout_of_its_own(project: Any) -> None:
    """A marker's timeout ends its own test; silence in set-up counts like silence in a call."""
    project.write(
        "test_it.py",
        """
import pytest
from spinning import spin

@pytest.fixture
def slow_weights():
    spin("forever")

@pytest.mark.perf(timeout=1.5)
def test_loads_forever(perf, slow_weights):
    perf(lambda: spin("one"))

def test_next(perf):
    perf(lambda: spin("one"))
""",
    )
    project.seconds(forever=1000)

    result = project.perf("--perf-save")

    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["VOID: the worker said nothing for 1.5 s while running the test *"]
    )
    assert set(project.baselines) == {"test_next | measured"}


def test_a_rerun_keeps_the_first_verdict(two_tests: Any) -> None:
    """pytest-rerunfailures can repeat a red test, and it stays red without a second measurement."""
    pytest.importorskip("pytest_rerunfailures")
    assert two_tests.perf("--perf-save", "--reruns=2").ret == 0
    two_tests.write(
        "test_it.py",
        """
from pathlib import Path
from spinning import SECONDS, spin

FIRST = not Path(__file__).with_name("ran").exists()

def test_one(perf):
    # Slow until it is measured once more than in the two processes of the gate's own look.
    with Path(__file__).with_name("ran").open("a") as file:
        print("measured", file=file)
    times = len(Path(__file__).with_name("ran").read_text().splitlines())
    perf(lambda: spin("slow" if times <= 2 else "one"))

def test_two(perf):
    perf(lambda: spin("two"))
""",
    )
    two_tests.slow_down("slow")

    result = two_tests.perf("--reruns=2")

    assert result.ret == 1
    assert result.parseoutcomes()["failed"] == 1
    assert result.parseoutcomes()["rerun"] == 2
    assert two_tests.verdicts["test_one"] == "WORSE"
    assert len((two_tests.path / "ran").read_text().splitlines()) == 2


def test_the_timeout_of_another_plugin_is_a_failure(project: Any) -> None:
    """pytest-timeout ends a test in the middle of a measurement; the next one is measured."""
    pytest.importorskip("pytest_timeout")
    project.write(
        "test_it.py",
        """
import pytest
from spinning import spin

@pytest.mark.timeout(3)
def test_hangs(perf):
    perf(lambda: spin("forever"))

def test_next(perf):
    perf(lambda: spin("one"))
""",
    )
    project.seconds(forever=1000)

    result = project.perf("--perf-save")

    assert result.ret == 1
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["*Timeout*3*"])
    assert set(project.baselines) == {"test_next | measured"}
