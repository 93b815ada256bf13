"""Names, order and fixtures: what a test is called and what runs between tests changes nothing."""

from __future__ import annotations

from typing import Any

import pytest


def test_strange_names_have_baselines_of_their_own(project: Any) -> None:
    """Slashes, dots, spaces, brackets and other alphabets in ids are saved, found and selected."""
    project.write(
        "pytest.ini",
        """
[pytest]
disable_test_id_escaping_and_forfeit_all_rights_to_community_support = True
""",
    )
    project.write(
        "test_it.py",
        """
import pytest
from spinning import spin

NAMES = ["a/b", "c.d", "../up", "мир", "two words", "x[y]z", "p|q", "it's", 'say "hi"', "a::b"]

@pytest.mark.parametrize("name", NAMES)
def test_it(perf, name):
    perf(lambda: spin("one"))

class TestClass:
    def test_it(self, perf):
        perf(lambda: spin("one"))
""",
    )
    quick = ("--perf-processes=1", "--perf-budget=0.05")

    assert project.perf("--perf-save", *quick).ret == 0
    names = ["a/b", "c.d", "../up", "мир", "two words", "x[y]z", "p|q", "it's", 'say "hi"', "a::b"]
    assert set(project.baselines) == {
        *(f"test_it[{name}] | measured" for name in names), "TestClass::test_it | measured",
    }  # fmt: skip

    again = project.perf(*quick)
    assert again.ret == 0
    assert "NEW" not in project.verdicts.values()
    again.stdout.no_fnmatch_line("*GONE*")

    one = project.perf(*quick, "test_it.py::test_it[two words]")
    assert one.ret == 0
    assert set(project.verdicts) == {"test_it[two words]"}


_FIXTURES = """
import os
from pathlib import Path

import pytest

LOG = Path(__file__).parent / "log"


def logged(scope):
    @pytest.fixture(scope=scope)
    def fixture(request):
        with LOG.open("a") as file:
            print(os.getpid(), scope, "up", request.node.name, file=file)
        yield
        with LOG.open("a") as file:
            print(os.getpid(), scope, "down", request.node.name, file=file)
    return fixture


whole_session = logged("session")
whole_module = logged("module")
"""

_MIXED = """
import pytest
from spinning import spin

def test_first(perf, whole_session, whole_module):
    perf(lambda: spin("one"))

def test_second(perf, whole_session, whole_module):
    perf(lambda: spin("one"))

def test_ordinary(whole_session):
    pass

def test_skipped(perf, whole_session, whole_module):
    pytest.skip("planted")

@pytest.mark.skip
def test_marked(perf, whole_session, whole_module):
    pass

def test_third(perf, whole_session, whole_module):
    perf(lambda: spin("one"))
"""


def test_wide_fixtures_are_set_up_once_in_each_worker(project: Any) -> None:
    """Session and module fixtures live across consecutive perf tests and are all torn down."""
    with (project.path / "conftest.py").open("a") as stream:
        stream.write(_FIXTURES)
    consecutive = _MIXED.partition("def test_ordinary")[0]
    project.write("test_it.py", consecutive)
    project.write("test_more.py", consecutive)

    assert project.perf("--perf-save").ret == 0

    lines = [line.split() for line in (project.path / "log").read_text().splitlines()]
    processes = {line[0] for line in lines}
    assert len(processes) == 2
    for process in processes:
        log = [" ".join(line[1:3]) for line in lines if line[0] == process]
        module = ["module up", "module down"]
        assert log == ["session up", *module, *module, "session down"]


def test_a_mixed_order_leaves_no_set_up_state_behind(project: Any) -> None:
    """Ordinary and skipped tests between measured ones, and another order of files, all run."""
    with (project.path / "conftest.py").open("a") as stream:
        stream.write(_FIXTURES)
    project.write("test_it.py", _MIXED)
    project.write("test_more.py", _MIXED)

    result = project.perf("--perf-save")
    assert result.ret == 0
    result.assert_outcomes(passed=8, skipped=4)
    nodes = [
        f"test_{file}.py::test_{test}"
        for file, test in [
            ("it", "third"),
            ("more", "first"),
            ("it", "ordinary"),
            ("it", "first"),
            ("more", "third"),
        ]
    ]
    shuffled = project.perf(*nodes)
    assert shuffled.ret == 0
    shuffled.assert_outcomes(passed=5)
    lines = [line.split() for line in (project.path / "log").read_text().splitlines()]
    assert len([line for line in lines if "up" in line]) == len(
        [line for line in lines if "down" in line]
    )


def test_fixtures_of_perf_tests_run_in_workers_alone(project: Any) -> None:
    """The pytest process sets nothing of a perf test up, and ordinary tests have all of theirs."""
    with (project.path / "conftest.py").open("a") as stream:
        stream.write("""
import os
import sys
import pytest

@pytest.fixture
def weights():
    assert "perfsuite.worker" in sys.orig_argv, "loaded in the pytest process"
    return 1

@pytest.fixture(autouse=True)
def everywhere():
    os.environ["SEEN"] = "yes"
    yield
    del os.environ["SEEN"]
""")
    project.write(
        "test_it.py",
        """
import os
import pytest
from spinning import spin

@pytest.mark.parametrize("n", [1, 2])
def test_measured(perf, weights, n, tmp_path, capsys, monkeypatch):
    assert os.environ["SEEN"] == "yes"
    (tmp_path / "file").write_text("kept while it runs")
    perf(lambda: spin("one"))
    assert (tmp_path / "file").read_text() == "kept while it runs"

@pytest.mark.parametrize("n", [1, 2])
def test_ordinary(n, tmp_path):
    assert os.environ["SEEN"] == "yes"
""",
    )

    result = project.perf("--perf-save")

    assert result.ret == 0
    result.assert_outcomes(passed=4)


def test_subfolders_and_where_one_stands(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that starts in a folder of the project finds its tests, baselines and command."""
    project.write("pytest.ini", "[pytest]\npythonpath = .\n")
    project.write(
        "tests/test_it.py",
        "from spinning import spin\n\ndef test_it(perf):\n    perf(lambda: spin('one'))\n",
    )
    monkeypatch.chdir(project.path / "tests")
    assert project.perf("--perf-save").ret == 0
    project.slow_down("one")

    result = project.perf()

    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["to accept: pytest --perf --perf-device=cpu --perf-save test_it.py::test_it"]
    )
    assert "test_it | measured" in project.baselines
    assert (project.path / "tests/out.json").exists()
