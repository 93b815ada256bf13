"""Ctrl-C and kill: nothing is saved, no process stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

_PATIENCE_S = 60.0

# tox, or a shell for a job in the background, may hand down SIGINT as ignored. It is not mended
# between fork and exec: to fork is an error once a test in this process has started JAX.
_PYTEST = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("pytest", run_name="__main__", alter_sys=True)
"""

_TESTS = """
import os
from pathlib import Path
from spinning import spin

def test_quick(perf):
    perf(lambda: spin("quick"))

def test_endless(perf):
    here = Path(__file__).parent
    def call():
        (here / f"worker-{os.getpid()}").touch()
        spin("endless")
    perf(call)
"""


@pytest.fixture
def endless(project: Any) -> Any:
    """A project whose second test never ends."""
    project.write("test_it.py", _TESTS)
    project.seconds(endless=1e9)
    return project


def _until(happened: Any, what: str) -> Any:
    """Wait for something to become true; its value."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        if value := happened():
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen in {_PATIENCE_S:g} s")


class _Running:
    """A pytest process in the middle of an endless measurement."""

    def __init__(self, project: Any) -> None:
        self.log = (project.path / "log.txt").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PYTEST, *project.quick, "--perf-save"],
            cwd=project.path, start_new_session=True, stdout=self.log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        _until(lambda: list(project.path.glob("worker-*")), "the endless call")
        self.workers = psutil.Process(self.process.pid).children(recursive=True)
        assert len(self.workers) == 2

    def output(self) -> str:
        return Path(self.log.name).read_text()

    def workers_are_gone(self) -> bool:
        return not any(w.is_running() and w.status() != psutil.STATUS_ZOMBIE for w in self.workers)

    def end(self) -> None:
        for process in (psutil.Process(self.process.pid) if self.process.poll() is None else None,
                        *self.workers):  # fmt: skip
            if process is not None and process.is_running():
                process.kill()
        self.process.wait()
        self.log.close()


@pytest.fixture
def running(endless: Any) -> Iterator[_Running]:
    run = _Running(endless)
    yield run
    run.end()


def test_ctrl_c_saves_nothing_and_leaves_nobody(running: _Running, endless: Any) -> None:
    """SIGINT to the process group ends the run with exit 2, its workers, and saves nothing."""
    os.killpg(running.process.pid, signal.SIGINT)

    assert running.process.wait(_PATIENCE_S) == pytest.ExitCode.INTERRUPTED
    assert running.workers_are_gone()
    assert "nothing was saved: the run was interrupted" in running.output()
    assert endless.baselines == {}


def test_workers_do_not_outlive_a_killed_run(running: _Running, endless: Any) -> None:
    """When the pytest process is killed outright its workers end by themselves."""
    running.process.kill()
    running.process.wait(_PATIENCE_S)

    _until(running.workers_are_gone, "the end of the workers")
    assert endless.baselines == {}


def test_stopping_at_the_first_failure_ends_the_workers(endless: Any) -> None:
    """After -x the workers are gone and what passed before is saved."""
    endless.write("test_it.py", _TESTS.replace("perf(call)", "raise RuntimeError('planted')"))

    result = endless.perf("-x", "--perf-save")

    assert result.ret == 1
    assert set(endless.baselines) == {"test_quick | measured"}
    there = (p for p in psutil.process_iter(["cwd"]) if p.info["cwd"] == str(endless.path))
    assert [p.pid for p in there] == [os.getpid()]
