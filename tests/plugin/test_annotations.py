"""Failures as workflow commands of GitHub Actions, from the command line."""

from __future__ import annotations

from typing import Any

import pytest

TEST = """
from spinning import spin

def test_one(perf):
    perf(lambda: spin("one"))
"""


@pytest.fixture
def slowed(project: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A project in a job of GitHub Actions, whose test got a hundred times slower."""
    monkeypatch.setenv("GITHUB_ACTIONS", "false")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(project.path))
    project.write("test_it.py", TEST)
    assert project.perf("--perf-save", "--perf-processes=1").ret == 0
    project.slow_down("one")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    return project


def commands(result: pytest.RunResult) -> list[str]:
    return [line for line in result.outlines if line.startswith("::")]


def test_the_failed_test_is_annotated_at_its_line(slowed: Any) -> None:
    """One command for the one test, also where pytest-xdist's processes ran it."""
    for more in ((), ("-n", "2")):
        result = slowed.perf(*more)
        assert result.ret == 1
        (line,) = commands(result)
        assert line.startswith("::error file=test_it.py,line=3,title=perf%3A test_one::WORSE: ")
        assert "%0Aratio " in line


def test_nothing_is_annotated_elsewhere(slowed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of GitHub Actions, and where another plugin says the same."""
    slowed.write(
        "other/pytest_github_actions_annotate_failures.py", "# stands for the plugin of this name\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(slowed.path / "other"))
    assert commands(slowed.perf("-p", "pytest_github_actions_annotate_failures")) == []
    monkeypatch.setenv("GITHUB_ACTIONS", "false")
    assert commands(slowed.perf()) == []
