"""A worker whose turn it is not is stopped; what then happens to it or to its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from perfsuite.crew import Order, Worker
from perfsuite.errors import WorkerLost

TEST = """
def test_it(perf):
    perf(lambda: sum(range(1000)))
"""
ORDER = Order(nodeid="test_it.py::test_it", following=None, first=True, budget_s=0.1, timeout_s=60)
ARGUMENTS = ("--perf", "--perf-device=cpu", "-p", "no:cacheprovider", "test_it.py")

# Starts a worker, stops it in the middle of its test, says its pid, waits to be killed.
PARENT = f"""
import sys, time
from pathlib import Path
from perfsuite.crew import Order, Worker
worker = Worker({ARGUMENTS!r}, Path.cwd())
worker.wait_until_ready(60)
worker.begin({ORDER!r})
worker.until_ready()
worker.pause()
print(worker._process.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "test_it.py").write_text(TEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path


def wait_for(process: psutil.Process, status: str) -> None:
    """Signals take a moment; a process that is gone is past being a zombie."""
    deadline = time.monotonic() + 30
    while psutil.pid_exists(process.pid) and process.status() != status:
        assert time.monotonic() < deadline, f"{process} is not {status}"
        time.sleep(0.01)


def test_a_worker_killed_while_it_is_stopped_is_lost(folder: Path) -> None:
    """Said with the signal, where its answer is awaited; nothing hangs."""
    worker = Worker(ARGUMENTS, folder)
    try:
        worker.wait_until_ready(60)
        worker.begin(ORDER)
        assert worker.until_ready() == ""
        worker.pause()
        os.kill(worker._process.pid, signal.SIGKILL)
        worker.resume()
        with pytest.raises(WorkerLost, match="was killed by SIGKILL"):
            worker.block()
    finally:
        worker.kill()


def test_a_stopped_worker_goes_on_where_it_was(folder: Path) -> None:
    """Stopped and resumed between two blocks, it ends its test like any other."""
    worker = Worker(ARGUMENTS, folder)
    try:
        worker.wait_until_ready(60)
        run = worker.begin(ORDER)
        worker.until_ready()
        first = worker.block()
        worker.pause()
        wait_for(psutil.Process(worker._process.pid), psutil.STATUS_STOPPED)
        worker.resume()
        assert worker.block().keys() == first.keys()
        worker.stop()
        assert worker.until_ready() is None
        assert run.measured[""].once
        assert not run.void
    finally:
        worker.kill()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells of the death")
def test_a_stopped_worker_does_not_outlive_its_parent(folder: Path) -> None:
    """SIGKILL on the pytest process: a stopped worker can not see its pipe close, and is killed."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], cwd=folder, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    worker = psutil.Process(int(parent.stdout.readline()))
    wait_for(worker, psutil.STATUS_STOPPED)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_for(worker, psutil.STATUS_ZOMBIE)
