"""The resident peak of this process, reset before the measured part (Linux).

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
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else None
