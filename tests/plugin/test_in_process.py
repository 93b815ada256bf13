"""--perf-in-process: measured here, for debuggers, and never saved."""

from __future__ import annotations

from typing import Any

import pytest


def test_it_measures_and_judges_in_the_pytest_process(two_tests: Any) -> None:
    """A planted loss is red as in workers, and breakpoints would be in this very process."""
    project = two_tests
    # one process knows nothing of the spread between processes: the baseline's must tell
    assert project.perf("--perf-save", "--perf-processes=4").ret == 0
    project.slow_down("one")
    with (project.path / "test_it.py").open("a") as stream:
        stream.write("""
def test_where(perf):
    import sys
    assert "perfsuite.worker" not in sys.orig_argv
    perf(lambda: spin("where"))
""")

    result = project.perf("--perf-in-process")

    assert result.ret == 1
    assert project.verdicts["test_one"] == "WORSE"
    assert project.verdicts["test_two"] != "WORSE"
    assert project.verdicts["test_where"] == "NEW"


def test_broken_tests_fail_too(engine_test: Any) -> None:
    """A test without a measurement, a skip, an exception and a void engine end as in workers."""
    engine_test.engines("Offer('wrong', verify=lambda engine, workload: 'planted'), Offer('right')")
    engine_test.seconds(prefill=0.001, decode=0.0005)
    engine_test.write(
        "test_more.py",
        """
import pytest

def test_never(perf):
    pass

def test_raises(perf):
    perf(lambda: 1 / 0)

def test_skips(perf):
    pytest.skip("planted")
""",
    )

    result = engine_test.perf("--perf-in-process")

    assert result.ret == 1
    result.assert_outcomes(passed=1, failed=3, skipped=1)
    result.stdout.fnmatch_lines_random([
        "*wrong outputs: planted*", "*it never called perf(...)*", "*ZeroDivisionError*",
    ])  # fmt: skip


def test_a_benchmark_is_measured_too(project: Any) -> None:
    """pytest-benchmark's fixture runs here as it always does."""
    pytest.importorskip("pytest_benchmark")
    project.write(
        "test_it.py",
        "import spinning\n\ndef test_it(benchmark):\n    benchmark(lambda: spinning.spin('one'))\n",
    )

    result = project.perf("--perf-in-process", "--benchmark-max-time=0.1")

    assert result.ret == 1  # nothing was compared
    assert project.verdicts == {"test_it": "NEW"}
    assert project.results["test_it"]["rows"][0]["value"] >= 0.002
