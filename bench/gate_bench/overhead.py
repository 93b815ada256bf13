"""What the instrument itself costs: in the figure of a call, and beside every timed call."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from perfsuite.procedures import Call

from .workplace import run

MILLISECOND = 1e-3
_TEST = """
import os, time
from pathlib import Path

SPINS = Path(os.environ["SPINS"])

def test_millisecond(perf):
    spins = []
    def spin():
        start = time.perf_counter()
        while (now := time.perf_counter()) < start + 1e-3: pass
        spins.append(now - start)
    perf(spin)
    SPINS.with_name(f"{SPINS.name}-{os.getpid()}").write_text(repr(spins))
"""


def in_the_figure(folder: Path) -> float:
    """By which share `perf(callable)` says more than a spin of 1 ms really took.

    The spin records its own times; the printed value is the middle of the processes' medians, and
    so is what it is compared with.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("spins-*"):
        old.unlink()
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_spin.py").write_text(_TEST)
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--perf",
               "--perf-device=cpu", "--perf-save-force", "--perf-budget=5",
               "--perf-json=results.json")  # fmt: skip
    run(folder, command, expected=[0], SPINS=str(folder / "spins"))
    rows = json.loads((folder / "results.json").read_text())["results"][0]["rows"]
    value = next(row["value"] for row in rows if row["figure"].startswith("call_time"))
    processes = [median(_numbers(file)) for file in folder.glob("spins-*")]
    return float(value / median(processes) - 1)


def _numbers(file: Path) -> list[float]:
    return [float(text) for text in re.findall(r"[\d.e-]+", file.read_text())]


def of_a_call_s(spin_s: float, blocks: int = 200) -> float:
    """Seconds that a block adds to each of its calls, beyond a plain loop over the same calls.

    Block and loop take turns; from each, what the calls themselves took is subtracted. Everything
    of the block counts: the clock, the garbage collector's switch, the figures it returns.
    """
    spins: list[float] = []

    def spin() -> None:
        start = time.perf_counter()
        while (now := time.perf_counter()) < start + spin_s:
            pass
        spins.append(now - start)

    def beyond(work: Callable[[], object]) -> float:
        spins.clear()
        start = time.perf_counter()
        work()
        return time.perf_counter() - start - sum(spins)

    call = Call(spin, time.perf_counter)
    call.warm_up()
    count = call.facts()["calls_per_block"]

    def loop() -> None:
        for _ in range(count):
            spin()

    return median((beyond(call.block) - beyond(loop)) / count for _ in range(blocks))


def measured(folder: Path) -> dict[str, float]:
    """All of it: a share, and microseconds."""
    return {
        "figure": in_the_figure(folder),
        "call_1ms_us": 1e6 * of_a_call_s(MILLISECOND),
        "call_20ms_us": 1e6 * of_a_call_s(20 * MILLISECOND, blocks=50),
    }
