"""The toolchain of a measurement, and what else the machine did meanwhile."""

from __future__ import annotations

import math
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil

from perfsuite.devices import visible_cpus

_PACKAGES = ("torch", "jax", "jaxlib", "triton", "numpy", "vllm")
OTHERS_LIMIT = 0.25  # share of all processors that other processes may use
STEAL_LIMIT = 0.05  # share of time that the hypervisor may take
PACE_LIMIT = 0.04  # share that a probe of the machine may lose against the baseline's


def toolchain() -> str:
    """`python 3.11.7, torch 2.13.0, numpy 2.4.6`: what is installed of what decides speed."""
    parts = [f"python {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            version = metadata.version(package).partition("+")[0]  # not where it was built
            parts.append(f"{package} {version}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(parts)


def commit(folder: Path) -> str:
    """The commit of a checkout with `+changes` when it is dirty, empty without git."""
    try:
        head = _git(folder, "rev-parse", "--short=12", "HEAD")
        return head + ("+changes" if _git(folder, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()


@dataclass(frozen=True)
class Disturbance:
    """What disturbed a measurement; `share` of the processors' time was not ours to have."""

    share: float
    text: str

    def slowed(self, ratio: float) -> float:
        """The ratio that would be left had all of the share been taken from the measurement."""
        return ratio * (1 - self.share)


def together(disturbances: Sequence[Disturbance]) -> Disturbance:
    """Several disturbances of one measurement: each took its share of what the others left."""
    left = math.prod(1 - disturbance.share for disturbance in disturbances)
    return Disturbance(1 - left, "; ".join(disturbance.text for disturbance in disturbances))


class Surroundings:
    """What other processes used between `start` and `disturbance`.

    The own share is this process, its children and their children; the rest of the machine's busy
    time is others'. Measured from the kernel's counters, so it costs nothing meanwhile.
    """

    def __init__(self) -> None:
        self._own_start = _own_seconds()
        self._busy_start, self._steal_start = _machine_seconds()
        self._wall_start = time.monotonic()

    def disturbance(self) -> Disturbance | None:
        """What disturbed the measurement since the start, None where nothing did."""
        wall = time.monotonic() - self._wall_start
        if wall < 0.2:  # the kernel counts in ticks of 10 ms: shorter spans say nothing
            return None
        busy, steal = _machine_seconds()
        capacity = wall * visible_cpus()
        others = (busy - self._busy_start) - (_own_seconds() - self._own_start)
        stolen = min((steal - self._steal_start) / capacity, 1.0)
        foreign = min(max(others, 0.0) / capacity, 1.0)
        if stolen <= STEAL_LIMIT and foreign <= OTHERS_LIMIT:
            return None
        clauses = []
        if stolen > STEAL_LIMIT:
            clauses.append(f"the hypervisor took {stolen:.0%} of the processors' time")
        if foreign > OTHERS_LIMIT:
            clauses.append(f"other processes used {foreign:.0%} of it" if clauses else
                           f"other processes used {foreign:.0%} of the processors")  # fmt: skip
        return Disturbance(min(stolen + foreign, 1.0), ", ".join(clauses))


def _own_seconds() -> float:
    me = psutil.Process(os.getpid())
    total = 0.0
    for process in [me, *me.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
        total += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return total


def _machine_seconds() -> tuple[float, float]:
    times = psutil.cpu_times()
    busy = times.user + times.system + getattr(times, "nice", 0.0)
    return busy, getattr(times, "steal", 0.0)
