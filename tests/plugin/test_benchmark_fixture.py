"""Tests that use pytest-benchmark's fixture are measured in workers and gated like the others."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("pytest_benchmark")


@pytest.fixture
def benchmark_test(project: Any) -> Any:
    """A project with one benchmark, whose rounds are few."""
    project.write(
        "test_it.py",
        """
from spinning import spin

def test_spins(benchmark):
    benchmark.extra_info["model"] = "none"
    assert benchmark(lambda: spin("one") or 42) == 42
""",
    )
    project.quick = (*project.quick, "--benchmark-max-time=0.2")
    return project


def test_a_benchmark_is_gated_and_keeps_its_table(benchmark_test: Any) -> None:
    """It has a baseline, its own table and JSON stay; hundredfold time is red, also with -n 2."""
    saved = benchmark_test.perf("--perf-save", "--benchmark-json=own.json")
    assert saved.ret == 0
    saved.stdout.fnmatch_lines(["*- benchmark: 1 tests -*", "test_spins *"])
    assert '"model": "none"' in (benchmark_test.path / "own.json").read_text()
    figures = benchmark_test.baselines["test_spins | measured"]["figures"]
    assert all(s >= 0.002 for s in figures["benchmark_time/per_iteration"]["processes"])

    assert benchmark_test.perf().ret == 0

    benchmark_test.slow_down("one")
    plain = benchmark_test.perf()
    assert plain.ret == 1
    plain.stdout.fnmatch_lines(["WORSE: benchmark * ms *"])

    distributed = benchmark_test.perf("-n", "2")
    assert distributed.ret == 1
    distributed.stdout.fnmatch_lines(["WORSE: benchmark * ms *"])
    distributed.stdout.no_fnmatch_line("*Benchmarks are automatically disabled*")


def test_without_perf_a_benchmark_is_its_own(benchmark_test: Any) -> None:
    """Without --perf pytest-benchmark runs as if perfsuite were not there."""
    result = benchmark_test.pytest("--benchmark-max-time=0.2", "--benchmark-min-rounds=2")

    assert result.ret == 0
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*- benchmark: 1 tests -*"])
    result.stdout.no_fnmatch_line("*= perf =*")


def test_pedantic_and_unused_benchmarks(project: Any) -> None:
    """Rounds of benchmark.pedantic count; a fixture that nobody calls is no measurement."""
    project.write(
        "test_it.py",
        """
from spinning import spin

def test_pedantic(benchmark):
    benchmark.pedantic(lambda: spin("one"), rounds=3, iterations=2)

def test_unused(benchmark):
    pass
""",
    )

    result = project.perf("--perf-save")

    assert result.ret == 1
    assert project.verdicts == {"test_pedantic": "NEW", "test_unused": "VOID"}
    seconds = project.baselines["test_pedantic | measured"]["figures"][
        "benchmark_time/per_iteration"
    ]
    assert all(s >= 0.002 for s in seconds["processes"])  # of one iteration, not of half a one
    (line,) = (line for line in result.outlines if line.startswith("test_pedantic  "))
    assert float(line.split()[1]) >= 2.0  # ms, in pytest-benchmark's own table
