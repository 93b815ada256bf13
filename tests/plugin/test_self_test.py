"""--perf-self-test: the gate turns red where an engine is slowed on purpose, and only there.

Calls spin 20 ms and more by the wall's clock, and so does what slows them: a busy machine delays
both by some milliseconds, which is far from a factor of ten against a limit of 20 %.
"""

from __future__ import annotations

from typing import Any

import pytest

# The limit counts, not what this machine does between two runs.
SHARP = ("--perf-limit=time:20%", "--perf-limit=throughput:20%", "--perf-drift=0%")
# One process, as in --perf-in-process, knows nothing of their spread: the baseline's must tell.
FOUR = "--perf-processes=4"

# As a slowing that slows nothing: everything is in its place, and no time is spent.
_NO_SPINNING = """
import perfsuite.slowing
perfsuite.slowing.Spinning.end = perfsuite.slowing.Spinning.drop
"""

FULL_SIZE_TEST = """
import pytest

@pytest.mark.perf(workloads="llm-llama2_13b-128-single_user")
def test_user(perf, perf_engine, perf_workload):
    perf(perf_engine, perf_workload)
"""


@pytest.fixture
def recorded(two_tests: Any) -> Any:
    """Two tests of 20 ms with baselines."""
    two_tests.quick = (*two_tests.quick, *SHARP)
    two_tests.seconds(one=0.02, two=0.02)
    assert two_tests.perf("--perf-save-force").ret == 0
    return two_tests


def test_ten_times_the_time_is_seen_and_saved_nowhere(recorded: Any) -> None:
    """Both tests pass, because their gates are red; the figures say what they are."""
    before = recorded.baselines

    result = recorded.perf("--perf-self-test=900%")

    assert result.ret == 0
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines([
        "perf: self-test: every engine is slowed by 900% on purpose; *",
        "self-test: 900% slower: 2 of 2 tests turned red as they should",
    ])  # fmt: skip
    assert recorded.verdicts == {"test_one": "WORSE", "test_two": "WORSE"}
    told = recorded.results["test_one"]["facts"]["self_test"]
    assert told["share"] == 9.0
    assert told["spun"] >= 9.0
    assert recorded.baselines == before


def test_a_slowing_that_does_not_slow_turns_the_self_test_red(recorded: Any) -> None:
    """The planted bug: a gate that would see nothing can not pass."""
    recorded.conftest(_NO_SPINNING)

    result = recorded.perf("--perf-self-test=900%")

    assert result.ret == 1
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines([
        "SELF-TEST: time/call is * though slowed by 900%: the gate can not see 900% here",
        "ratio *, limit 1.200 (above 1 is worse)",
        "remedy: more measuring (--perf-budget)*",
        "self-test: 900% slower: 0 of 2 tests turned red as they should; 2 did not *",
    ])  # fmt: skip


def test_slowed_by_nothing_the_gate_stays_green(recorded: Any) -> None:
    """At 0 % a loss is a false alarm, planted here in one of two tests."""
    wide = ("--perf-limit=time:500%",)
    green = recorded.perf("--perf-self-test=0%", *wide)
    assert green.ret == 0
    green.assert_outcomes(passed=2)
    green.stdout.fnmatch_lines(["self-test: 0% slower: 2 of 2 tests stayed green as they should*"])

    recorded.seconds(one=0.4, two=0.02)
    red = recorded.perf("--perf-self-test=0%", *wide)
    assert red.ret == 1
    red.assert_outcomes(passed=1, failed=1)
    red.stdout.fnmatch_lines(["SELF-TEST: time/call is WORSE though nothing was slowed"])


def test_what_the_limit_accepts_or_no_baseline_knows_proves_nothing(recorded: Any) -> None:
    """Both fail, with words that name what to do."""
    within = recorded.perf("--perf-self-test=15%", "-k", "one")
    assert within.ret == 1
    within.stdout.fnmatch_lines([
        "SELF-TEST: time/call may lose 20% *: a slowing by 15% is none that the gate should see",
        "remedy: a lower limit, like --perf-limit=time:6%, or a larger share, like *=40%",
    ])  # fmt: skip

    unknown = recorded.perf("--perf-self-test=900%", "--perf-baselines=elsewhere", "-k", "one")
    assert unknown.ret == 1
    unknown.stdout.fnmatch_lines(["SELF-TEST: time/call is NEW: no baseline to test against"])


def test_an_engine_is_slowed_too_in_workers_and_here(engine_test: Any) -> None:
    """Every figure of a workload turns red, in workers and in the pytest process."""
    engine_test.engines("Offer('steady')")
    engine_test.quick = (*engine_test.quick, *SHARP)
    engine_test.seconds(prefill=0.01, decode=0.01)
    assert engine_test.perf("--perf-save-force", FOUR).ret == 0

    for here in ((), ("--perf-in-process",)):
        result = engine_test.perf("--perf-self-test=900%", *here)
        assert result.ret == 0
        result.assert_outcomes(passed=1)
        (kept,) = engine_test.results.values()
        gated = [row for row in kept["rows"] if row["limit"] is not None]
        assert len(gated) == 5
        assert {row["verdict"] for row in gated} == {"WORSE"}


def test_compiled_facts_are_skipped_and_alone_are_no_self_test(project: Any) -> None:
    """They have no time; a run of nothing else is not green."""
    project.engines("Offer('compiled', programs=lambda workload, target: [])")
    project.write("test_it.py", FULL_SIZE_TEST)

    result = project.perf("--perf-self-test=10%", "-rs")

    assert result.ret == 1
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["nothing was compared*", "*a compiled fact has no time to slow*"])


def test_a_broken_engine_fails_as_ever(engine_test: Any) -> None:
    """VOID is no proof that a gate can see."""
    engine_test.engines("Offer('wrong', verify=lambda engine, workload: 'planted')")

    result = engine_test.perf("--perf-self-test=900%")

    assert result.ret == 1
    result.stdout.fnmatch_lines([
        "VOID: wrong outputs: planted",
        "self-test: 900% slower: 0 of 1 tests turned red as they should; 1 did not (VOID 1)",
    ])  # fmt: skip


def test_a_benchmark_is_slowed_too(project: Any) -> None:
    """pytest-benchmark's own table and file say so."""
    pytest.importorskip("pytest_benchmark")
    project.write(
        "test_it.py",
        """
from spinning import spin

def test_plain(benchmark):
    assert benchmark(lambda: spin("one") or 42) == 42

def test_pedantic(benchmark):
    benchmark.pedantic(spin, args=("one",), rounds=5)
""",
    )
    project.quick = (*project.quick, *SHARP, "--benchmark-max-time=0.4")
    project.seconds(one=0.02)
    assert project.perf("--perf-save-force", FOUR).ret == 0

    for here in ((), ("--perf-in-process",)):
        result = project.perf("--perf-self-test=900%", "--benchmark-json=own.json", *here)
        assert result.ret == 0
        result.assert_outcomes(passed=2)
        assert "slowed by 900.00% on purpose" in (project.path / "own.json").read_text()
        assert project.results["test_plain"]["facts"]["self_test"]["share"] == 9.0


def test_processes_of_xdist_are_summed_up(recorded: Any) -> None:
    """The controller tells of all."""
    pytest.importorskip("xdist")

    result = recorded.perf("--perf-self-test=900%", "-n", "2")

    assert result.ret == 0
    result.stdout.fnmatch_lines(["self-test: 900% slower: 2 of 2 tests turned red as they should"])


def test_a_self_test_never_saves(two_tests: Any) -> None:
    """The options contradict each other before anything is measured."""
    result = two_tests.perf("--perf-self-test=900%", "--perf-save-new")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*--perf-save-new contradict each other*"])
