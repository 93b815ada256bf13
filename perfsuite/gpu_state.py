"""What the driver says about one GPU at a moment, through NVML (nvidia-ml-py).

No reading can fail a run: what the driver, a missing permission or a MIG slice withholds is named
under `not_readable` with the driver's words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from typing import Any

import psutil

from perfsuite.devices import Device, gpu_address

Readings = dict[str, Any]

# The reasons for which a clock is below its maximum (nvml.h, nvmlClocksEventReasons).
_REASONS = {
    0x001: "idle",
    0x002: "application clocks",
    0x004: "software power cap",
    0x008: "hardware slowdown",
    0x010: "sync boost",
    0x020: "software thermal slowdown",
    0x040: "hardware thermal slowdown",
    0x080: "power brake",
    0x100: "display clocks",
}

# Those that a cool card in a sound machine never has. The software power cap is not among them:
# a card under full load runs at its limit, in the baseline too.
SLOWDOWNS = frozenset(
    {"hardware slowdown", "software thermal slowdown", "hardware thermal slowdown", "power brake"}
)

_HOT_LIMIT = 0.01  # share of the time that a card may be held back for heat

# name -> how to read it of (pynvml, handle); units are in the names
_READINGS: dict[str, Callable[[Any, Any], Any]] = {
    "sm_mhz": lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM),
    "sm_mhz_most": lambda nvml, gpu: nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_SM),
    "memory_mhz": lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM),
    "power_w": lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1e3,
    "power_limit_w": lambda nvml, gpu: nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1e3,
    "temperature_c": lambda nvml, gpu: nvml.nvmlDeviceGetTemperature(
        gpu, nvml.NVML_TEMPERATURE_GPU
    ),
    "utilisation_percent": lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
    "clock_reasons": lambda nvml, gpu: _reasons(
        nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu)
    ),
    "thermal_throttle_s": lambda nvml, gpu: _throttled_s(nvml, gpu, nvml.NVML_PERF_POLICY_THERMAL),
    "power_throttle_s": lambda nvml, gpu: _throttled_s(nvml, gpu, nvml.NVML_PERF_POLICY_POWER),
    "processes": lambda nvml, gpu: sorted(
        process.pid for process in nvml.nvmlDeviceGetComputeRunningProcesses(gpu)
    ),
}


def look(device: Device, ours: Callable[[], Set[int]]) -> Readings:
    """The readings of this moment, in built-in types; `ours` gives the pids that are this run's.

    clock_reasons       why a clock is below its maximum
    *_throttle_s        seconds that the card was held back for heat or power since the driver
                        was loaded: what grew between two looks happened between them
    other_processes     pids that compute on the card and are not this run's
    unknown_processes   how many compute on it that this container cannot see: its own may be
                        among them, since the driver counts processes outside of containers
    not_readable        {reading: why}
    """
    try:
        import pynvml
    except ImportError:
        return _nothing("nvidia-ml-py is not installed: pip install 'perfsuite[cuda]'")
    try:
        with _initialised(pynvml):
            return _told_apart(_read(pynvml, device), ours())
    except _problems(pynvml) as problem:
        return _nothing(str(problem))


def _problems(nvml: Any) -> tuple[type[Exception], ...]:
    return nvml.NVMLError, nvml.NVMLLibraryMismatchError  # the driver's no, and an old driver


def held_back(start: Readings, end: Readings, wall_s: float) -> list[tuple[float, str]]:
    """(share of the time that it may have taken, what it was) of whatever disturbed the GPU.

    Where nobody knows for how long, the share is all of it.
    """
    found = []
    pids = _either(start, end, "other_processes")
    if pids:
        found.append((1.0, f"other processes use the GPU: pid {', '.join(map(str, pids))}"))
    reasons = [reason for reason in _either(start, end, "clock_reasons") if reason in SLOWDOWNS]
    if reasons:
        found.append((1.0, f"the GPU was throttled: {', '.join(reasons)}"))
    hot_s = end.get("thermal_throttle_s", 0.0) - start.get("thermal_throttle_s", math.inf)
    if hot_s > _HOT_LIMIT * wall_s:
        hot = min(hot_s / wall_s, 1.0)
        found.append((hot, f"the GPU was throttled for heat in {hot:.0%} of the time"))
    return found


def _either(start: Readings, end: Readings, name: str) -> list[Any]:
    """What a list held at the start or at the end, each once."""
    return list(dict.fromkeys([*start.get(name, []), *end.get(name, [])]))


def _nothing(why: str) -> Readings:
    return {"not_readable": {"gpu": why}}


@contextmanager
def _initialised(nvml: Any) -> Iterator[None]:
    nvml.nvmlInit()
    try:
        yield
    finally:
        nvml.nvmlShutdown()


def _read(nvml: Any, device: Device) -> Readings:
    address = gpu_address(device)
    if address is None:
        return _nothing(
            f"only CUDA knows which GPU {device.name} is among different models;"
            " CUDA_DEVICE_ORDER=PCI_BUS_ID would tell"
        )
    gpu = _handle(nvml, address)
    readings: Readings = {}
    refused: dict[str, str] = {}
    for name, read in _READINGS.items():
        try:
            readings[name] = read(nvml, gpu)
        except _problems(nvml) as problem:
            refused[name] = str(problem)
    return readings | {"not_readable": refused}


def _handle(nvml: Any, address: str) -> Any:
    """The handle of a bus id or UUID; CUDA also takes the first digits of a GPU's UUID."""
    if address.startswith("GPU-"):
        for index in range(nvml.nvmlDeviceGetCount()):
            gpu = nvml.nvmlDeviceGetHandleByIndex(index)
            if nvml.nvmlDeviceGetUUID(gpu).startswith(address):
                return gpu
    if address.startswith(("GPU-", "MIG-")):
        return nvml.nvmlDeviceGetHandleByUUID(address)
    return nvml.nvmlDeviceGetHandleByPciBusId(address)


def _reasons(bits: int) -> list[str]:
    return [name for bit, name in _REASONS.items() if bits & bit]


def _throttled_s(nvml: Any, gpu: Any, policy: int) -> float:
    """NVML counts nanoseconds (nvmlViolationTime_t)."""
    return float(nvml.nvmlDeviceGetViolationStatus(gpu, policy).violationTime) / 1e9


def _told_apart(readings: Readings, ours: Set[int]) -> Readings:
    """The readings with the processes that are not this run's in place of all."""
    found = readings.pop("processes", None)
    if found is None:
        return readings
    others = [pid for pid in found if pid not in ours]
    seen = [pid for pid in others if psutil.pid_exists(pid)]
    return readings | {
        "other_processes": seen,
        "unknown_processes": len(others) - len(seen),
    }
