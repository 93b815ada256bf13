"""GONE: a baseline without a test, said only where this run would have collected the test."""

from __future__ import annotations

from typing import Any

import pytest

_ONE_TEST = "from spinning import spin\n\ndef test_it(perf):\n    perf(lambda: spin('one'))\n"


@pytest.fixture
def three_files(project: Any) -> Any:
    """Baselines of a test in each of three files, two of them in one folder."""
    project.quick = (*project.quick, "--perf-processes=1", "--import-mode=importlib")
    project.write("pytest.ini", "[pytest]\npythonpath = .\n")
    for name in ("folder/test_a.py", "folder/test_b.py", "test_c.py"):
        project.write(name, _ONE_TEST)
    assert project.perf("--perf-save").ret == 0
    return project


def _gone(project: Any, *arguments: str) -> list[str]:
    """The files of the baselines that a run calls gone."""
    result = project.perf(*arguments)
    shown = [line for line in result.outlines if line.startswith("GONE: ")]
    gone = [entry["file"].rpartition("/")[2] for entry in project.report["gone"]]
    assert len(shown) == len(gone)
    return sorted(gone)


def test_a_deleted_file_is_gone_where_its_folder_runs(three_files: Any) -> None:
    """Running the folder finds it, also when equally named tests remain; other folders don't."""
    project = three_files
    (project.path / "folder/test_a.py").unlink()

    assert _gone(project) == ["folder.test_a.json"]
    assert _gone(project, "folder") == ["folder.test_a.json"]
    assert _gone(project, "test_c.py") == []

    (project.path / "folder/test_b.py").write_text("def test_ordinary():\n    pass\n")
    assert _gone(project, "folder") == ["folder.test_a.json", "folder.test_b.json"]


def test_a_selection_can_not_know(three_files: Any) -> None:
    """With -k, a node id, --deselect, --ignore or --lf nothing is called gone."""
    project = three_files
    project.write("folder/test_a.py", _ONE_TEST.replace("test_it", "test_renamed"))

    assert _gone(project, "-k", "it") == []
    assert _gone(project, "folder/test_a.py::test_renamed", "folder/test_b.py") == []
    assert _gone(project, "--deselect=test_c.py::test_it") == []
    assert _gone(project, "--ignore=test_c.py") == []
    assert _gone(project) == ["folder.test_a.json"]


def test_what_could_not_be_collected_is_not_gone(three_files: Any) -> None:
    """A file that skips itself or fails to import says nothing about its tests."""
    project = three_files
    project.write(
        "folder/test_a.py", "import pytest\npytest.importorskip('no_such_module')\n" + _ONE_TEST
    )
    project.write("folder/test_b.py", "raise RuntimeError('planted')\n")

    assert _gone(project, "--continue-on-collection-errors") == []
    assert _gone(project, "--continue-on-collection-errors", "-n", "2") == []


def test_another_scale_is_not_gone(engine_test: Any) -> None:
    """Baselines of full-size workloads stay silent in a smoke run, and the other way round."""
    engine_test.engines("Offer('one')")
    engine_test.seconds(prefill=0.0001, decode=0.0001)
    pattern = 'workloads="llm-*llama2_13b*128-*"'
    engine_test.write(
        "test_it.py",
        f"""
import pytest

@pytest.mark.perf({pattern})
def test_user(perf, perf_engine, perf_workload):
    perf(perf_engine, perf_workload)
""",
    )
    full = ("--perf-scale=full", "--perf-processes=1")
    assert engine_test.perf("--perf-save", *full).ret == 0
    assert len(engine_test.baselines) > 0

    assert _gone(engine_test, "--perf-processes=1") == []


def test_a_figure_that_a_test_no_longer_measures_is_gone(project: Any) -> None:
    """A call that was dropped, or whose error was swallowed, is shown and fails when strict."""
    both = """
from spinning import spin

def test_it(perf):
    perf(lambda: spin('one'), name="a")
    try:
        perf(lambda: spin('two'), name="b")
    except ZeroDivisionError:
        pass
"""
    project.write("test_it.py", both)
    assert project.perf("--perf-save").ret == 0
    project.write("test_it.py", both.replace("spin('two')", "1 / 0"))

    assert project.perf().ret == 0
    verdicts = {row["figure"]: row["verdict"] for row in project.results["test_it"]["rows"]}
    assert verdicts["call_time/per_call@b"] == "GONE"
    strict = project.perf("--perf-strict", "--perf-limit=time:900%")
    assert strict.ret == 1
