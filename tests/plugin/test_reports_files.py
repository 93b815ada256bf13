"""--perf-json and --perf-markdown: what stands in them, and what happens where they can't be."""

from __future__ import annotations

import json
from typing import Any

import pytest


def test_both_files_hold_every_figure(two_tests: Any) -> None:
    """The JSON has samples and benchmarks, the markdown is appended to; -n 2 writes both once."""
    project = two_tests
    markdown = project.path / "deep/summary.md"
    markdown.parent.mkdir()
    markdown.write_text("before\n")
    files = ("--perf-markdown=deep/summary.md",)
    assert project.perf("--perf-save", *files).ret == 0

    result = project.results["test_one"]
    (row, *_) = result["rows"]
    assert row["figure"] == "call_time/per_call"
    samples = result["samples"]["call_time/per_call"]
    assert len(samples) == 2
    assert row["samples"] == sum(map(len, samples))
    assert all(s >= 0.002 for process in samples for s in process)
    assert {b["group"] for b in project.report["benchmarks"]} == {"test_it.py"}
    assert all(b["stats"]["min"] >= 0.002 for b in project.report["benchmarks"])

    project.slow_down("one")
    assert project.perf("-n", "2", *files).ret == 1
    assert project.verdicts["test_one"] == "WORSE"
    text = markdown.read_text()
    assert text.startswith("before\n")
    assert text.count("## perf\n") == 2
    assert "| WORSE" in text


def test_load_results_reads_the_json(two_tests: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """perfsuite.load_results makes a table of a run's file."""
    pytest.importorskip("pandas")
    from perfsuite import load_results

    assert two_tests.perf("--perf-save", "--perf-processes=1").ret == 0

    frame = load_results(two_tests.path / "out.json")

    assert len(frame) >= 2


def test_a_file_that_can_not_be_written_is_a_failure(two_tests: Any) -> None:
    """The run says which file and fails, and its figures are saved all the same."""
    two_tests.write("taken", "a file where a folder is wanted")

    result = two_tests.pytest(
        *two_tests.quick, "--perf-processes=1", "--perf-save", "--perf-json=taken/out.json"
    )

    assert result.ret == 1
    result.stdout.fnmatch_lines(["*taken/out.json: not written: *"])
    assert len(two_tests.baselines) == 2


def test_no_file_is_written_by_workers(two_tests: Any) -> None:
    """JUnit's and the JSON file come from the pytest process alone, with all of its tests."""
    two_tests.write("test_more.py", "def test_ordinary():\n    pass\n")

    assert two_tests.perf("--perf-save", "--junitxml=junit.xml", "--perf-processes=1").ret == 0

    junit = (two_tests.path / "junit.xml").read_text()
    assert junit.count("<testcase ") == 3
    assert len(json.loads((two_tests.path / "out.json").read_text())["results"]) == 2
