"""Under pytest-xdist measured tests take turns and ordinary ones run beside each other."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import pytest

pytest.importorskip("xdist")

_STAMPING = """
import json
import os
import time
from pathlib import Path

import pytest

STAMPS = Path(__file__).parent / "stamps"


def stamped(name):
    def call():
        start = time.monotonic()
        while time.monotonic() < start + 0.02:
            pass
        with (STAMPS / f"{name}-{os.getpid()}").open("a") as file:
            print(json.dumps([name, start, time.monotonic()]), file=file)
    return call


@pytest.mark.parametrize("n", range(4))
def test_measured(perf, n):
    perf(stamped(f"measured-{n}"))


@pytest.mark.parametrize("n", range(4))
def test_ordinary(n):
    stamped(f"ordinary-{n}")()
"""


def test_measured_tests_take_turns(project: Any) -> None:
    """With -n 2 no call of one measured test overlaps one of another test, perf or ordinary."""
    project.write("test_it.py", _STAMPING)
    (project.path / "stamps").mkdir()

    result = project.perf("-n", "2", "--perf-save")

    assert result.ret == 0
    result.assert_outcomes(passed=8)
    spans = [json.loads(line) for file in (project.path / "stamps").iterdir()
             for line in file.read_text().splitlines()]  # fmt: skip
    assert len({name for name, _, _ in spans}) == 8
    for (name, start, end), (other, other_start, other_end) in combinations(spans, 2):
        both_ordinary = name.startswith("ordinary") and other.startswith("ordinary")
        if name != other and not both_ordinary:
            assert end <= other_start or other_end <= start, (name, other)
    assert len(project.baselines) == 4


@pytest.mark.parametrize("how", [["-n", "2", "--dist=loadgroup"], ["--dist=load", "--tx=2*popen"]])
def test_every_way_to_distribute(two_tests: Any, how: list[str]) -> None:
    """Workers don't distribute again, whatever option of pytest-xdist the command line has."""
    result = two_tests.perf(*how, "--perf-processes=1", "--perf-save", "-v")

    assert result.ret == 0
    result.assert_outcomes(passed=2)
    assert len(two_tests.baselines) == 2


def test_what_is_gone_is_found_under_xdist(two_tests: Any) -> None:
    """The controller hears of the keys from its processes."""
    one_process = "--perf-processes=1"
    assert two_tests.perf("--perf-save", one_process).ret == 0
    test = two_tests.path / "test_it.py"
    test.write_text(test.read_text().replace("test_two", "test_renamed"))

    result = two_tests.perf("-n", "2", one_process)

    result.stdout.fnmatch_lines(["GONE: test_two | measured *"])
    result.stdout.no_fnmatch_line("*GONE: test_one*")


def test_a_lost_process_of_xdist_is_a_failure(project: Any) -> None:
    """When an ordinary test kills its process of pytest-xdist, measured tests still report."""
    project.write(
        "test_it.py",
        """
import os
from spinning import spin

def test_one(perf):
    perf(lambda: spin("one"))

def test_kills():
    os._exit(9)

def test_two(perf):
    perf(lambda: spin("two"))
""",
    )

    result = project.perf("-n", "2", "--perf-processes=1", "--perf-save")

    assert result.ret == 1
    result.assert_outcomes(passed=2, failed=1)
    assert set(project.baselines) == {"test_one | measured", "test_two | measured"}
