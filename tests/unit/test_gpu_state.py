"""A GPU's state through a driver whose answers are planted: no GPU is needed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from perfsuite import gpu_state
from perfsuite.devices import Device

OURS = {10, 11}
GPU = Device("cuda", 0)


class NVMLError(Exception):
    """The driver's no."""


class NVMLLibraryMismatchError(Exception):
    """An old driver's, which is no NVMLError."""


class FakeDriver:
    """pynvml with two cards; `card` holds the answers, an exception among them is raised."""

    NVMLError, NVMLLibraryMismatchError = NVMLError, NVMLLibraryMismatchError
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0
    NVML_PERF_POLICY_POWER, NVML_PERF_POLICY_THERMAL = 0, 1
    uuids = ("GPU-1111-aaaa", "GPU-2222-bbbb")

    def __init__(self) -> None:
        self.open, self.asked = 0, list[str]()
        self.card: dict[str, Any] = {
            "ClockInfo": {1: 1755, 2: 2619},
            "MaxClockInfo": {1: 1980},
            "PowerUsage": 312_500,
            "EnforcedPowerLimit": 700_000,
            "Temperature": {0: 54},
            "UtilizationRates": SimpleNamespace(gpu=97, memory=40),
            "CurrentClocksThrottleReasons": 0x1,
            "ViolationStatus": {0: self.violated(2.5), 1: self.violated(0.0)},
            "ComputeRunningProcesses": [SimpleNamespace(pid=11)],
        }

    @staticmethod
    def violated(seconds: float) -> Any:
        return SimpleNamespace(violationTime=int(seconds * 1e9), referenceTime=0)

    def nvmlInit(self) -> None:  # noqa: N802 - the driver's names
        if "init" in self.card:
            raise self.card["init"]
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.uuids)

    def nvmlDeviceGetUUID(self, gpu: str) -> str:  # noqa: N802
        return gpu

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return self.uuids[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid.startswith("GPU-"):
            raise NVMLError("Not Found")
        return uuid

    def nvmlDeviceGetHandleByPciBusId(self, address: str) -> str:  # noqa: N802
        return address

    def __getattr__(self, name: str) -> Callable[..., Any]:
        answer = self.card[name.removeprefix("nvmlDeviceGet")]

        def ask(gpu: str, *which: int) -> Any:
            self.asked.append(gpu)
            if isinstance(answer, Exception):
                raise answer
            return answer[which[0]] if which else answer

        return ask


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    """A driver of two cards; the device is the first by its bus id."""
    fake = FakeDriver()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(gpu_state, "gpu_address", lambda device: "0000:01:00.0")
    monkeypatch.setattr(gpu_state.psutil, "pid_exists", lambda pid: pid < 1000)
    return fake


def look() -> dict[str, Any]:
    return gpu_state.look(GPU, lambda: OURS)


def test_the_readings_of_a_moment(driver: FakeDriver) -> None:
    """MHz, watts, degrees, seconds and names; the driver is left as it was found."""
    found = look()
    assert found == {
        "sm_mhz": 1755,
        "sm_mhz_most": 1980,
        "memory_mhz": 2619,
        "power_w": 312.5,
        "power_limit_w": 700.0,
        "temperature_c": 54,
        "utilisation_percent": 97,
        "clock_reasons": ["idle"],
        "thermal_throttle_s": 0.0,
        "power_throttle_s": 2.5,
        "other_processes": [],
        "unknown_processes": 0,
        "not_readable": {},
    }
    assert json.loads(json.dumps(found)) == found
    assert driver.open == 0


def test_a_quiet_gpu_is_not_disturbed(driver: FakeDriver) -> None:
    """Our own workers, an idle clock and the card's own power limit are as they should be."""
    start = look()
    driver.card["CurrentClocksThrottleReasons"] = 0x4
    driver.card["ViolationStatus"] = {0: driver.violated(9.0), 1: driver.violated(0.0)}
    assert gpu_state.held_back(start, look(), wall_s=10.0) == []


@pytest.mark.parametrize("at", ["start", "end"])
def test_another_process_on_the_gpu_is_named(driver: FakeDriver, at: str) -> None:
    """Nobody knows how much it takes: it may explain every loss."""
    quiet = look()
    driver.card["ComputeRunningProcesses"] = [SimpleNamespace(pid=pid) for pid in (11, 77, 42)]
    used = look()
    assert used["other_processes"] == [42, 77]
    ends = (used, quiet) if at == "start" else (quiet, used)
    assert gpu_state.held_back(*ends, wall_s=1.0) == [
        (1.0, "other processes use the GPU: pid 42, 77")
    ]


def test_processes_outside_of_a_container_are_counted_only(driver: FakeDriver) -> None:
    """The driver tells the host's numbers, so they may be our own."""
    driver.card["ComputeRunningProcesses"] = [SimpleNamespace(pid=4711)]
    found = look()
    assert (found["other_processes"], found["unknown_processes"]) == ([], 1)
    assert gpu_state.held_back(found, found, wall_s=1.0) == []


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        (0x08, "hardware slowdown"),
        (0x20 | 0x01, "software thermal slowdown"),
        (0x40 | 0x04, "hardware thermal slowdown"),
        (0x80, "power brake"),
        (0x48, "hardware slowdown, hardware thermal slowdown"),
    ],
)
def test_a_throttled_gpu_says_why(driver: FakeDriver, bits: int, words: str) -> None:
    """Heat and hardware; a bit that nobody knows is no reason."""
    start = look()
    driver.card["CurrentClocksThrottleReasons"] = bits | 0x8000_0000
    assert gpu_state.held_back(start, look(), wall_s=1.0) == [
        (1.0, f"the GPU was throttled: {words}")
    ]


def test_heat_between_the_two_looks_shows_by_its_counter(driver: FakeDriver) -> None:
    """3 of 12 seconds; half of a hundredth is nothing."""
    start = look()
    driver.card["ViolationStatus"] = {0: driver.violated(0.0), 1: driver.violated(3.0)}
    assert gpu_state.held_back(start, look(), wall_s=12.0) == [
        (0.25, "the GPU was throttled for heat in 25% of the time")
    ]
    assert gpu_state.held_back(start, look(), wall_s=600.0) == []


@pytest.mark.parametrize("problem", [NVMLError("Not Supported"), NVMLLibraryMismatchError("old")])
def test_what_the_driver_withholds_is_named(driver: FakeDriver, problem: Exception) -> None:
    """As on a MIG slice: the other readings are there, and nothing fails."""
    for name in ("ClockInfo", "ViolationStatus", "ComputeRunningProcesses"):
        driver.card[name] = problem
    found = look()
    refused = {"sm_mhz", "memory_mhz", "thermal_throttle_s", "power_throttle_s", "processes"}
    assert found["not_readable"] == dict.fromkeys(refused, str(problem))
    assert found["power_w"] == 312.5
    assert "other_processes" not in found
    assert gpu_state.held_back(found, found, wall_s=1.0) == []


def test_a_driver_that_is_not_there_is_named(driver: FakeDriver) -> None:
    """And fails no run."""
    driver.card["init"] = NVMLError("Driver Not Loaded")
    found = look()
    assert found == {"not_readable": {"gpu": "Driver Not Loaded"}}
    assert gpu_state.held_back(found, found, wall_s=1.0) == []


def test_a_missing_library_is_named(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the extra that brings it."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert look() == {
        "not_readable": {"gpu": "nvidia-ml-py is not installed: pip install 'perfsuite[cuda]'"}
    }


@pytest.mark.parametrize(
    ("address", "handle"),
    [
        ("0000:41:00.0", "0000:41:00.0"),
        ("GPU-2222-bbbb", "GPU-2222-bbbb"),
        ("GPU-22", "GPU-2222-bbbb"),
        ("MIG-3333", "MIG-3333"),
    ],
)
def test_the_card_is_the_one_that_cuda_shows(
    driver: FakeDriver, monkeypatch: pytest.MonkeyPatch, address: str, handle: str
) -> None:
    """By bus id, by UUID or the first digits of one, as CUDA takes them."""
    monkeypatch.setattr(gpu_state, "gpu_address", lambda device: address)
    look()
    assert set(driver.asked) == {handle}


def test_a_card_that_nobody_has_is_named(
    driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver's own words."""
    monkeypatch.setattr(gpu_state, "gpu_address", lambda device: "GPU-9")
    assert look() == {"not_readable": {"gpu": "Not Found"}}
    assert driver.open == 0


def test_a_card_that_only_cuda_can_tell_is_not_guessed(
    driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what would make it known."""
    monkeypatch.setattr(gpu_state, "gpu_address", lambda device: None)
    found = look()
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in found["not_readable"]["gpu"]
    assert driver.asked == []


def test_the_real_library_has_every_name_that_is_asked_for() -> None:
    """What a fake driver can not show."""
    nvml = pytest.importorskip("pynvml", reason="needs nvidia-ml-py")
    names = [name for name in dir(FakeDriver) if name.startswith(("nvml", "NVML_"))]
    names += [f"nvmlDeviceGet{name}" for name in FakeDriver().card]
    assert [name for name in names if not hasattr(nvml, name)] == []
    assert issubclass(nvml.NVMLError, Exception)
    assert {
        "idle": nvml.nvmlClocksEventReasonGpuIdle,
        "software power cap": nvml.nvmlClocksEventReasonSwPowerCap,
        "hardware slowdown": nvml.nvmlClocksEventReasonHwSlowdown,
        "software thermal slowdown": nvml.nvmlClocksEventReasonSwThermalSlowdown,
        "hardware thermal slowdown": nvml.nvmlClocksEventReasonHwThermalSlowdown,
        "power brake": nvml.nvmlClocksEventReasonHwPowerBrakeSlowdown,
    }.items() <= {name: bit for bit, name in gpu_state._REASONS.items()}.items()
