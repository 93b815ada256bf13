"""Attention alone, needles, and figures of two tests, with engines of numpy that spin."""

from __future__ import annotations

from typing import Any

import pytest

SPEEDUP = "speedup/attention_over_base"
ATTENTION = "attention_time/flushed_call"

_KINDS = """
import hashlib
import numpy as np
import pytest
from spinning import spin


class Step:
    def __init__(self, batch):
        self.tokens = np.zeros(batch, np.int64)


class Kinds:
    def __init__(self, workload):
        self.workload, self.config = workload, {"kind": "fake"}

    def attention(self):
        spin(self.workload.mode)
        model = self.workload.model
        return np.zeros((self.workload.batch, model.heads, 1, model.head_dim))

    def flush(self):
        spin("flush")

    def prefill_shared(self, prefix_ids, batch):
        assert len(prefix_ids) == self.workload.shared_tokens
        spin("prefill")
        return Step(batch)

    def decode(self, step):
        spin(self.workload.mode)
        return Step(len(step.tokens))

    def answer(self, questions, new_tokens):
        spin("answer")
        said = [[sum(q) * (n + 1) % 200 for n in range(new_tokens)] for q in questions]
        if OTHER and self.workload.mode == "hydragen":
            said[1][0] += 1
        return np.array(said)

    def wait(self, step):
        pass

    def close(self):
        pass


class Offer:
    name, framework = "kinds", ""

    def refuses(self, workload, device):
        return None if workload.kind in ("attention", "needles", "shared") else "not faked"

    def open(self, workload, device):
        return Kinds(workload)


@pytest.hookimpl(optionalhook=True)
def pytest_perf_engines(config):
    return [Offer()]
"""

_ATTENTION_TEST = """
import pytest

@pytest.mark.perf(workloads="hydragen-smoke-*-attention-*-b8-s64-u8")
def test_attention(perf, perf_engine, perf_workload):
    perf(perf_engine, perf_workload)
"""

_SHARED_TEST = """
import pytest

@pytest.mark.perf(workloads="hydragen-smoke-codellama_7b-shared-*-b4-s64-u16")
def test_shared(perf, perf_engine, perf_workload):
    if not perf_workload.mode.startswith("vllm"):
        perf(perf_engine, perf_workload)
"""

_NEEDLES_TEST = """
import pytest

@pytest.mark.perf(workloads="hydragen-smoke-*-needles-*")
def test_needles(perf, perf_engine, perf_workload):
    perf(perf_engine, perf_workload.sized(dtype="DTYPE"))
"""


@pytest.fixture
def kinds(project: Any) -> Any:
    """A project with an engine of all three kinds."""
    project.conftest(f"OTHER = False\n{_KINDS}")
    return project


def of_mode(project: Any, mode: str) -> dict[str, Any]:
    """The result of the test in that mode."""
    (found,) = [r for r in project.report["results"] if f"-{mode}-" in r["workload"] + "-"]
    return found


def rows(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By figure."""
    return {row["figure"]: row for row in result["rows"]}


def test_attention_alone_and_its_speedup(kinds: Any) -> None:
    """Base takes ten times as long: the technique's own test says so, and saves it."""
    kinds.write("test_it.py", _ATTENTION_TEST)
    four = "--perf-processes=4"  # a figure of two tests is looked at once: two would say little
    kinds.seconds(base=0.03, hydragen=0.003, flush=0.01)
    saved = kinds.perf(four, "--perf-save")
    assert saved.ret == 0
    ours = rows(of_mode(kinds, "hydragen"))
    assert ours[ATTENTION]["value"] >= 0.003
    assert ours[SPEEDUP]["value"] > 1.5
    assert len(ours[SPEEDUP]["processes"]) == 4
    assert SPEEDUP not in rows(of_mode(kinds, "base"))
    saved.stdout.fnmatch_lines(["*x base * times *"])

    kinds.seconds(base=0.03, hydragen=0.3, flush=0.01)
    lost = kinds.perf(four)
    assert lost.ret == 1
    ours = rows(of_mode(kinds, "hydragen"))
    assert ours[SPEEDUP]["verdict"] == ours[ATTENTION]["verdict"] == "WORSE"
    assert rows(of_mode(kinds, "base"))[ATTENTION]["verdict"] != "WORSE"


def test_a_speedup_without_its_neighbour_is_absent(kinds: Any) -> None:
    """Where nothing is stored it is said; where a baseline has it, it is GONE with the reason."""
    kinds.write("test_it.py", _ATTENTION_TEST)
    kinds.perf("-k", "hydragen-b8", "--perf-save")
    row = rows(of_mode(kinds, "hydragen"))[SPEEDUP]
    assert (row["verdict"], row["value"]) == ("SHOWN", None)
    assert row["note"].startswith("absent: base of these sizes was not measured")

    kinds.perf("--perf-save")
    kinds.perf("-k", "hydragen-b8")
    row = rows(of_mode(kinds, "hydragen"))[SPEEDUP]
    assert row["verdict"] == "GONE"
    assert "base of these sizes was not measured" in row["note"]


def test_completions_against_copies_and_no_attention(kinds: Any) -> None:
    """The speedup, the share, and decode throughput by the paper's definition."""
    kinds.write("test_it.py", _SHARED_TEST)
    kinds.seconds(hydragen=0.001, hydragen_noshared=0.01, noattention=0.001)
    kinds.perf("-k", "not vllm")
    ours = rows(of_mode(kinds, "hydragen"))
    assert ours["speedup/over_noshared"]["value"] > 1
    assert ours["share_of/noattention"]["value"] > 0
    assert ours["decode_throughput/all_less_first_token"]["value"] > 0
    assert of_mode(kinds, "hydragen")["facts"]["over"].keys() == {
        "speedup/over_noshared", "share_of/noattention"
    }  # fmt: skip


def test_needles_are_timed_and_answers_compared(kinds: Any) -> None:
    """In half precision near ties are no fault; equal answers pass without a word."""
    kinds.write("test_it.py", _NEEDLES_TEST.replace("DTYPE", "bfloat16"))
    result = kinds.perf("--perf-save")
    assert result.ret == 0
    ours = rows(of_mode(kinds, "hydragen"))
    assert {f"answer_time/all_questions@q{n}" for n in (2, 4, 8)} < ours.keys()
    assert ours["wrong_answers/exact_match"]["note"].startswith("absent: random weights")
    assert "near ties" in ours["equal_answers"]["note"]
    assert "equal_answers" not in rows(of_mode(kinds, "no_attention"))
    result.stdout.fnmatch_lines(["*q8 answers *"])

    kinds.write("test_it.py", _NEEDLES_TEST.replace("DTYPE", "float32"))
    assert kinds.perf("--perf-save").ret == 0
    assert "equal_answers" not in rows(of_mode(kinds, "hydragen"))


def test_other_answers_void_the_technique(kinds: Any) -> None:
    """One token of one question: it is named, and nothing of the test is used."""
    kinds.write("test_it.py", _NEEDLES_TEST.replace("DTYPE", "float32"))
    kinds.conftest(f"OTHER = True\n{_KINDS}")
    result = kinds.perf("--perf-save")
    assert result.ret == 1
    row = rows(of_mode(kinds, "hydragen"))["contract"]
    assert row["verdict"] == "VOID"
    assert "of 2 questions number 2 is the first whose answer differs" in row["note"]
    assert not [key for key in kinds.baselines if "needles-hydragen" in key]
    assert len(kinds.baselines) == 2


def test_the_haystack_is_a_file(kinds: Any) -> None:
    """Named in the configuration; too short is told with both lengths; absent is refused."""
    kinds.write("test_it.py", _NEEDLES_TEST.replace("DTYPE", "float32"))
    kinds.write("long.txt", "Well, Prince. " * 100)
    kinds.perf("--perf-haystack=long.txt", "-k", "needles-hydragen")
    assert of_mode(kinds, "hydragen")["config"]["haystack"] == "long.txt, 1400 characters"

    kinds.write("short.txt", "Well.")
    result = kinds.perf("--perf-haystack=short.txt", "-k", "needles-hydragen")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*the haystack has 5 characters, the prompt needs 640*"])

    refused = kinds.perf("--perf-haystack=nowhere.txt")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["ERROR: --perf-haystack *nowhere.txt*: no such file; expected *"])

    kinds.write("test_it.py", _ATTENTION_TEST)
    refused = kinds.perf("--perf-haystack=long.txt")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["ERROR: --perf-haystack has no effect: no test of this run *"])


def test_a_self_test_does_not_ask_for_figures_of_two_tests(kinds: Any) -> None:
    """Both sides are slowed alike, so a speedup stays; all that takes time turns red."""
    kinds.write("test_it.py", _ATTENTION_TEST)
    kinds.perf("--perf-save")
    result = kinds.perf("--perf-self-test=900%", "--perf-limit=time:100%")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*2 of 2 tests turned red as they should*"])


_ALONE_TEST = """
import os
from pathlib import Path
import pytest

@pytest.mark.perf(workloads="hydragen-micro-*-u16")
def test_attention(perf, perf_engine, perf_workload):
    with Path(__file__).with_name("processes.txt").open("a") as file:
        file.write(f"{perf_workload.batch} {perf_workload.mode} {os.getpid()}\\n")
    perf(lambda: None)
"""


@pytest.mark.parametrize("options", [(), ("--perf-against=same",)])
def test_a_point_that_asks_for_it_has_processes_of_its_own(
    kinds: Any, options: tuple[str, ...]
) -> None:
    """The base cells of 4096 sequences, as the document says; the others share processes."""
    kinds.write("test_it.py", _ALONE_TEST)
    for name in ("conftest.py", "fake.py", "spinning.py", "seconds.json"):
        kinds.write(f"same/{name}", (kinds.path / name).read_text())
    kinds.perf("--perf-scale=full", "--perf-save" if not options else "-q", *options, "test_it.py")
    lines = (kinds.path / "processes.txt").read_text().split("\n")[:-1]
    of: dict[tuple[str, str], set[str]] = {}
    for batch, mode, process in (line.split() for line in lines):
        of.setdefault((batch, mode), set()).add(process)
    own = of.pop(("4096", "base"))
    assert len(own) >= 2
    assert len(of) == 7
    assert not own & set.union(*of.values())
    if not options:  # two before it, and two after it
        assert len(set.union(*of.values())) == 4
