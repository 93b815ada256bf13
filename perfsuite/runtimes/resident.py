"""The resident set of this process, and its peak since it was reset (Linux).

VmHWM is the kernel's high-water mark of the resident set; writing 5 to clear_refs resets it to
the current size (proc(5)). ru_maxrss can not be reset and survives exec.
"""

from __future__ import annotations

import re
from pathlib import Path


def reset_peak() -> bool:
    """Start a new high-water mark; False where the kernel does not allow it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_bytes() -> int | None:
    """The high-water mark in bytes, None where the kernel keeps none."""
    return _bytes_of("VmHWM")


def size_bytes() -> int | None:
    """The resident set at this moment in bytes, None where the kernel does not tell."""
    return _bytes_of("VmRSS")


def _bytes_of(field: str) -> int | None:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    found = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else None
