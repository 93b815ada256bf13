"""The toolchain of a measurement, and what else the machine did meanwhile."""

from __future__ import annotations

import math
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from perfsuite import gpu_state, machine_state
from perfsuite.devices import Device, visible_cpus

_PACKAGES = ("torch", "jax", "jaxlib", "libtpu", "triton", "numpy", "vllm")
OTHERS_LIMIT = 0.25  # share of all processors that other processes may use
STEAL_LIMIT = 0.05  # share of time that the hypervisor may take
FREQUENCY_LIMIT = 0.10  # share by which the processors' frequency may fall meanwhile
PACE_LIMIT = 0.04  # share that a probe of the machine may lose against the baseline's
_SUSPENDED_S = 0.1  # the two clocks that tell are read one after the other


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


def versions(toolchain: str) -> dict[str, str]:
    """`python 3.11.7, torch 2.13.0` by package."""
    split = (part.partition(" ") for part in toolchain.split(", "))
    return {package: version for package, _, version in split}


def changed(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """What two descriptions of one thing have otherwise, in words."""
    return [
        f"{name} {before.get(name, 'absent')} -> {now.get(name, 'absent')}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


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


@dataclass(frozen=True)
class _Moment:
    """The counters and the readings of one moment."""

    wall_s: float
    own_s: float
    busy_s: float
    steal_s: float
    asleep_s: float
    readings: dict[str, Any]

    @staticmethod
    def now(device: Device) -> _Moment:
        on_gpu = device.kind == "cuda"  # looked at first: its clocks fall as soon as it is idle
        gpu = {"gpu": gpu_state.look(device, _pids_of_this_run)} if on_gpu else {}
        readings = machine_state.look() | gpu
        own, (busy, steal) = _own_seconds(), _machine_seconds()
        asleep = machine_state.asleep_s()
        return _Moment(time.monotonic(), own, busy, steal, asleep, readings)


class Surroundings:
    """What the machine did beside the measurement, from here until its end is first asked for.

    The own share is this process, its children and their children; the rest of the machine's busy
    time is others'. Counters and sensors are read at the two ends, so it costs nothing meanwhile.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._start = _Moment.now(device)

    @cached_property
    def _end(self) -> _Moment:
        return _Moment.now(self._device)

    def disturbance(self) -> Disturbance | None:
        """What disturbed the measurement, None where nothing did."""
        start, end = self._start.readings, self._end.readings
        found = [
            self._taken_by_others(),
            _lower_frequency(start["cpu_mhz_highest"], end["cpu_mhz_highest"]),
            self._suspended(),
        ]
        if self._device.kind == "cuda":
            told = gpu_state.held_back(start["gpu"], end["gpu"], self._wall_s)
            found += [Disturbance(share, text) for share, text in told]
        disturbances = [disturbance for disturbance in found if disturbance]
        return together(disturbances) if disturbances else None

    def state(self) -> dict[str, Any]:
        """Built-in types: the readings of both ends, and what happened between them."""
        foreign, stolen = self._shares()
        return {
            "start": self._start.readings,
            "end": self._end.readings,
            "meanwhile": {
                "seconds": round(self._wall_s, 3),
                "others_share": round(foreign, 4),
                "steal_share": round(stolen, 4),
                "suspended_s": round(self._suspended_s(), 3),
            },
        }

    @property
    def _wall_s(self) -> float:
        return self._end.wall_s - self._start.wall_s

    def _shares(self) -> tuple[float, float]:
        """(others', the hypervisor's) share of the processors' time."""
        start, end = self._start, self._end
        if self._wall_s < 0.2:  # the kernel counts in ticks of 10 ms: shorter spans say nothing
            return 0.0, 0.0
        capacity = self._wall_s * visible_cpus()
        others = (end.busy_s - start.busy_s) - (end.own_s - start.own_s)
        return _share(others / capacity), _share((end.steal_s - start.steal_s) / capacity)

    def _taken_by_others(self) -> Disturbance | None:
        foreign, stolen = self._shares()
        if stolen <= STEAL_LIMIT and foreign <= OTHERS_LIMIT:
            return None
        clauses = []
        if stolen > STEAL_LIMIT:
            clauses.append(f"the hypervisor took {stolen:.0%} of the processors' time")
        if foreign > OTHERS_LIMIT:
            clauses.append(f"other processes used {foreign:.0%} of it" if clauses else
                           f"other processes used {foreign:.0%} of the processors")  # fmt: skip
        return Disturbance(min(stolen + foreign, 1.0), ", ".join(clauses))

    def _suspended_s(self) -> float:
        return max(self._end.asleep_s - self._start.asleep_s, 0.0)

    def _suspended(self) -> Disturbance | None:
        seconds = self._suspended_s()
        if seconds <= _SUSPENDED_S:
            return None
        return Disturbance(1.0, f"the machine was suspended for {seconds:.1f} s")


def _share(part: float) -> float:
    return min(max(part, 0.0), 1.0)


def _lower_frequency(start_mhz: float | None, end_mhz: float | None) -> Disturbance | None:
    """A fall between two moments that each kept one processor busy: heat, power or others."""
    loss = 1 - end_mhz / start_mhz if start_mhz and end_mhz else 0.0
    if loss <= FREQUENCY_LIMIT:
        return None
    text = f"the processors' frequency fell by {loss:.0%}, from {start_mhz} to {end_mhz} MHz"
    return Disturbance(loss, text)


def _own_seconds() -> float:
    total = 0.0
    for process in _family(psutil.Process()):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
        total += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return total


def _pids_of_this_run() -> set[int]:
    """Those of the process and its workers; under pytest-xdist all of the run's: they take turns.

    An idle worker keeps its place on the GPU, so being there does not disturb.
    """
    me = psutil.Process()
    first = me.parent() if "PYTEST_XDIST_WORKER" in os.environ else me
    return {process.pid for process in _family(first or me)}


def _family(first: psutil.Process) -> list[psutil.Process]:
    return [first, *first.children(recursive=True)]


def _machine_seconds() -> tuple[float, float]:
    times = psutil.cpu_times()
    busy = times.user + times.system + getattr(times, "nice", 0.0)
    return busy, getattr(times, "steal", 0.0)
