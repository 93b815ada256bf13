"""Whose turn it is on this machine: measurements run alone, everything else runs beside.

Several pytest processes (pytest-xdist's, or several runs) share one machine. A test that measures
takes the machine for itself; an ordinary test shares it with other ordinary ones. A measurement on
a GPU has that GPU to itself and shares the processors, so each GPU has one owner and a measurement
on the processors excludes both. Waiting is not part of any time-out. The kernel releases the locks
of a process that dies.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from perfsuite.baselines import lock_folder
from perfsuite.devices import Device


@contextmanager
def measuring(device: Device) -> Iterator[None]:
    """The machine (CPU) or one accelerator, alone."""
    if device.kind == "cpu":
        with _lock("machine", fcntl.LOCK_EX):
            yield
    else:
        with _lock(device.name.replace(":", "-"), fcntl.LOCK_EX), _lock("machine", fcntl.LOCK_SH):
            yield


@contextmanager
def sharing() -> Iterator[None]:
    """The machine, together with other tests that measure nothing."""
    with _lock("machine", fcntl.LOCK_SH):
        yield


@contextmanager
def _lock(name: str, mode: int) -> Iterator[None]:
    handle = os.open(lock_folder() / f"{name}.turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, mode)
        yield
    finally:
        os.close(handle)
