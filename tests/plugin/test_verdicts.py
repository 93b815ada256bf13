"""What a red test says and does: the message, -x, --lf, JUnit, strictness, and skips."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import pytest


@pytest.fixture
def slowed(two_tests: Any) -> Any:
    """Two tests with baselines, the first of which has become a hundred times slower."""
    assert two_tests.perf("--perf-save").ret == 0
    two_tests.slow_down("one")
    return two_tests


def test_the_message_of_a_loss_says_all_that_is_needed(slowed: Any) -> None:
    """At most six lines: measured, baseline, ratio and limit, and the command that accepts it."""
    plain = slowed.perf("test_it.py::test_one")
    plain.stdout.fnmatch_lines(
        ["to accept: pytest --perf --perf-device=cpu --perf-save test_it.py::test_one"]
    )

    # sessions that differ so much that noise reaches beyond the limit, and not to the loss
    result = slowed.perf("--perf-baselines=baselines", "--perf-drift=70%")

    lines = result.outlines
    start = next(i for i, line in enumerate(lines) if line.startswith("WORSE: "))
    end = next(i for i, line in enumerate(lines) if line.startswith("to accept: "))
    assert end - start < 6
    result.stdout.re_match_lines(
        [
            r"WORSE: time/call \d.* ms \[\d.* ms, \d.* ms\], \d+ samples in \d+ processes",
            r"baseline \d.* ms, \d{4}-\d\d-\d\d, .*baselines/cpu-.*/test_it\.json",
            r"ratio \d+\.\d+ \[\d+\.\d+, \d+\.\d+\], limit 6\.000,"
            r" noise reaches \d+\.\d+ \(above 1 is worse\)",
            r"to accept: pytest --perf --perf-device=cpu --perf-baselines=baselines .*one",
        ]
    )

    command = lines[end].removeprefix("to accept: pytest ").split()
    assert slowed.pytest(*command, "--perf-budget=0.2", "--perf-processes=1").ret == 0
    assert (
        max(slowed.baselines["test_one | measured"]["figures"]["call_time/per_call"]["processes"])
        > 0.03
    )


def test_other_tools_see_a_loss(slowed: Any) -> None:
    """JUnit counts it with its properties, -x stops at it, --lf runs it alone."""
    result = slowed.perf("-x", "--junitxml=junit.xml")
    assert result.ret == 1
    result.assert_outcomes(failed=1)
    (suite,) = ET.parse(slowed.path / "junit.xml").getroot()
    assert (suite.get("failures"), suite.get("errors")) == ("1", "0")
    properties = {p.get("name"): p.get("value") for p in suite.iter("property")}
    assert properties["perf call_time/per_call verdict"] == "WORSE"
    assert float(properties["perf call_time/per_call"]) > 0.03
    assert "ratio " in suite.find("./testcase/failure").text

    again = slowed.perf("--lf")
    again.assert_outcomes(failed=1)
    assert slowed.verdicts == {"test_one": "WORSE"}

    both = slowed.perf("-n", "2", "--junitxml=junit.xml")
    assert both.ret == 1
    both.assert_outcomes(passed=1, failed=1)
    assert slowed.verdicts["test_one"] == "WORSE"
    assert slowed.verdicts["test_two"] != "WORSE"
    (suite,) = ET.parse(slowed.path / "junit.xml").getroot()
    assert suite.get("failures") == "1"


def test_a_run_that_compared_nothing_fails(two_tests: Any) -> None:
    """Without any baseline exit 1 with the remedy; without any test pytest's own exit 5."""
    first = two_tests.perf("--perf-processes=1")
    assert first.ret == 1
    first.stdout.fnmatch_lines(["nothing was compared: *record one with --perf-save"])
    first.assert_outcomes(passed=2)

    none = two_tests.perf("-k", "no_such_test", "--perf-save")
    assert none.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    none.stdout.fnmatch_lines(["nothing was saved: no test was selected"])


def test_strict_fails_what_is_new_and_what_is_gone(two_tests: Any) -> None:
    """A renamed test is NEW and GONE: shown, and an exit 1 under --perf-strict only."""
    project = two_tests
    assert project.perf("--perf-save").ret == 0
    test = project.path / "test_it.py"
    test.write_text(test.read_text().replace("test_two", "test_renamed"))

    shown = project.perf()
    assert shown.ret == 0
    assert project.verdicts["test_renamed"] == "NEW"
    shown.stdout.fnmatch_lines(["GONE: test_two | measured (*test_it.json) has no test any more"])
    assert [entry["key"] for entry in project.report["gone"]] == ["test_two | measured"]

    strict = project.perf("--perf-strict")
    assert strict.ret == 1
    strict.stdout.fnmatch_lines(
        ["NEW: time/call *", "baselines without a test fail under --perf-strict"]
    )

    only_gone = project.perf("--perf-strict", "--deselect=test_it.py::test_renamed")
    only_gone.stdout.no_fnmatch_line("*GONE*")


def test_a_skip_stays_a_skip(two_tests: Any) -> None:
    """A test that skips itself, before or after measuring, is neither red nor measured."""
    project = two_tests
    project.write(
        "test_skips.py",
        """
import pytest
from spinning import spin

def test_before(perf):
    pytest.skip("no weights here")
    perf(lambda: spin("before"))

def test_after(perf):
    perf(lambda: spin("after"))
    pytest.skip("no use")

@pytest.mark.skip(reason="not today")
def test_marked(perf):
    perf(lambda: spin("marked"))
""",
    )

    result = project.perf("--perf-save", "-rs")

    assert result.ret == 0
    result.assert_outcomes(passed=2, skipped=3)
    result.stdout.fnmatch_lines_random(["*no weights here", "*no use", "*not today"])
    assert set(project.baselines) == {"test_one | measured", "test_two | measured"}


def test_output_of_a_failing_test_is_shown(project: Any) -> None:
    """What a test printed in its worker stands beside its failure."""
    project.write(
        "test_it.py",
        """
def test_prints(perf):
    print("said in the worker")
    perf(lambda: None)
    assert False, "planted"
""",
    )

    result = project.perf("--perf-processes=1")

    assert result.ret == 1
    result.stdout.fnmatch_lines(["*planted*", "*said in the worker*"])


def test_a_loss_within_a_limit_of_its_own_passes(slowed: Any) -> None:
    """An absolute limit lets a large ratio pass as long as little time was lost."""
    assert slowed.perf("--perf-limit=call_time:500%+1s").ret == 0
    assert slowed.verdicts["test_one"] == "SAME"
