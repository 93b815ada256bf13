"""--perf-calibrate: sessions of equal code, what they show, and what verdicts make of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

FEW = ("--perf-calibrate", "--perf-sessions=5", "--perf-save")


@pytest.fixture(autouse=True)
def _from_calibrations(project: Any) -> None:
    """What is known of sessions comes from calibrations alone."""
    project.quick = tuple(word for word in project.quick if not word.startswith("--perf-drift"))


def calibration(project: Any) -> dict[str, Any]:
    (file,) = (project.path / "baselines").glob("*.calibration.json")
    return json.loads(file.read_text())


def test_sessions_are_measured_written_and_told(two_tests: Any) -> None:
    """The spread of each figure stands in a file beside the baselines, and in the table."""
    result = two_tests.perf(*FEW)

    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "perf: calibration: session 5 of 5*",
            "calibration: 5 sessions, written to baselines/*.calibration.json",
            "*suggested*probe*",
            "*time/call*",
            "false alarms expected in a run of this suite: at most 0.01*",
        ]
    )
    figures = calibration(two_tests)["figures"]
    assert {place.partition(": ")[2] for place in figures} == set(two_tests.baselines)
    spread = next(iter(figures.values()))["call_time/per_call"]
    assert (spread["sessions"], spread["processes"]) == (5, 2)
    assert spread["own"] > 0
    stored = two_tests.baselines["test_one | measured"]["figures"]["call_time/per_call"]
    assert stored["sessions"] == [2, 2, 2, 2, 2]


def test_a_calibrated_gate_finds_a_loss_and_passes_what_is_equal(two_tests: Any) -> None:
    """Sessions are known, so a loss is WORSE and not only beyond what any session may explain."""
    two_tests.perf(*FEW)
    two_tests.slow_down("one")
    result = two_tests.perf()

    assert result.ret == 1
    assert two_tests.verdicts["test_one"] == "WORSE"
    assert two_tests.verdicts["test_two"] != "WORSE"


def test_a_broken_calibration_is_an_error_that_names_it(two_tests: Any) -> None:
    """The file stays as it is."""
    two_tests.perf(*FEW, "-k", "one")
    (file,) = (two_tests.path / "baselines").glob("*.calibration.json")
    file.write_text("{")
    result = two_tests.perf("-k", "one")

    assert result.ret == 1
    result.stdout.fnmatch_lines(["*.calibration.json: cannot read this calibration: *"])
    assert file.read_text() == "{"


@pytest.mark.parametrize(
    "options",
    [
        ("--perf-calibrate", "--perf-against=HEAD"),
        ("--perf-calibrate", "--perf-self-test=5%"),
        ("--perf-calibrate", "--perf-in-process"),
        ("--perf-sessions=3",),
    ],
)
def test_contradictions_are_refused(two_tests: Any, options: tuple[str, ...]) -> None:
    """Before anything is measured."""
    result = two_tests.pytest("--perf", *options)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
