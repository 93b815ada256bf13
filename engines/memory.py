"""Does it fit: what a device has free, against what weights and caches need."""

from __future__ import annotations

import os


def require(device: str, *, weights: int, cache: int, what: str, mask: int = 0) -> None:
    """MemoryError with the arithmetic when these bytes do not fit; activations come on top."""
    free = free_bytes(device)
    if weights + cache + mask > free:
        parts = [f"{size / 1e9:.1f} GB of {name}" for name, size in
                 (("weights", weights), ("cache", cache), ("mask", mask)) if size]  # fmt: skip
        raise MemoryError(
            f"{what} needs {' and '.join(parts)}, {device} has {free / 1e9:.1f} GB free: "
            "choose a smaller batch or scale"
        )


def free_bytes(device: str) -> int:
    """Memory that can still be allocated on the device."""
    if device == "cpu":
        return available_host_bytes()
    import torch

    return int(torch.cuda.mem_get_info(torch.device(device))[0])


def available_host_bytes() -> int:
    """Linux counts the page cache as available, sysconf elsewhere knows the free pages only."""
    if os.path.exists("/proc/meminfo"):
        with open("/proc/meminfo") as lines:
            fields = dict(line.split(":", 1) for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
