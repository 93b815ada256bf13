"""A history of 1,000,000 results in 5,000 files: a trend, an append, memory; kills while writing.

Each run has 40 workloads with 5 figures. A trend is the command's whole process, imports included.

    python bench/history.py [FILES] [KILLS]
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from perfsuite.history import index, store
from perfsuite.history.place import Place
from perfsuite.history.revision import Revision

WORKLOADS = [f"llm-smoke-llama3_8b-single_user-plain-b{n}-i128-u16" for n in range(1, 41)]
METRICS = ("time_to_first_token/prefill_until_first_token", "call_time/per_call",
           "call_throughput/tokens_per_call", "peak_memory/allocator",
           "benchmark_time/per_iteration")  # fmt: skip
CONFIG = json.dumps({"dtype": "bfloat16", "cache": "paged", "attention": "flash", "layers": 2})
DRAWN = random.Random(7)
BEGIN = datetime(2024, 1, 1, tzinfo=UTC)

APPENDER = """
import sys
from bench.history import run_of
from perfsuite.history import store
from perfsuite.history.place import Place
store.append(Place(sys.argv[1]), run_of(0))
print("ready", flush=True)
while True:
    store.append(Place(sys.argv[1]), run_of(1))
"""


def run_of(number: int) -> store.Run:
    """A run of 200 results, with five processes each."""
    time_ = BEGIN + timedelta(hours=number)
    revision = Revision(f"{number:012x}", time_ - timedelta(minutes=9), "main")
    rows = [_row(workload, metric) for workload in WORKLOADS for metric in METRICS]
    return store.Run(rows, revision, time=time_)


def _row(workload: str, metric: str) -> dict[str, object]:
    processes = [0.01 * DRAWN.lognormvariate(0, 0.01) for _ in range(5)]
    value = statistics.median(processes)
    return {
        "machine": "cpu-model-2x-x86_64", "suite": "tests/perf/test_documents.py",
        "workload": workload, "engine": "torch_llama", "scale": "smoke", "tier": "measured",
        "metric": metric, "part": "", "unit": "s", "value": value, "low": value * 0.99,
        "high": value * 1.01, "processes": processes, "samples": 40, "verdict": "SAME",
        "ratio": value / 0.01, "baseline": 0.01, "ceiling": 0.1, "void": False, "disturbance": "",
        "toolchain": "python 3.11.7, torch 2.13.0, numpy 2.4.6", "config": CONFIG,
        "test": f"tests/perf/test_documents.py::test_llm[{workload}]",
    }  # fmt: skip


def _seconds(*arguments: str) -> tuple[float, float]:
    """Of a process: how long it took, and its resident peak in MB."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, f"{arguments} ended with {status}"
    return time.perf_counter() - start, usage.ru_maxrss / 1e3


def measure(folder: Path, files: int) -> None:
    """Fill a history, then time what people wait for."""
    place = Place(str(folder))
    appended = []
    for number in range(files):
        run = run_of(number)
        start = time.perf_counter()
        store.append(place, run)
        appended.append(time.perf_counter() - start)
    size = sum(file.stat().st_size for file in folder.glob("*.parquet")) / 1e6
    middle, *_, tail = sorted(appended)[files // 2 : files * 99 // 100 + 1]
    print(f"{files} files, {files * 200} results, {size:.0f} MB")
    print(f"appending one run: median {middle:.3f} s, p99 {tail:.3f} s, most {max(appended):.3f} s")
    command = ("-m", "perfsuite", "history", str(folder))
    for what, more in (
        ("first index, with a trend", (WORKLOADS[7],)),
        ("a trend", (WORKLOADS[7],)),
        ("a trend of one figure", (WORKLOADS[7], f"--metric={METRICS[1]}")),
        ("the table of workloads", ()),
    ):
        print("{}: {:.2f} s, {:.0f} MB resident at most".format(what, *_seconds(*command, *more)))
    store.append(place, run_of(files))
    print("a trend after one more run: {:.2f} s, {:.0f} MB".format(
        *_seconds(*command, WORKLOADS[7])))  # fmt: skip
    everything = f"import perfsuite; print(len(perfsuite.load_history({str(folder)!r})))"
    print("load_history of everything: {:.2f} s, {:.0f} MB".format(*_seconds("-c", everything)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"this process, which appended: {peak:.0f} MB")


def kill(folder: Path, kills: int) -> None:
    """Kill a process that appends without pause; read the history after each kill."""
    place = Place(str(folder))
    seen = 0
    for _ in range(kills):
        process = subprocess.Popen(
            [sys.executable, "-c", APPENDER, str(folder)], stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[1],
        )  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(random.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        rows, skipped = index.read(place, columns=["run"])
        assert not skipped, skipped
        assert len(rows) % 200 == 0, f"half a run: {len(rows)} rows"
        assert len(rows) // 200 > seen, "a run is lost"
        seen = len(rows) // 200
    left = len(list(folder.glob(".*.tmp")))
    print(f"{kills} kills: {seen} whole runs, 0 halves, {left} temporary files left unread")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        measure(Path(name) / "runs", int(sys.argv[1]) if len(sys.argv) > 1 else 5000)
        kill(Path(name) / "killed", int(sys.argv[2]) if len(sys.argv) > 2 else 200)
