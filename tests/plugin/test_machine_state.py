"""What the machine was like stands beside every result, and a bad one makes no figure."""

from __future__ import annotations

from typing import Any

# The kernel's count of the seconds that the machine was suspended, which grows with each look.
SUSPENDED = """
import itertools
import perfsuite.machine_state
perfsuite.machine_state.asleep_s = itertools.count(0, 60).__next__
"""


def test_a_result_holds_the_state_of_both_ends(two_tests: Any) -> None:
    """Load, frequency and temperature at the start and the end, and what was taken meanwhile."""
    project = two_tests
    project.perf()
    state = project.results["test_one"]["machine_state"]
    readings = {"load_average", "cpu_mhz_lowest", "cpu_mhz_highest", "temperatures_c",
                "cpu_throttles"}  # fmt: skip
    assert set(state["start"]) == set(state["end"]) == readings
    assert set(state["meanwhile"]) == {"seconds", "others_share", "steal_share", "suspended_s"}
    assert state["meanwhile"]["seconds"] > 0


def test_the_probes_are_shown_and_not_judged(two_tests: Any) -> None:
    """Beside the blocks of a callable: interpreting and copying."""
    project = two_tests
    project.perf()
    shown = [row for row in project.results["test_one"]["rows"] if row["verdict"] == "SHOWN"]
    probes = {row["figure"]: row["value"] for row in shown if "machine_pace" in row["figure"]}
    assert set(probes) == {"machine_pace/interpreter_loop", "machine_pace/memory_copy"}
    assert all(value > 0 for value in probes.values())


def test_a_suspended_machine_says_so_and_is_not_saved(two_tests: Any) -> None:
    """Without --perf-save-force; a clock that counts the sleep tells."""
    project = two_tests
    project.conftest(SUSPENDED)

    refused = project.perf("--perf-save")
    assert refused.ret == 1
    refused.stdout.fnmatch_lines(["*not saved: test_one*the machine was suspended for 60.0 s*"])
    assert project.baselines == {}

    assert project.perf("--perf-save-force").ret == 0
    assert set(project.baselines) == {"test_one | measured", "test_two | measured"}


def test_after_a_suspension_nothing_is_worse(two_tests: Any) -> None:
    """What ran before it and after it was another machine: a hundredfold loss is UNSURE."""
    project = two_tests
    assert project.perf("--perf-save").ret == 0
    project.conftest(SUSPENDED)
    project.slow_down("one")
    project.perf()
    assert project.verdicts["test_one"] == "UNSURE"


def test_a_clock_that_goes_backwards_makes_no_figure(project: Any) -> None:
    """VOID, with what the clock did."""
    project.write(
        "test_it.py",
        """
import time

forward = time.perf_counter

def test_one(perf, monkeypatch):
    monkeypatch.setattr(time, "perf_counter", lambda: -forward())
    perf(lambda: None)
""",
    )
    run = project.perf("--perf-save")
    assert run.ret == 1
    assert project.verdicts == {"test_one": "VOID"}
    run.stdout.fnmatch_lines(["*the clock went back by * during timed work*"])
    assert project.baselines == {}
