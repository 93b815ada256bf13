"""Runs under torchrun's variables: ranks that work together, die, fail, and disagree."""

from __future__ import annotations

from typing import Any

import pytest

# An engine of two ranks that meet in every call, as a collective would have them: over files.
_RANKED = """
import os
import signal
import time
from pathlib import Path
import pytest
from fake import Engine, Offer, Step
from spinning import spin

HERE, RANK, COUNT = Path(__file__).parent, os.environ["RANK"], int(os.environ["WORLD_SIZE"])
MEETING = HERE / os.environ["MASTER_PORT"]


class Ranked(Engine):
    config = {"kind": "ranked", "count": COUNT}
    calls = 0

    def prefill(self, token_ids):
        spin(f"prefill-{RANK}")
        self.meet()
        return Step(len(token_ids))

    def decode(self, step):
        if (HERE / f"die-{RANK}").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        if (HERE / f"raise-{RANK}").exists():
            raise ArithmeticError("planted in decode")
        return super().decode(step)

    def meet(self):
        self.calls += 1
        MEETING.mkdir(exist_ok=True)
        (MEETING / f"{self.calls}-{RANK}").touch()
        while len(list(MEETING.glob(f"{self.calls}-*"))) < COUNT:
            time.sleep(0.001)


class Open(Offer):
    distributed = True

    def open(self, workload, device):
        (HERE / f"opened-{RANK}").touch()
        return Ranked()


@pytest.hookimpl(optionalhook=True)
def pytest_perf_engines(config):
    return [Open("ranked"), Offer("alone")]
"""
_NAME = "test_user[llm-smoke-llama2_13b-single_user-plain-b1-i16-u16-ranked-measured]"
_TTFT = "time_to_first_token/prefill_until_first_token"


@pytest.fixture
def ranked(engine_test: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A project with an engine of two ranks, as rank 0 of torchrun sees it."""
    engine_test.conftest(_RANKED)
    told = {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "host", "MASTER_PORT": "1"}  # fmt: skip
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    return engine_test


def test_the_slowest_rank_is_measured(ranked: Any) -> None:
    """Both ranks open the engine for themselves; the figure is that of the slower one."""
    ranked.seconds(**{"prefill-1": 0.05})
    result = ranked.perf("-k", "ranked")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["perf: cpu, *; each engine in 2 ranks of torchrun*"])
    assert (ranked.path / "opened-0").exists()
    assert (ranked.path / "opened-1").exists()
    rows = ranked.results[_NAME]["rows"]
    ttft = next(row for row in rows if row["figure"] == _TTFT)
    assert ttft["value"] > 0.05


def test_two_ranks_and_one_process_have_baselines_of_their_own(
    ranked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saved with two ranks, they are neither compared with one process's nor gone there."""
    ranked.perf("--perf-save", "-k", "ranked").assert_outcomes(passed=1)
    assert all("smoke x2" in key for key in ranked.baselines)
    ranked.perf("-k", "ranked").assert_outcomes(passed=1)
    ranked.slow_down("prefill-1")
    ranked.perf("-k", "ranked").assert_outcomes(failed=1)
    ranked.seconds()
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    monkeypatch.setenv("WORLD_SIZE", "1")
    alone = ranked.perf()
    assert "NEW" in alone.stdout.str()
    assert "GONE" not in alone.stdout.str()


def test_an_engine_of_one_process_is_a_visible_skip(ranked: Any) -> None:
    result = ranked.perf("-rs", "--engine=alone")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*alone is one process's, torchrun started 2*"])


def test_a_rank_that_dies_fails_the_test_at_once(ranked: Any) -> None:
    """The other rank waits for it for ever; the run does not."""
    (ranked.path / "die-1").touch()
    result = ranked.perf("-k", "ranked")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*rank 1: the worker was killed by SIGKILL*"])


def test_a_rank_that_raises_is_told_and_the_next_test_has_new_ones(ranked: Any) -> None:
    (ranked.path / "raise-1").touch()
    ranked.write("test_next.py", (ranked.path / "test_it.py").read_text() + """
def test_aside(perf_device):
    from pathlib import Path
    Path(__file__).with_name("raise-1").unlink()

@pytest.mark.perf(workloads="llm-smoke-llama2_13b-single_user-plain-b1-i16-u16")
def test_user_again(perf, perf_engine, perf_workload):
    perf(perf_engine, perf_workload)
""")  # fmt: skip
    result = ranked.perf("--perf-save", "--engine=ranked", "test_it.py", "test_next.py")
    result.stdout.fnmatch_lines(["*rank 1: *", "*ArithmeticError: planted in decode*"])
    result.assert_outcomes(failed=2, passed=2)


def test_callables_are_skipped(ranked: Any) -> None:
    ranked.write("test_it.py", "def test_call(perf):\n    perf(lambda: None)\n")
    result = ranked.perf("-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*torchrun started 2 processes, and only engines run in several*"])


@pytest.mark.parametrize("option", ["--perf-in-process", "--perf-against=.", "--perf-calibrate"])
def test_what_one_process_does_is_refused(ranked: Any, option: str) -> None:
    result = ranked.pytest("--perf", "--perf-device=cpu", option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*torchrun started 2 processes: {option.partition('=')[0]} *"])


def test_other_ranks_end_at_once_and_say_nothing(
    ranked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    files = ("--perf-json=out.json", "--junitxml=j.xml")
    result = ranked.pytest("--perf", "--perf-device=cpu", *files)
    assert result.ret == pytest.ExitCode.OK
    assert result.stdout.str() == ""
    assert not list(ranked.path.glob("out.json"))
    assert not list(ranked.path.glob("j.xml"))


def test_without_perf_every_rank_is_a_pytest_of_its_own(
    ranked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    ranked.pytest().assert_outcomes(skipped=1)
