"""Saving baselines: what is accepted, and what a later run says of it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any


def test_a_planted_loss_from_saving_to_accepting(two_tests: Any) -> None:
    """Save, green, hundredfold slower: exactly that test is red until its figures are accepted."""
    project = two_tests
    saved = project.perf("--perf-save")
    assert saved.ret == 0
    saved.stdout.fnmatch_lines(["saved 2 tests to baselines/*/test_it.json"])
    assert project.verdicts == {"test_one": "NEW", "test_two": "NEW"}

    assert project.perf().ret == 0
    assert project.verdicts["test_one"] in ("SAME", "UNSURE", "BETTER")

    project.slow_down("one")
    assert project.perf().ret == 1
    assert project.verdicts["test_one"] == "WORSE"
    assert project.verdicts["test_two"] != "WORSE"

    accepted = project.perf("--perf-save")
    assert accepted.ret == 0
    accepted.stdout.fnmatch_lines(["saved 2 tests to *"])
    assert project.perf().ret == 0
    assert project.verdicts["test_one"] in ("SAME", "UNSURE", "BETTER")


def test_save_new_writes_what_is_missing_and_accepts_nothing(two_tests: Any) -> None:
    """--perf-save-new leaves a worse figure red and its baseline as it was."""
    project = two_tests
    assert project.perf("--perf-save", "test_it.py::test_one").ret == 0
    before = project.baselines["test_one | measured"]
    project.slow_down("one")

    assert project.perf("--perf-save-new").ret == 1

    assert project.verdicts == {"test_one": "WORSE", "test_two": "NEW"}
    assert project.baselines["test_one | measured"] == before
    assert "test_two | measured" in project.baselines


def test_a_disturbed_run_is_saved_by_force_only(two_tests: Any) -> None:
    """What other processes disturbed is named and not saved without --perf-save-force."""
    project = two_tests
    project.conftest("perfsuite.environment.OTHERS_LIMIT = -1.0\n")

    kept = project.perf("--perf-save", "--perf-budget=1")  # too short a span says nothing
    assert kept.ret == 1  # what was asked for did not happen
    kept.stdout.fnmatch_lines(["*not saved: test_one*disturbed: other processes used *"])
    assert project.baselines == {}

    assert project.perf("--perf-save-force").ret == 0
    assert set(project.baselines) == {"test_one | measured", "test_two | measured"}


def test_what_failed_is_never_saved(project: Any) -> None:
    """A test without a measurement fails also while saving and leaves no entry."""
    project.write(
        "test_it.py",
        """
import pytest
from spinning import spin

def test_good(perf):
    perf(lambda: spin("good"))

def test_raises(perf):
    perf(lambda: spin("raises"))
    raise RuntimeError("planted")

def test_never_measures(perf):
    pass
""",
    )

    assert project.perf("--perf-save").ret == 1

    assert set(project.baselines) == {"test_good | measured"}
    assert project.verdicts == {
        "test_good": "NEW",
        "test_raises": "VOID",
        "test_never_measures": "VOID",
    }


def test_two_runs_that_save_at_once_are_both_kept(project: Any) -> None:
    """Two processes that save into one file at the same time lose nothing of each other."""
    project.write(
        "test_it.py",
        """
import pytest
from spinning import spin

@pytest.mark.parametrize("n", range(4))
def test_even(perf, n):
    perf(lambda: spin("even"))

@pytest.mark.parametrize("n", range(4))
def test_odd(perf, n):
    perf(lambda: spin("odd"))
""",
    )
    command = [sys.executable, "-m", "pytest", *project.quick, "--perf-save", "-k"]
    runs = [
        subprocess.Popen([*command, word], cwd=project.path, stdout=subprocess.PIPE)
        for word in ("even", "odd")
    ]
    for run in runs:
        output, _ = run.communicate(timeout=120)
        assert run.returncode == 0, output.decode()

    wanted = {f"test_{word}[{n}] | measured" for word in ("even", "odd") for n in range(4)}
    assert set(project.baselines) == wanted


def test_a_broken_baseline_file_is_named_and_left(two_tests: Any) -> None:
    """A baseline that can't be read fails its tests with file, line and remedy, and stays."""
    project = two_tests
    assert project.perf("--perf-save", "--perf-processes=1").ret == 0
    (file,) = (project.path / "baselines").glob("*/*.json")
    file.write_text(broken := file.read_text().replace('"figures": {', '"figures": [', 1))

    result = project.perf("--perf-save", "--perf-processes=1")

    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [f"*{file.name}, line *: cannot read this baseline:*", "It stays as it is.*"]
    )
    result.stdout.no_fnmatch_line("*INTERNALERROR*")
    assert file.read_text() == broken


def test_a_second_folder_is_read_and_the_first_is_written(two_tests: Any) -> None:
    """Of several --perf-baselines the first that has a figure decides, new ones go to the first."""
    project = two_tests
    quick = ("--perf-processes=1", "--import-mode=importlib")
    folders = ("--perf-baselines=own", "--perf-baselines=common")
    project.perf("--perf-save", "--perf-baselines=common", "test_it.py::test_one", *quick)
    # Another file's test of the same name is another test.
    project.write("more/test_it.py", "def test_one(perf):\n    perf(lambda: None)\n")

    assert project.perf("--perf-save-new", *folders, *quick).ret == 0

    own = {file.name: file.read_text() for file in (project.path / "own").glob("*/*.json")}
    assert set(own) == {"test_it.json", "more.test_it.json"}
    assert '"test_one | measured"' not in own["test_it.json"]
    assert '"test_one | measured"' in own["more.test_it.json"]
