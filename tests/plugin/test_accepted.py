"""Baselines over many saves: their history, what drifted, and what got better and was not kept."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

FIGURE = "call_time/per_call"


@pytest.fixture
def one_test(project: Any) -> Any:
    """A project with one test, under git."""
    project.write(
        "test_it.py",
        """
from spinning import spin

def test_one(perf):
    perf(lambda: spin("one"))
""",
    )
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    for words in (("init", "-q"), ("add", "test_it.py"), (*who, "commit", "-q", "-m", "first")):
        subprocess.run(["git", *words], cwd=project.path, check=True)
    return project


def test_small_losses_that_add_up_are_told(one_test: Any) -> None:
    """Two sixfold steps, each within a limit of tenfold, are thirty times the best."""
    project = one_test
    limit = "--perf-limit=call_time:900%"
    for seconds in (0.002, 0.012, 0.06):
        project.seconds(one=seconds)
        saved = project.perf("--perf-save", limit)
        assert saved.ret == 0

    entry = project.baselines["test_one | measured"]
    levels = [save["figures"][FIGURE] for save in entry["history"]]
    assert levels == sorted(levels)
    assert len(levels) == 3
    assert entry["best"][FIGURE]["value"] == levels[0]
    assert {save["commit"] for save in entry["history"]} == {entry["commit"]}
    assert entry["commit"]

    told = f"drifted: test_one time/call is * times its best (* ms, *, commit {entry['commit']}): *"
    saved.stdout.fnmatch_lines([told])
    again = project.perf(limit)
    assert again.ret == 0
    again.stdout.fnmatch_lines([told])
    row = project.results["test_one"]["rows"][0]
    assert row["drift"] > 10
    assert row["best"] == levels[0]
    assert row["best_commit"] == entry["commit"]


def test_what_got_better_asks_to_be_saved(one_test: Any) -> None:
    """Until it was; then a later loss of it is seen."""
    project = one_test
    asks = "1 figure is BETTER beyond its limit: accept it with --perf-save, *"
    project.slow_down("one")
    project.perf("--perf-save").stdout.no_fnmatch_line("*BETTER*")
    project.seconds()

    result = project.perf("--perf-limit=call_time:100%")
    assert result.ret == 0
    result.stdout.fnmatch_lines([asks, "  test_one time/call"])

    project.perf("--perf-save").stdout.no_fnmatch_line(asks)
    project.slow_down("one")
    assert project.perf().ret == 1
    assert project.verdicts == {"test_one": "WORSE"}


def test_a_file_of_before_there_was_a_history_still_gates(one_test: Any) -> None:
    """It is read as before; a history that can not be read names file and line."""
    project = one_test
    assert project.perf("--perf-save").ret == 0
    (file,) = (project.path / "baselines").glob("*/*.json")
    document = json.loads(file.read_text())
    entry = document["entries"]["test_one | measured"]
    history = entry.pop("history"), entry.pop("best")
    file.write_text(json.dumps(document))
    project.slow_down("one")
    assert project.perf().ret == 1
    assert project.verdicts == {"test_one": "WORSE"}

    entry["history"] = {"not": history}
    file.write_text(json.dumps(document, indent=1))
    broken = project.perf()
    assert broken.ret == 1
    broken.stdout.fnmatch_lines([f"*{file.name}, line *: cannot read this baseline: *history*"])
