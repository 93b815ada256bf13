"""--perf-against: head and another tree measured in turn, from the command line."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

TWO_SUBJECTS = """
import subject

def test_one(perf):
    perf(subject.one)

def test_two(perf):
    perf(subject.two)
"""
SUBJECT = """
from spinning import spin

def one():
    spin("one")

def two():
    spin("two")
"""


def git(folder: Path, *words: str) -> str:
    names = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    done = subprocess.run(
        ["git", *names, *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture
def repository(project: Any) -> Any:
    """A committed project of two subjects, each with its test."""
    project.write("subject.py", SUBJECT)
    project.write("test_it.py", TWO_SUBJECTS)
    project.write(".gitignore", "locks/\nout.json\n__pycache__/\n.pytest_cache/\n")
    git(project.path, "init", "-q", "-b", "main")
    git(project.path, "add", "-A")
    git(project.path, "commit", "-qm", "base")
    return project


def against(project: Any, base: str, *more: str) -> pytest.RunResult:
    return project.perf(f"--perf-against={base}", "--perf-processes=4", "--perf-budget=1", *more)


def test_a_slowdown_since_a_revision_is_found_where_it_is(repository: Any) -> None:
    """Only the slowed test is red, with the base's name; nothing of the worktree stays."""
    repository.slow_down("one")
    result = against(repository, "main")

    assert result.ret == 1
    assert repository.verdicts["test_one"] == "WORSE"
    assert repository.verdicts["test_two"] != "WORSE"
    result.stdout.fnmatch_lines(["perf: working tree (*+changes) against main (*)"])
    result.stdout.fnmatch_lines(["baseline * ms, main (*)", "to repeat: *--perf-against=main *"])
    row = repository.results["test_one"]["rows"][0]
    assert row["ratio"] > 6
    assert row["baseline_file"].startswith("main (")
    assert repository.results["test_one"]["facts"]["by_turns"] is True
    assert git(repository.path, "worktree", "list").count("\n") == 1


def test_an_unchanged_tree_is_green_and_stores_nothing(repository: Any) -> None:
    """Equal code passes; no baseline is read or written."""
    result = against(repository, "main")

    assert result.ret == 0
    assert "WORSE" not in repository.verdicts.values()
    assert not (repository.path / "baselines").exists()


def test_a_directory_with_another_checkout_is_a_base(repository: Any) -> None:
    """What was faster there is a loss here."""
    other = repository.path.parent / f"{repository.path.name}-other"
    git(repository.path, "clone", "-q", str(repository.path), str(other))
    repository.slow_down("two")
    result = against(repository, str(other))

    assert result.ret == 1
    assert repository.verdicts["test_two"] == "WORSE"


def test_a_test_that_base_can_not_collect_is_named(repository: Any) -> None:
    """Tests come from head on both sides; what they import may not be there in base."""
    repository.write("added.py", "def new():\n    pass\n")
    repository.write(
        "test_new.py", "import added\n\ndef test_new(perf):\n    perf(added.new)\n"
    )
    result = against(repository, "main")

    assert result.ret == 0
    assert repository.verdicts["test_new"] == "NEW"
    assert "only here: " in repository.results["test_new"]["rows"][0]["note"]


def test_a_base_that_fails_gives_no_figure(repository: Any) -> None:
    """Base raised: VOID, and whose error it was."""
    repository.write("subject.py", "def one():\n    raise ValueError('old bug')\ntwo = one\n")
    git(repository.path, "commit", "-qam", "broken")
    repository.write("subject.py", SUBJECT)
    result = against(repository, "main")

    assert result.ret == 1
    assert set(repository.verdicts.values()) == {"VOID"}
    result.stdout.fnmatch_lines(["VOID: base, main (*: the test failed: *old bug*"])


def test_a_base_that_hangs_is_ended(repository: Any) -> None:
    """The test fails with words, in the time that --perf-timeout gives."""
    repository.write("subject.py", "import time\n\ndef one():\n    time.sleep(600)\ntwo = one\n")
    git(repository.path, "commit", "-qam", "hangs")
    repository.write("subject.py", SUBJECT)
    result = against(repository, "main", "--perf-timeout=8", "-k", "one")

    assert result.ret == 1
    result.stdout.fnmatch_lines(["VOID: base, main (*said nothing for 8 s*"])


def test_the_projects_modules_from_elsewhere_are_refused(repository: Any) -> None:
    """A subject that every process imports from one installed copy would equal itself."""
    copy = repository.path.parent / f"{repository.path.name}-installed"
    copy.mkdir()
    (copy / "subject.py").write_text((repository.path / "subject.py").read_text())
    repository.conftest(f"import sys\nsys.path.insert(0, {str(copy)!r})\nimport subject\n")
    git(repository.path, "commit", "-qam", "with a copy in front")
    result = against(repository, "main", "-k", "one")

    assert result.ret == 1
    result.stdout.fnmatch_lines(["VOID: *subject was loaded from *-installed*"])


def test_a_planted_slowdown_is_seen_in_head_alone(repository: Any) -> None:
    """--perf-self-test slows head: its gate turns red, so the self-test passes."""
    repository.seconds(one=0.02, two=0.02)
    git(repository.path, "commit", "-qam", "long enough to be slowed")
    sharp = ("--perf-self-test=900%", "--perf-limit=time:20%")
    result = against(repository, "main", *sharp)

    assert result.ret == 0
    assert repository.verdicts == {"test_one": "WORSE", "test_two": "WORSE"}
    result.stdout.fnmatch_lines(["self-test: 900% slower: 2 of 2 tests turned red as they should"])


def test_what_can_not_be_compared_is_refused(repository: Any) -> None:
    """Unknown revisions, saving, and several processes of pytest-xdist."""
    refused = {
        "--perf-against=nowhere": "*unknown revision*",
        "--perf-against= ": "*expected a git revision*",
        "--perf-against=.": "*is the working tree itself*",
    }
    for option, words in refused.items():
        result = repository.pytest("--perf", "--perf-device=cpu", option)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([words])
    result = repository.pytest("--perf", "--perf-against=main", "--perf-save")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--perf-against and --perf-save contradict each other*"])


def test_without_git_there_is_no_revision(project: Any) -> None:
    """A folder in no repository: said, with what was tried."""
    project.write("subject.py", SUBJECT)
    project.write("test_it.py", TWO_SUBJECTS)
    result = project.pytest("--perf", "--perf-device=cpu", "--perf-against=main")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*is in no git work tree*"])
