"""Without --perf, and what is refused before anything runs."""

from __future__ import annotations

from typing import Any

import pytest


def test_without_perf_tests_are_skipped_with_a_reason(engine_test: Any) -> None:
    """Perf tests of every kind are collected and skipped, never un-collected; others run."""
    engine_test.write(
        "test_more.py",
        """
import pytest

def test_own(perf):
    raise AssertionError("must not run")

@pytest.mark.perf
def test_marked():
    raise AssertionError("must not run")

def test_ordinary():
    pass
""",
    )

    result = engine_test.pytest("-rs", "--strict-markers", "-W", "error")

    assert result.ret == 0
    result.assert_outcomes(passed=1, skipped=3)
    result.stdout.fnmatch_lines(["*perf tests run with --perf"])


def test_an_option_without_effect_is_refused(two_tests: Any) -> None:
    """--perf-save and its kind need --perf, and say so."""
    result = two_tests.pytest("--perf-save", "--perf-budget=3")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --perf-save, --perf-budget has no effect without --perf"])


def test_help_shows_one_group(pytester: pytest.Pytester) -> None:
    """Every option stands in one group of `pytest --help`, the ini keys below."""
    lines = pytester.runpytest_subprocess("--help").outlines
    title = "performance of LLM inference (perfsuite):"

    assert lines.count(title) == 1
    start = lines.index(title) + 1
    end = next(i for i in range(start, len(lines)) if lines[i] and not lines[i].startswith(" "))
    flags = {line.split()[0].split("=")[0] for line in lines[start:end] if line.startswith("  --")}
    assert {
        "--perf",
        "--perf-device",
        "--perf-save",
        "--perf-list",
        "--device",
        "--engine",
    } <= flags
    outside = [line for line in lines[:start] + lines[end:] if line.startswith("  --perf")]
    assert outside == []
    assert any(line.startswith("  perf_limits (linelist)") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--perf-device=gpu"], "unknown device 'gpu'; known: auto, cpu, cuda, cuda:N, tpu"),
        (["--device=gpu"], "unknown device 'gpu'; known: auto, cpu, cuda, cuda:N, tpu"),
        (["--perf-engine=nosuch"], "unknown engine nosuch; *: other, plain"),
        (["--perf-engine=nosuch", "-n", "2"], "unknown engine nosuch; *: other, plain"),
        (["--perf-engine=nosuch", "--perf-list"], "unknown engine nosuch; *: other, plain"),
        (["--perf-scale=huge"], "--perf-scale 'huge' is not known; known: smoke, full"),
        (["--perf-limit=speed:5%"], "unknown metric 'speed'; known kinds: time, throughput, *"),
        (["--perf-limit=ttft"], "--perf-limit 'ttft': expected METRIC:LIMIT, *"),
        (["--perf-limit=ttft:5 parsecs"], "limit '5 parsecs' for *: unknown unit *; known: *"),
        (["--perf-processes=0"], "--perf-processes '0': expected a whole number from 1 to 64"),
        (["--perf-budget=-1"], "--perf-budget '-1': expected a number of seconds above zero"),
        (["--perf-timeout=soon"], "--perf-timeout 'soon': expected a number of seconds above zero"),
        (["--perf-require=luck"], "--perf-require 'luck' is not known; known: measured"),
        (["--perf-model=nowhere"], "--perf-model *no config.json there*"),
        (["--perf-save", "--perf-save-new"], "--perf-save accepts every figure, *: choose one"),
        (["--perf-save", "--perf-in-process"], "--perf-in-process is for debuggers *"),
        (["--perf-baselines=/proc/nowhere", "--perf-save"], "/proc/nowhere: cannot write *"),
        (["--pdb"], "tests run in worker processes; to debug one, add --perf-in-process"),
        (["--benchmark-disable"], "--benchmark-disable leaves tests unmeasured; drop it or --perf"),
        (["--benchmark-skip"], "--benchmark-skip leaves tests unmeasured; drop it or --perf"),
        (["--benchmark-compare", "--benchmark-compare-fail=mean:5%"],
         "--benchmark-compare-fail and --perf are two gates; *--perf-limit=benchmark_time:5%"),
    ],
)  # fmt: skip
def test_what_is_unknown_is_refused_with_what_is_known(
    engine_test: Any, arguments: list[str], words: str
) -> None:
    """A value that can't be used: exit 4, one line with the known ones, no traceback."""
    engine_test.engines("Offer('plain'), Offer('other')")

    result = engine_test.pytest("--perf", *arguments)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    said = result.stdout if "-n" in arguments else result.stderr  # there the controller tells it
    said.fnmatch_lines([f"ERROR: {words}"])
    assert "Traceback" not in result.stdout.str() + result.stderr.str()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("@pytest.mark.perf(limit='5%')\ndef test_it(perf): pass",
         "test_bad.py::test_it: perf marker: unknown argument limit; known: workloads, limits, *"),
        ("@pytest.mark.perf('5%')\ndef test_it(perf): pass",
         "test_bad.py::test_it: perf marker: unknown argument '5%'; known: workloads, limits, *"),
        ("@pytest.mark.perf(limits={'speed': '5%'})\ndef test_it(perf): pass",
         "test_bad.py::test_it: unknown metric 'speed'; *"),
        ("@pytest.mark.perf(workloads='nosuch-*')\ndef test_it(perf, perf_workload): pass",
         "test_bad.py::test_it: no workload matches 'nosuch-*'; see pytest --perf --perf-list"),
        ("@pytest.mark.xfail\ndef test_it(perf): pass",
         "test_bad.py::test_it: xfail would turn a regression green; remove it from perf tests"),
        ("import unittest\n@pytest.mark.perf\nclass TestIt(unittest.TestCase):\n"
         "    def test_it(self): pass",
         "test_bad.py::TestIt::test_it: only test functions and methods of plain classes *"),
    ],
)  # fmt: skip
def test_a_test_that_can_not_be_gated_is_refused(project: Any, source: str, words: str) -> None:
    """A wrong marker, an expected failure, a kind that can't be measured: exit 4 at once."""
    project.write("test_bad.py", f"import pytest\n{source}\n")

    result = project.perf()

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {words}"])
    assert "Traceback" not in result.stdout.str() + result.stderr.str()


def test_xdist_refuses_like_a_plain_run(project: Any) -> None:
    """What a process of pytest-xdist refuses ends the run with exit 4, not with a crash."""
    project.write("test_bad.py", "import pytest\n@pytest.mark.xfail\ndef test_it(perf): pass\n")

    result = project.perf("-n", "2")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.fnmatch_lines(
        ["ERROR: test_bad.py::test_it: xfail would turn a regression green; *"]
    )
    result.stdout.no_fnmatch_line("*INTERNALERROR*")


def test_the_ini_sets_defaults(two_tests: Any) -> None:
    """Ini values are used where the command line says nothing, and are checked like it."""
    two_tests.write(
        "pytest.ini",
        """
[pytest]
perf_device = cpu
perf_budget = 0.2
perf_processes = 1
perf_limits =
    time:50%
perf_baselines = kept
""",
    )
    result = two_tests.pytest("--perf", "--perf-save")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["perf: cpu, smoke scale, 1 processes a test, 0.2 s each test; baselines: kept"]
    )
    assert list((two_tests.path / "kept").glob("*/test_it.json"))

    two_tests.write("pytest.ini", "[pytest]\nperf_scale = huge\n")
    refused = two_tests.pytest("--perf")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["ERROR: *'huge' is not known; known: smoke, full"])
