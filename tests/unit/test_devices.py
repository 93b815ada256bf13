"""Devices: their names, whether they are there, and their class."""

from __future__ import annotations

from pathlib import Path

import pytest

from perfsuite import devices
from perfsuite.devices import (
    Device,
    absence,
    gpu_address,
    gpu_models,
    machine_class,
    parse_device,
    slug,
    static_target,
)
from perfsuite.errors import OptionError


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that shows three cards of two models."""
    for number, model in enumerate(("NVIDIA H200", "NVIDIA H200", "Tesla T4")):
        card = tmp_path / f"0000:0{number}:00.0"
        card.mkdir()
        (card / "information").write_text(f"Model: \t\t {model}\nIRQ: 1\n")
    monkeypatch.setattr(devices, "_GPUS", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    machine_class.cache_clear()


@pytest.mark.parametrize(
    ("text", "device", "name"),
    [
        ("cpu", Device("cpu"), "cpu"),
        (" cuda ", Device("cuda"), "cuda:0"),
        ("cuda:3", Device("cuda", 3), "cuda:3"),
        ("tpu", Device("tpu"), "tpu"),
    ],
)
def test_a_device_has_the_name_that_frameworks_use(text: str, device: Device, name: str) -> None:
    """Only GPUs are numbered."""
    assert parse_device(text) == device
    assert device.name == name


@pytest.mark.parametrize("text", ["", "gpu", "cpu:0", "tpu:1", "cuda:", "cuda:x", "cuda:-1"])
def test_an_unknown_device_is_refused(text: str) -> None:
    """With what is known."""
    with pytest.raises(OptionError, match="known: auto, cpu, cuda, cuda:N, tpu") as refused:
        parse_device(text)
    assert repr(text) in str(refused.value)


@pytest.mark.parametrize(
    ("visible", "models"),
    [
        (None, ["NVIDIA H200", "NVIDIA H200", "Tesla T4"]),
        ("", []),
        ("-1", []),
        ("2", ["Tesla T4"]),
        ("2, 0", ["Tesla T4", "NVIDIA H200"]),
        ("0,-1,1", ["NVIDIA H200"]),
        ("0,7,1", ["NVIDIA H200"]),
        ("GPU-8f2a,GPU-77aa", ["NVIDIA H200", "NVIDIA H200"]),
    ],
)
def test_the_environment_chooses_the_cards(
    cards: None, monkeypatch: pytest.MonkeyPatch, visible: str | None, models: list[str]
) -> None:
    """By number and order, up to the first that is none, as CUDA reads it."""
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_models() == models


@pytest.mark.parametrize(
    ("visible", "index", "address"),
    [
        (None, 1, "0000:01:00.0"),
        ("2,1", 0, "0000:02:00.0"),
        ("2,1", 1, "0000:01:00.0"),
        ("GPU-77aa,0", 0, "GPU-77aa"),
        ("GPU-77aa,0", 1, "0000:00:00.0"),
        ("MIG-1f", 0, "MIG-1f"),
        ("2", 1, None),
    ],
)
def test_a_visible_gpu_has_an_address(
    cards: None, monkeypatch: pytest.MonkeyPatch, visible: str | None, index: int, address: str
) -> None:
    """Its place on the bus, or the UUID that chose it: what the driver knows it by."""
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_address(Device("cuda", index)) == address


def test_among_different_models_only_cuda_knows_the_order(
    cards: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The fastest is its first; a UUID is a UUID, and equal models are in the bus's order."""
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    assert gpu_address(Device("cuda", 0)) is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-77aa")
    assert gpu_address(Device("cuda", 0)) == "GPU-77aa"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    (tmp_path / "0000:02:00.0" / "information").write_text("Model: NVIDIA H200\n")
    assert gpu_address(Device("cuda", 2)) == "0000:02:00.0"


def test_an_absent_device_is_named(cards: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many there are, where one of a higher number was asked for."""
    assert absence(Device("cuda", 2)) is None
    assert absence(Device("cuda", 3)) == "no GPU for cuda:3: this machine shows 3"
    monkeypatch.setattr(devices, "_tpu_chips", lambda: 0)
    assert absence(Device("tpu")) == "no TPU is attached to this machine"
    assert absence(Device("cpu")) is None


def test_a_machine_class_is_model_count_and_architecture(
    cards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chosen card's model; no host name and no kernel."""
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(devices, "_cpu_model", lambda: "Intel(R) Xeon(R) CPU @ 2.20GHz")
    monkeypatch.setattr(devices, "visible_cpus", lambda: 2)
    assert machine_class(Device("cuda", 0)) == "cuda-nvidia-h200-3x-x86_64"
    assert machine_class(Device("cuda", 2)) == "cuda-tesla-t4-3x-x86_64"
    assert machine_class(Device("cpu")) == "cpu-intel-xeon-2x-x86_64"
    machine_class.cache_clear()


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("processor\t: 0\nmodel name\t: AMD EPYC 7B12\n", "AMD EPYC 7B12"),
        ("CPU implementer\t: 0x41\nCPU variant\t: 0x3\nCPU part\t: 0xd0c\n" * 2, "arm-0x41-0xd0c"),
        ("nothing", "mystery"),
    ],
)
def test_a_processor_is_named_by_the_kernel(
    monkeypatch: pytest.MonkeyPatch, text: str, model: str
) -> None:
    """By its model; ARM's by maker and part, which tells one kind from another."""
    monkeypatch.setattr(Path, "read_text", lambda _: text)
    monkeypatch.setattr("platform.processor", lambda: "mystery")
    assert devices._cpu_model() == model


def test_compiled_facts_belong_to_a_kind_of_device() -> None:
    """Not to the machine that compiled them."""
    assert static_target(Device("cuda", 1)) == "static-cuda"
    assert static_target(Device("tpu"), "v5e-8") == "tpu-v5e-8"


def test_tpus_are_counted_on_the_bus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By maker and kind: the maker's network card is none, nor is a card that can not be read."""
    cards = (("0x1ae0", "0x0063"), ("0x1ae0", "0x0063"), ("0x1ae0", "0x0042"), ("0x10de", "0x0063"))
    for number, (vendor, device) in enumerate(cards):
        card = tmp_path / f"0000:0{number}:00.0"
        card.mkdir()
        (card / "vendor").write_text(f"{vendor}\n")
        (card / "device").write_text(f"{device}\n")
    (tmp_path / "0000:09:00.0").mkdir()
    monkeypatch.setattr(devices, "_PCI", tmp_path)
    assert devices._tpu_chips() == 2
    assert absence(Device("tpu")) is None


@pytest.mark.parametrize(
    ("quota", "cpus"), [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("", 8)]
)
def test_a_container_has_the_processors_of_its_quota(
    monkeypatch: pytest.MonkeyPatch, quota: str, cpus: int
) -> None:
    """Whole processors, one at least; without a quota those of the affinity."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(Path, "read_text", lambda _: quota)
    assert devices.visible_cpus() == cpus


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("AMD EPYC 7B12", "amd-epyc-7b12"),
        ("Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz", "intel-core-i7-9750h"),
        ("../../x y", "x-y"),
        ("...", ""),
        ("Tést", "t-st"),
    ],
)
def test_a_slug_is_safe_as_a_name(text: str, expected: str) -> None:
    """Lower case, no blanks, no path, no trademark, no clock rate."""
    assert slug(text) == expected


@pytest.mark.parametrize("text", ["AMD EPYC 7B12", "a@b-c", "x / y", "CPU", "cpu-foo-2x", "ä-ö"])
def test_a_slug_of_a_slug_is_the_same(text: str) -> None:
    """Names that are safe already stay."""
    assert slug(slug(text)) == slug(text)
