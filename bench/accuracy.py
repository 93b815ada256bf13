"""Is the number printed the number that was? A fake engine spins for known times and records what
they really were; every stored and printed figure is compared with that record.

    python bench/accuracy.py [RUNS]
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

CONFTEST = '''
import json, os, time
import pytest

class Step:
    def __init__(self, batch): self.tokens = [1] * batch

class Spinning:
    """First token after 50 ms, then 5 ms a token; appends what the spins really took."""
    config = {"engine": "spinning"}
    def __init__(self): self.log = open(os.environ["SPIN_LOG"] + str(os.getpid()), "a")
    def _spin(self, kind, seconds):
        start = time.perf_counter()
        while (now := time.perf_counter()) < start + seconds: pass
        self.log.write(json.dumps([kind, now - start]) + "\\n")
    def prefill(self, token_ids): self._spin("first", 0.05); return Step(len(token_ids))
    def decode(self, step): self._spin("token", 0.005); return Step(len(step.tokens))
    def wait(self, step): pass
    def close(self): self.log.close()

class Offer:
    name, framework = "spinning", ""
    def refuses(self, workload, device):
        return None if workload.kind == "single_user" else "only one user"
    def open(self, workload, device): return Spinning()

@pytest.hookimpl(optionalhook=True)
def pytest_perf_engines(): return [Offer()]
'''
WORKLOAD = "llm-smoke-llama3_8b-single_user-plain-b1-i64-u16"
PROMPT, OUTPUT = 64, 16
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "tok/s": 1.0, "ktok/s": 1e3}


def expected(folder: Path) -> dict[str, float]:
    """The figures that the recorded spins make, one median for each process, then over those."""
    processes = [_of_process(log) for log in sorted(folder.glob("spins*"))]
    return {name: statistics.median(p[name] for p in processes) for name in processes[0]}


def _of_process(log: Path) -> dict[str, float]:
    spins = [json.loads(line) for line in log.read_text().splitlines()]
    passes: list[list[float]] = []
    for kind, seconds in spins:
        if kind == "first":
            passes.append([])
        passes[-1].append(seconds)
    timed = [p for p in passes if len(p) == OUTPUT]
    # two passes warm up; then one with a single wait and one with a wait for each token, in turn;
    # the first process ends with one more for memory, which plain host code does not have
    whole, stamped = timed[2::2], timed[3::2]
    totals = [sum(p) for p in whole]
    return {
        "time_to_first_token": statistics.median(p[0] for p in stamped),
        "time_per_output_token": statistics.median(sum(p[1:]) / (OUTPUT - 1) for p in stamped),
        "inter_token_latency": statistics.median(statistics.median(p[1:]) for p in stamped),
        "single_user_throughput/output_tokens": statistics.median(OUTPUT / t for t in totals),
        "single_user_throughput/prompt_and_output_tokens": statistics.median(
            (PROMPT + OUTPUT) / t for t in totals
        ),
    }


def run(folder: Path) -> tuple[dict[str, float], str]:
    """One run of one workload: what was stored, and what was printed."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_it.py").write_text("from perfsuite.suite import *\n")
    command = [sys.executable, "-m", "pytest", "--perf", "--device=cpu", "--perf-save-force",
               "--perf-json=results.json", "-k", WORKLOAD, "--perf-budget=5"]  # fmt: skip
    environment = {"SPIN_LOG": str(folder / "spins"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    results = json.loads((folder / "results.json").read_text())["results"]
    return {row["figure"]: row["value"] for row in results[0]["rows"]}, done.stdout


def printed(text: str, value: float) -> bool:
    """Whether some number with a unit in the output is within 0.1 % of the value (4 digits)."""
    pairs = re.findall(r"([\d.]+) (s|ms|us|tok/s|ktok/s)\b", text)
    return any(abs(float(n) * SECONDS[u] / value - 1) < 1e-3 for n, u in pairs)


def main(runs: int) -> None:
    """Print the largest deviation of each figure over the runs."""
    worst: dict[str, float] = {}
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as name:
            stored, text = run(Path(name))
            for figure, truth in expected(Path(name)).items():
                value = next(v for f, v in stored.items() if f.startswith(figure))
                assert printed(text, value), f"{figure} {value} is not in the table"
                worst[figure] = max(worst.get(figure, 0.0), abs(value / truth - 1))
    for figure, deviation in worst.items():
        print(f"{figure:50} at most {deviation:.3%} off, {runs} runs")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
