"""What the processors are like at a moment: load, frequencies, temperatures, throttling.

Every reading is None or missing where this machine does not show it; none of them can fail a run.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psutil

_THROTTLED = "cpu[0-9]*/thermal_throttle/core_throttle_count"
_SYSTEM_CPUS = Path("/sys/devices/system/cpu")
_BUSY_STEPS = 1_500_000  # some 20 ms: longer than a governor takes to raise the frequency


def look() -> dict[str, Any]:
    """The readings of this moment, in built-in types; takes some 20 ms.

    load_average       runnable threads, the kernel's mean of the last minute
    cpu_mhz_lowest     over the processors; an idle one sleeps at any frequency
    cpu_mhz_highest    over the processors, one of which is busy: this one
    temperatures_c     the highest of each sensor chip, degrees Celsius
    cpu_throttles      how often the processors were throttled for heat since the machine started
    """
    lowest, highest = _cpu_mhz()
    return {
        "load_average": _load_average(),
        "cpu_mhz_lowest": lowest,
        "cpu_mhz_highest": highest,
        "temperatures_c": _temperatures(),
        "cpu_throttles": _throttles(),
    }


def asleep_s() -> float:
    """Seconds that this machine was suspended since it started, 0 where the kernel does not tell.

    CLOCK_BOOTTIME counts them and CLOCK_MONOTONIC does not (clock_gettime(2)).
    """
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


def _load_average() -> float | None:
    try:
        return round(float(psutil.getloadavg()[0]), 2)
    except (AttributeError, OSError):
        return None


def _cpu_mhz() -> tuple[float | None, float | None]:
    """(lowest, highest), read while one processor is busy, so that two moments are comparable."""
    sum(range(_BUSY_STEPS))
    try:
        found = [frequency.current for frequency in psutil.cpu_freq(percpu=True)]
    except (AttributeError, OSError, RuntimeError):  # as psutil says that there is none to read
        return None, None
    known = [round(mhz) for mhz in found if mhz]
    return (min(known), max(known)) if known else (None, None)


def _temperatures() -> dict[str, float]:
    try:
        chips = psutil.sensors_temperatures()
    except (AttributeError, OSError, RuntimeError):
        return {}
    return {name: max(sensor.current for sensor in chip) for name, chip in chips.items() if chip}


def _throttles() -> int | None:
    try:
        counts = [int(file.read_text()) for file in _SYSTEM_CPUS.glob(_THROTTLED)]
    except (OSError, ValueError):
        return None
    return sum(counts) if counts else None
