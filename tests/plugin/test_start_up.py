"""What starting pytest with the plugin costs, and the ways to start it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

_HEAVY = ("numpy", "pandas", "torch", "jax", "psutil", "tabulate", "filelock",
          "perfsuite.run", "perfsuite.workloads", "perfsuite.gate")  # fmt: skip

# Prints which of the heavy modules a pytest run has imported, from inside that process.
_TELL = f"""
import sys
import pytest

@pytest.hookimpl(trylast=True)
def pytest_unconfigure():
    print("imported:", [name for name in {_HEAVY!r} if name in sys.modules])
"""


def test_importing_the_plugin_imports_pytest_alone() -> None:
    """A fresh interpreter that imports perfsuite.plugin has none of the heavy modules."""
    code = f"import perfsuite.plugin, sys; print([n for n in {_HEAVY!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("arguments", [["--help"], ["--collect-only"], ["-q"]])
def test_pytest_without_perf_imports_nothing_more(
    pytester: pytest.Pytester, arguments: list[str]
) -> None:
    """Neither help, nor collecting, nor running ordinary tests imports what only --perf needs."""
    pytester.makeconftest(_TELL)
    pytester.makepyfile("def test_ordinary(): pass\ndef test_perf(perf): pass\n")

    # pytest-benchmark and others import for themselves; only this plugin is under test
    result = pytester.runpytest_subprocess(
        *arguments, "-s", "-p", "no:benchmark", "-p", "no:hypothesispytest", "-p", "no:xdist"
    )

    assert result.ret == 0
    result.stdout.fnmatch_lines(["imported: []"])


@pytest.mark.parametrize(
    "start",
    [
        ["-m", "pytest", "-p", "perfsuite.plugin"],
        ["-m", "pytest", "-o", "addopts=", "-p", "no:cacheprovider"],
        ["-c", "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"],
    ],
)
def test_ways_to_start(two_tests: Any, start: list[str]) -> None:
    """A second registration, emptied addopts and pytest.main all measure as usual."""
    two_tests.write("pytest.ini", "[pytest]\naddopts = -v --tb=short\n")
    done = subprocess.run(
        [sys.executable, *start, *two_tests.quick, "--perf-processes=1", "--perf-save"],
        cwd=two_tests.path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert len(two_tests.baselines) == 2


def test_the_base_folder_of_a_run_is_not_wiped_by_its_workers(project: Any) -> None:
    """Files under --basetemp survive, and each worker has a folder of its own."""
    project.write(
        "test_it.py",
        """
from spinning import spin

def test_writes(tmp_path_factory):
    (tmp_path_factory.getbasetemp() / "kept").write_text("by the pytest process")

def test_measured(perf, tmp_path):
    (tmp_path / "file").write_text("by a worker")
    perf(lambda: spin("one"))

def test_again(perf, tmp_path_factory):
    assert len(list(tmp_path_factory.getbasetemp().glob("test_measured0/file"))) == 1
    perf(lambda: spin("one"))
""",
    )

    result = project.perf("--basetemp=base", "--perf-save")

    assert result.ret == 0
    result.assert_outcomes(passed=3)
    assert (project.path / "base/kept").exists()
    assert len(list(project.path.glob("base-perf-worker-*/test_measured0/file"))) == 2


def test_a_project_where_warnings_are_errors(two_tests: Any) -> None:
    """With filterwarnings=error and everything strict nothing of the plugin warns."""
    two_tests.write(
        "pytest.ini",
        """
[pytest]
addopts = --strict-markers --strict-config
xfail_strict = true
filterwarnings = error
""",
    )

    assert two_tests.perf("--perf-save").ret == 0
    assert two_tests.perf("-n", "2").ret == 0
