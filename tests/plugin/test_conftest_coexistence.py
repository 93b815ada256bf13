"""What a project's own hooks do goes on working, in the pytest process and in workers."""

from __future__ import annotations

from typing import Any


def test_hooks_of_a_project_keep_working(two_tests: Any) -> None:
    """A conftest that counts reports, reorders, adds markers and options sees perf tests too."""
    with (two_tests.path / "conftest.py").open("a") as stream:
        stream.write("""
import pytest

seen = []

def pytest_addoption(parser):
    parser.addoption("--colour", default="red")

def pytest_collection_modifyitems(config, items):
    items.reverse()
    for item in items:
        item.add_marker(pytest.mark.slow)

def pytest_configure(config):
    config.addinivalue_line("markers", "slow: planted")

def pytest_runtest_logreport(report):
    seen.append((report.when, report.outcome))

def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"seen {seen.count(('call', 'passed'))} calls")
""")
    two_tests.write(
        "test_colour.py",
        """
def test_colour(perf, pytestconfig):
    assert pytestconfig.getoption("--colour") == "blue"
    perf(lambda: None)
""",
    )

    result = two_tests.perf("--perf-save", "--colour=blue", "--strict-markers", "-m", "slow")

    assert result.ret == 0
    result.stdout.fnmatch_lines(["seen 3 calls"])
    assert len(two_tests.baselines) == 3


def test_a_worker_that_does_not_come_up_fails_its_tests(project: Any) -> None:
    """A worker that ends while it starts is told, and nothing hangs."""
    with (project.path / "conftest.py").open("a") as stream:
        stream.write("""
import sys
import pytest

def pytest_sessionstart(session):
    if "perfsuite.worker" in sys.orig_argv:
        pytest.exit("planted: no licence for a second process", returncode=5)
""")
    project.write("test_it.py", "def test_it(perf):\n    perf(lambda: None)\n")

    result = project.perf("--perf-processes=1", "--perf-timeout=30")

    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "VOID: the worker ended with exit status 5 while collecting the tests",
        ]
    )


def test_tests_in_a_package_with_relative_imports(project: Any) -> None:
    """Packages, src layouts and importlib mode collect the same tests in workers."""
    project.write("pytest.ini", "[pytest]\npythonpath = src .\naddopts = --import-mode=importlib\n")
    project.write("src/product/__init__.py", "from spinning import spin\n")
    project.write("tests/__init__.py", "")
    project.write("tests/helpers.py", "NAME = 'one'\n")
    project.write(
        "tests/test_it.py",
        """
from product import spin
from .helpers import NAME

def test_it(perf):
    perf(lambda: spin(NAME))
""",
    )

    assert project.perf("--perf-save", "tests").ret == 0
    assert "test_it | measured" in project.baselines


def test_output_and_arguments_reach_only_the_pytest_process(two_tests: Any) -> None:
    """Options of printing, logging and capturing are known in workers and do nothing there."""
    for options in (["-q", "-s", "--color=yes", "-p", "no:cacheprovider"],
                    ["-vv", "--durations=3", "--tb=no", "-rA", "--log-level=DEBUG"]):  # fmt: skip
        result = two_tests.perf("--perf-save", "--perf-processes=1", "--perf-budget=0.02", *options)
        assert result.ret == 0, options
        assert len(two_tests.baselines) == 2


def test_the_double_dash_ends_options_for_workers_too(two_tests: Any) -> None:
    """Paths after `--` stay paths."""
    result = two_tests.perf("--perf-save", "--perf-processes=1", "--", "test_it.py")

    assert result.ret == 0
    assert len(two_tests.baselines) == 2
