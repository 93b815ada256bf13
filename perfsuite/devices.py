"""Which device, is it there, and its identity card; found without importing any framework."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from perfsuite.errors import OptionError

_GPUS = Path("/proc/driver/nvidia/gpus")
_PCI = Path("/sys/bus/pci/devices")
_GOOGLE = "0x1ae0"
_TPUS = {"0x0027", "0x0056", "0x005e", "0x0062", "0x0063", "0x006f", "0x0076"}  # v2 and v3 to v7
_UUIDS = ("GPU-", "MIG-")
_SPEC = re.compile(r"(auto|cpu|cuda|tpu)(?::(\d+))?")


@dataclass(frozen=True)
class Device:
    """`kind` is cpu, cuda or tpu; `index` chooses one GPU. `name` is what frameworks call it."""

    kind: str
    index: int = 0

    @property
    def name(self) -> str:
        """`cpu`, `cuda:1`, `tpu`."""
        return f"cuda:{self.index}" if self.kind == "cuda" else self.kind


def parse_device(text: str) -> Device:
    """`auto`, `cpu`, `cuda`, `cuda:1` or `tpu`; auto takes the accelerator that is attached."""
    match = _SPEC.fullmatch(text.strip())
    if match is None or (match[2] and match[1] != "cuda"):
        raise OptionError(f"unknown device {text!r}; known: auto, cpu, cuda, cuda:N, tpu")
    kind = _attached() if match[1] == "auto" else match[1]
    return Device(kind, int(match[2] or 0))


def _attached() -> str:
    if gpu_models():
        return "cuda"
    return "tpu" if _tpu_chips() else "cpu"


def absence(device: Device) -> str | None:
    """Why nothing can be measured on this device here, or None."""
    if device.kind == "cuda" and device.index >= len(gpu_models()):
        return f"no GPU for {device.name}: this machine shows {len(gpu_models())}"
    if device.kind == "tpu" and not _tpu_chips():
        return "no TPU is attached to this machine"
    return None


@dataclass(frozen=True)
class _Card:
    """A GPU as the driver shows it; `address` is its PCI bus id or the UUID that chose it."""

    address: str
    model: str


def gpu_models() -> list[str]:
    """The model of each NVIDIA GPU that the driver shows and CUDA_VISIBLE_DEVICES leaves."""
    return [card.model for card in _visible_cards()]


def gpu_address(device: Device) -> str | None:
    """The PCI bus id or the UUID of this GPU, None where only CUDA knows which one it is.

    CUDA counts the fastest first unless CUDA_DEVICE_ORDER says PCI_BUS_ID: among equal models that
    is the order of the bus as well.
    """
    cards = _visible_cards()
    if device.index >= len(cards):
        return None
    address = cards[device.index].address
    by_uuid = address.startswith(_UUIDS)
    ordered = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    return address if by_uuid or ordered or len({card.model for card in _cards()}) == 1 else None


def _visible_cards() -> list[_Card]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return _cards()
    return _visible(_cards(), [word.strip() for word in visible.split(",")])


def _visible(cards: list[_Card], words: list[str]) -> list[_Card]:
    """The GPUs that these words leave, in their order; CUDA stops at the first it cannot use."""
    kept: list[_Card] = []
    for word in words:
        if word.startswith(_UUIDS) and len(kept) < len(cards):
            # which one has this UUID only the driver knows
            kept.append(replace(cards[len(kept)], address=word))
        elif word.isdecimal() and int(word) < len(cards):
            kept.append(cards[int(word)])
        else:
            break
    return kept


def _cards() -> list[_Card]:
    files = sorted(_GPUS.glob("*/information")) if _GPUS.is_dir() else []
    return [_Card(file.parent.name, _gpu_model(file)) for file in files]


def _gpu_model(file: Path) -> str:
    found = re.search(r"^Model:\s*(.+)$", file.read_text(), re.MULTILINE)
    return found[1].strip() if found else "NVIDIA GPU"


def _tpu_chips() -> int:
    """By PCI: the newer ones are driven through vfio and have no /dev/accel."""
    cards = list(_PCI.glob("*")) if _PCI.is_dir() else []
    found = [c for c in cards if _pci(c, "vendor") == _GOOGLE and _pci(c, "device") in _TPUS]
    return len(found) or len(list(Path("/dev").glob("accel[0-9]*")))


def _pci(card: Path, name: str) -> str:
    try:
        return (card / name).read_text().strip()
    except OSError:
        return ""


@cache
def machine_class(device: Device) -> str:
    """What must be equal for times to be comparable: model, visible count, architecture.

    No host name and no kernel version, so that a pool of equal runners shares one baseline.
    """
    if device.kind == "cuda":
        models = gpu_models() or ["no GPU"]
        words = [models[min(device.index, len(models) - 1)], f"{len(models)}x"]
    elif device.kind == "tpu":
        words = ["tpu", f"{_tpu_chips()}x"]
    else:
        words = [_cpu_model(), f"{visible_cpus()}x"]
    return slug("-".join([device.kind, *words, platform.machine()]))


def static_target(device: Device, slice_name: str = "") -> str:
    """The name under which compiled facts are kept: for this kind of device, or a TPU slice."""
    return f"tpu-{slice_name}" if slice_name else f"static-{device.kind}"


def visible_cpus() -> int:
    """Processors this process may use: its affinity, cut by the container's quota."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _cpu_quota()
    return max(1, min(affinity or 1, quota or affinity or 1))


def _cpu_quota() -> int | None:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else max(1, int(quota) // int(period))
    except (OSError, ValueError):
        return None


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or "unknown"
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else _arm_model(text) or platform.processor() or "unknown"


def _arm_model(cpuinfo: str) -> str:
    """`arm-0x41-0xd0c`: ARM's kernel names the maker and the part by number, and no model."""
    found = re.findall(r"^CPU (?:implementer|part)\s*:\s*(\w+)$", cpuinfo, re.MULTILINE)
    return "-".join(["arm", *found[:2]]) if found else ""


def last_level_cache_bytes() -> int:
    """Size of the largest processor cache the kernel names, 0 where it names none."""
    sizes = [0]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        match = re.fullmatch(r"(\d+)([KM])", path.read_text().strip())
        if match:
            sizes.append(int(match[1]) * (2**10 if match[2] == "K" else 2**20))
    return max(sizes)


def slug(text: str) -> str:
    """Lower case letters, digits, dots and single dashes: safe as a folder or file name."""
    words = re.sub(r"\((r|tm|c)\)|\bcpu\b(?!-)|@.*?(?=-|$)", "", text.lower())
    return re.sub(r"[^a-z0-9._]+", "-", words).strip("-.")
