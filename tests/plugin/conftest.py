"""Small projects whose tests spin known times, and `pytest --perf` run on them from outside.

A busy machine must change no outcome: two milliseconds of spinning may take six there. Planted
losses are therefore hundredfold and limits sixfold, a measured time is compared with what was spun
from below only, and whatever is waited for has generous bounds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

# Waiting without sleeping, which would overshoot; how long is read from a file, so that a test
# plants a loss by writing it.
_SPINNING = """
import json
import time
from pathlib import Path

SECONDS = json.loads(Path(__file__).with_name("seconds.json").read_text())


def spin(name):
    end = time.perf_counter() + SECONDS.get(name, 0.002)
    while time.perf_counter() < end:
        pass
"""

# A shared machine is always disturbed a little; tests of what a disturbance does say so themselves.
_CALM = """
import perfsuite.environment
perfsuite.environment.OTHERS_LIMIT = perfsuite.environment.STEAL_LIMIT = 100.0
perfsuite.environment.PACE_LIMIT = perfsuite.environment.FREQUENCY_LIMIT = 100.0
"""

# An engine without a framework: the newest tokens are a list, a step takes as long as is planted.
_FAKE = """
from spinning import spin


class Step:
    def __init__(self, batch):
        self.tokens = [1] * batch


class Engine:
    config = {"kind": "fake"}

    def prefill(self, token_ids):
        spin("prefill")
        return Step(len(token_ids))

    def decode(self, step):
        spin("decode")
        return Step(len(step.tokens))

    def wait(self, step):
        pass

    def close(self):
        pass


class Offer:
    framework = ""
    engine = Engine

    def __init__(self, name, **changes):
        self.name = name
        vars(self).update(changes)

    def refuses(self, workload, device):
        return None if workload.kind == "single_user" else "one user is all it fakes"

    def open(self, workload, device):
        return self.engine()
"""

TWO_TESTS = """
from spinning import spin

def test_one(perf):
    perf(lambda: spin("one"))

def test_two(perf):
    perf(lambda: spin("two"))
"""

# The documents' suite cut down to one workload of the four metrics' single user.
ENGINE_TEST = """
import pytest

@pytest.mark.perf(workloads="llm-smoke-llama2_13b-single_user-plain-b1-i16-u16")
def test_user(perf, perf_engine, perf_workload):
    perf(perf_engine, perf_workload)
"""


class Project:
    """A project in a folder of its own, and what its runs gave."""

    # Sessions are known to be equal: what another might explain would excuse even a planted loss
    # where two processes are all that a busy machine gave.
    quick = ("--perf", "--perf-device=cpu", "--perf-budget=0.2", "--perf-processes=2",
             "--perf-limit=time:500%", "--perf-limit=throughput:500%",
             "--perf-drift=0%")  # fmt: skip

    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester, self.path = pytester, pytester.path
        self.write("spinning.py", _SPINNING)
        self.write("fake.py", _FAKE)
        self.seconds()
        self.conftest("")

    def write(self, name: str, text: str) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.lstrip("\n"))
        return path

    def conftest(self, text: str) -> None:
        self.write("conftest.py", _CALM + text)

    def engines(self, offers: str) -> None:
        """A conftest that hands over these offers, written as the elements of a list."""
        self.conftest(f"""
import pytest
from fake import Engine, Offer, Step

@pytest.hookimpl(optionalhook=True)
def pytest_perf_engines(config):
    return [{offers}]
""")

    def seconds(self, **spins: float) -> None:
        """How long `spin(name)` takes from now on; 2 ms where nothing is said."""
        self.write("seconds.json", json.dumps(spins))

    def slow_down(self, name: str) -> None:
        """Plant a hundredfold loss."""
        self.seconds(**{name: 0.2})

    def pytest(self, *arguments: str) -> pytest.RunResult:
        return self._pytester.runpytest_subprocess(*arguments, timeout=180)

    def perf(self, *arguments: str) -> pytest.RunResult:
        """A short run under --perf; its results are kept for `verdicts` and `results`."""
        (self.path / "out.json").unlink(missing_ok=True)
        return self.pytest(*self.quick, "--perf-json=out.json", *arguments)

    def exact(self, *arguments: str) -> pytest.RunResult:
        """One look in one process, for figures that are exact: no time is asked for."""
        return self.pytest(
            "--perf", "--perf-device=cpu", "--perf-budget=0.1", "--perf-processes=1",
            "--perf-limit=time:99900%", "--perf-limit=throughput:99900%", "--perf-json=out.json",
            *arguments,
        )  # fmt: skip

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """Of the last run's one test, by figure."""
        (result,) = self.report["results"]
        return {row["figure"]: row for row in result["rows"]}

    @property
    def report(self) -> dict[str, Any]:
        return json.loads((self.path / "out.json").read_text())

    @property
    def results(self) -> dict[str, dict[str, Any]]:
        """The last run's results by the name of their test."""
        return {r["nodeid"].partition("::")[2]: r for r in self.report["results"]}

    @property
    def verdicts(self) -> dict[str, str]:
        """The verdict of each test's first row: of its time, or of its contract."""
        return {name: result["rows"][0]["verdict"] for name, result in self.results.items()}

    @property
    def baselines(self) -> dict[str, Any]:
        """The entries of every baseline file by key."""
        files = (self.path / "baselines").glob("*/*.json")
        documents = [json.loads(file.read_text()) for file in files]
        return {key: entry for d in documents for key, entry in d["entries"].items()}


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    # Locks of its own: the pytest process that runs these tests may hold the machine's.
    locks = pytester.path / "locks"
    locks.mkdir()
    monkeypatch.setenv("TMPDIR", str(locks))
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID"):
        monkeypatch.delenv(name, raising=False)
    return Project(pytester)


@pytest.fixture
def two_tests(project: Project) -> Project:
    """A project with two measured tests of 2 ms and no baseline."""
    project.write("test_it.py", TWO_TESTS)
    return project


@pytest.fixture
def engine_test(project: Project) -> Project:
    """A project with one workload and no engine."""
    project.write("test_it.py", ENGINE_TEST)
    return project
