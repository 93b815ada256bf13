"""The processors' state, with a psutil and a /sys that say what is planted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from perfsuite import machine_state


def refusing(problem: Exception) -> Callable[..., Any]:
    """A function that raises."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise problem

    return refuse


@pytest.fixture
def sensors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """A psutil of two processors and two chips, and an empty /sys."""
    fake = SimpleNamespace(
        getloadavg=lambda: (1.234, 9.0, 9.0),
        cpu_freq=lambda percpu: [SimpleNamespace(current=mhz) for mhz in (800.4, 3399.6)],
        sensors_temperatures=lambda: {
            "k10temp": [SimpleNamespace(current=60.0), SimpleNamespace(current=71.5)],
            "nothing": [],
        },
    )
    monkeypatch.setattr(machine_state, "psutil", fake)
    monkeypatch.setattr(machine_state, "_SYSTEM_CPUS", tmp_path)
    monkeypatch.setattr(machine_state, "_BUSY_STEPS", 0)
    return fake


def throttled(folder: Path, cpu: int, count: str) -> None:
    """Plant a kernel's counter."""
    file = folder / f"cpu{cpu}" / "thermal_throttle" / "core_throttle_count"
    file.parent.mkdir(parents=True)
    file.write_text(count)


def test_the_readings_of_a_moment(sensors: SimpleNamespace, tmp_path: Path) -> None:
    """The highest of each chip, the counts of all processors, in built-in types."""
    throttled(tmp_path, 0, "3\n")
    throttled(tmp_path, 11, "4\n")
    found = machine_state.look()
    assert found == {
        "load_average": 1.23,
        "cpu_mhz_lowest": 800,
        "cpu_mhz_highest": 3400,
        "temperatures_c": {"k10temp": 71.5},
        "cpu_throttles": 7,
    }
    assert json.loads(json.dumps(found)) == found


def test_what_the_machine_does_not_show_is_none(sensors: SimpleNamespace, tmp_path: Path) -> None:
    """As on a virtual machine: no frequency, no sensor, no counter."""
    sensors.getloadavg = refusing(OSError("none"))
    sensors.cpu_freq = lambda percpu: [SimpleNamespace(current=0.0)]
    sensors.sensors_temperatures = dict
    assert machine_state.look() == {
        "load_average": None,
        "cpu_mhz_lowest": None,
        "cpu_mhz_highest": None,
        "temperatures_c": {},
        "cpu_throttles": None,
    }


@pytest.mark.parametrize(
    "problem", [OSError("gone"), NotImplementedError("no file"), RuntimeError("no")]
)
def test_a_sensor_that_fails_fails_no_run(
    sensors: SimpleNamespace, tmp_path: Path, problem: Exception
) -> None:
    """Whatever psutil raises, and a counter that is no number."""
    sensors.cpu_freq = sensors.sensors_temperatures = refusing(problem)
    throttled(tmp_path, 0, "many")
    found = machine_state.look()
    assert (found["cpu_mhz_highest"], found["cpu_throttles"]) == (None, None)
    assert found["temperatures_c"] == {}


def test_a_platform_without_sensors_has_none(
    sensors: SimpleNamespace,
) -> None:
    """The functions themselves are missing there."""
    del sensors.cpu_freq, sensors.sensors_temperatures, sensors.getloadavg
    assert machine_state.look()["cpu_mhz_lowest"] is None


def test_a_suspended_machine_has_slept_between_two_clocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The clock that counts the sleep is ahead by it."""
    clocks = {machine_state.time.CLOCK_BOOTTIME: 1030.5, machine_state.time.CLOCK_MONOTONIC: 1000.0}
    monkeypatch.setattr("time.clock_gettime", clocks.__getitem__)
    assert machine_state.asleep_s() == 30.5
    monkeypatch.delattr("time.CLOCK_BOOTTIME")
    assert machine_state.asleep_s() == 0.0
