"""Where engines come from, which of them run, and a whole small project as users write it."""

from __future__ import annotations

import json
import re
from statistics import median
from typing import Any

import pytest

CASE = "llm-smoke-llama2_13b-single_user-plain-b1-i16-u16"
QUIET = ("--perf-save", "--perf-processes=1")


def _engines_that_ran(project: Any) -> set[str]:
    return {result["engine"] for result in project.report["results"]}


def test_engines_are_chosen_by_name_or_by_default(engine_test: Any) -> None:
    """All that are on by default run, one with default=False only when it is named."""
    engine_test.engines("Offer('one'), Offer('two'), Offer('slow', default=False)")

    assert engine_test.perf(*QUIET).ret == 0
    assert _engines_that_ran(engine_test) == {"one", "two"}

    assert engine_test.perf(*QUIET, "--perf-engine=slow").ret == 0
    assert _engines_that_ran(engine_test) == {"slow"}

    assert engine_test.perf(*QUIET, "--engine=slow,two").ret == 0
    assert _engines_that_ran(engine_test) == {"slow", "two"}


def test_nobody_offers_it(engine_test: Any) -> None:
    """A workload that no engine takes is a skip with those words and each engine's reason."""
    alone = engine_test.perf("-rs")
    alone.assert_outcomes(skipped=1)
    alone.stdout.fnmatch_lines(["SKIPPED * no engine offers llm plain"])

    engine_test.engines("Offer('picky', refuses=lambda workload, device: 'needs a moon')")
    refused = engine_test.perf("-rs")
    refused.assert_outcomes(skipped=1)
    refused.stdout.fnmatch_lines(["SKIPPED * no engine offers llm plain (picky: needs a moon)"])


def test_two_engines_of_one_name_are_refused(engine_test: Any) -> None:
    """Two offers can't share a name, because baselines could not tell them apart."""
    engine_test.engines("Offer('same'), Offer('same')")

    result = engine_test.perf()

    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: two engines are named same; names must differ"])


def test_an_installed_package_offers_engines(engine_test: Any) -> None:
    """An entry point of the group perfsuite.engines is asked for its offers."""
    engine_test.write(
        "planted.py", "from fake import Offer\n\ndef offers():\n    return [Offer('planted')]\n"
    )
    info = "planted-1.0.dist-info"
    engine_test.write(f"{info}/METADATA", "Metadata-Version: 2.1\nName: planted\nVersion: 1.0\n")
    engine_test.write(f"{info}/entry_points.txt", "[perfsuite.engines]\nplanted = planted:offers\n")

    assert engine_test.perf(*QUIET).ret == 0

    assert _engines_that_ran(engine_test) == {"planted"}


def test_the_hook_survives_without_the_plugin(engine_test: Any) -> None:
    """A conftest with the hook runs where perfsuite is not active."""
    engine_test.engines("Offer('one')")
    engine_test.write("test_it.py", "def test_ordinary():\n    pass\n")

    assert engine_test.pytest("-p", "no:perfsuite.plugin").ret == 0


def test_fixtures_of_a_project_do_not_disturb(project: Any) -> None:
    """A project's own `engine`, `device` and `workload` leave perf_engine and its kin alone."""
    project.engines("Offer('one')")
    with (project.path / "conftest.py").open("a") as stream:
        stream.write("""
@pytest.fixture
def engine():
    return "a locomotive"

@pytest.fixture
def device():
    return "a telephone"

@pytest.fixture
def workload():
    return "laundry"
""")
    project.write(
        "test_it.py",
        f"""
import pytest

@pytest.mark.perf(workloads="{CASE}")
def test_user(perf, perf_engine, perf_workload, perf_device, engine, device, workload):
    assert (engine, device, workload) == ("a locomotive", "a telephone", "laundry")
    assert perf_device == "cpu"
    perf(perf_engine, perf_workload)
""",
    )

    assert project.perf(*QUIET).ret == 0
    assert _engines_that_ran(project) == {"one"}


def test_short_fixture_names_are_aliases(project: Any) -> None:
    """Where a project has none of its own, `engine`, `workload` and `device` are the perf ones."""
    project.engines("Offer('one')")
    project.write(
        "test_it.py",
        f"""
import pytest

@pytest.mark.perf(workloads="{CASE}")
def test_user(perf, engine, workload, device):
    assert device == "cpu"
    assert perf(engine, workload)["time_to_first_token/prefill_until_first_token"] > 0
""",
    )

    assert project.perf(*QUIET).ret == 0
    assert _engines_that_ran(project) == {"one"}


# A user's whole project: an engine that spins 50 ms to the first token and 5 ms to each further
# one, and writes down how long each really took.
_USERS_CONFTEST = """
import json
import os
import time
from pathlib import Path

import pytest

RECORD = Path(__file__).parent / "record"


class Spinner:
    config = {"spins": True}
    framework = ""
    name = "spinner"
    default = True

    def __init__(self):
        self.file = (RECORD / str(os.getpid())).open("a")

    def refuses(self, workload, device):
        return None if workload.kind == "single_user" else "one user only"

    def open(self, workload, device):
        return Spinner()

    def spin(self, kind, seconds):
        start = now = time.perf_counter()
        while now < start + seconds:
            now = time.perf_counter()
        print(json.dumps([kind, now - start]), file=self.file)
        return Step()

    def prefill(self, token_ids):
        return self.spin("prefill", 0.050)

    def decode(self, step):
        return self.spin("decode", 0.005)

    def wait(self, step):
        pass

    def close(self):
        self.file.close()


class Step:
    tokens = [1]


@pytest.hookimpl(optionalhook=True)
def pytest_perf_engines(config):
    RECORD.mkdir(exist_ok=True)
    return [Spinner.__new__(Spinner)]
"""


def test_every_figure_is_what_the_engine_recorded(project: Any) -> None:
    """Printed and stored figures agree with the engine's own record within 2 %.

    Compared with the record, so a busy machine that stretches a spin stretches both. A generation
    is medianed here exactly as there, each side for each process; 2 % leave room for what lies
    between two spins: a call, a line written, now and then a slice of another process. A token too
    many or too few in a denominator would be 3 % at least.
    """
    project.write("conftest.py", _USERS_CONFTEST)
    project.write("test_suite.py", "from perfsuite.suite import *\n")

    result = project.pytest(
        "--perf", "--perf-device=cpu", "--perf-budget=1.5", "--perf-processes=2",
        "--perf-save-force", "--perf-json=out.json", "-k", f"{CASE} and spinner",
    )  # fmt: skip

    assert result.ret == 0
    assert result.parseoutcomes()["passed"] == 1
    processes = [
        _figures_of_a_process(file) for file in sorted((project.path / "record").iterdir())
    ]
    assert len(processes) == 2
    (run,) = project.report["results"]
    (entry,) = project.baselines.values()
    for figure, recorded in _pooled(processes).items():
        row = next(row for row in run["rows"] if row["figure"] == figure)
        assert row["value"] == _about(recorded)
        assert median(entry["figures"][figure]["processes"]) == _about(recorded)
        assert _printed(result, row) == _about(recorded)


def _about(value: float) -> Any:
    return pytest.approx(value, rel=0.02)


def _figures_of_a_process(file: Any) -> dict[str, float]:
    """The medians of one process by figure, from its engine's record.

    One warm-up of two generations, then blocks: a generation that is timed as a whole, and one
    whose tokens are timed.
    """
    generations: list[list[float]] = []
    for kind, seconds in map(json.loads, file.read_text().splitlines()):
        if kind == "prefill":
            generations.append([])
        generations[-1].append(seconds)
    blocks = generations[2:]
    whole, stamped = blocks[0::2][: len(blocks) // 2], blocks[1::2]
    return {
        "time_to_first_token/prefill_until_first_token": median(g[0] for g in stamped),
        "time_per_output_token/excluding_first_token": median(sum(g[1:]) / 15 for g in stamped),
        "inter_token_latency/median_step": median(median(g[1:]) for g in stamped),
        "single_user_throughput/output_tokens": median(16 / sum(g) for g in whole),
        "single_user_throughput/prompt_and_output_tokens": median(32 / sum(g) for g in whole),
    }


def _pooled(processes: list[dict[str, float]]) -> dict[str, float]:
    return {figure: median(p[figure] for p in processes) for figure in processes[0]}


def _printed(result: Any, row: dict[str, Any]) -> float:
    """The value in the table, in the metric's own unit."""
    titles = {"time_to_first_token": "TTFT", "time_per_output_token": "TPOT",
              "inter_token_latency": "ITL",
              "single_user_throughput/output_tokens": "single-user out",
              "single_user_throughput/prompt_and_output_tokens": "single-user all"}  # fmt: skip
    name, _, _ = row["figure"].partition("/")
    title = titles.get(name) or titles[row["figure"]]
    line = next(line for line in result.outlines if line.startswith(f"  {title} "))
    number, unit = re.match(rf"  {title} +([\d.]+) (\S+)", line).groups()
    return float(number) * {"ms": 1e-3, "us": 1e-6, "s": 1.0, "tok/s": 1.0, "ktok/s": 1e3}[unit]
