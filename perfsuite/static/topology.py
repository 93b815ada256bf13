"""The devices of a TPU slice without a TPU: libtpu compiles for what it is told.

Importing this file imports neither jax nor libtpu; `target` does.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from filelock import FileLock, Timeout

from perfsuite.baselines import lock_folder
from perfsuite.devices import Device, absence
from perfsuite.errors import EngineUnavailable
from perfsuite.static.slices import Slice, slice_named

_LOCK_S = 300.0  # under the longest silence that a worker may keep by default


@dataclass(frozen=True)
class Target:
    """What programs are made for: `devices` are jax's, in the order of the topology."""

    name: str
    devices: list[Any]
    slice: Slice


# Set before libtpu is loaded, unless the environment says otherwise: it asks no metadata server
# what machine this is, and its log stays out of the user's sight.
_QUIET = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
_WITHOUT_TPU = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "JAX_PLATFORMS": "cpu",  # else jax tries to start the TPU that is not there
}


def require_compiler() -> None:
    """EngineUnavailable where jax or libtpu is not installed; imports neither."""
    missing = [name for name in ("jax", "libtpu") if find_spec(name) is None]
    if missing:
        raise EngineUnavailable(
            f"{' and '.join(missing)} not installed, which compile for a TPU without one:"
            " pip install 'perfsuite[tpu]'"
        )


def toolchain() -> str:
    """`jax 0.10.2, jaxlib 0.10.2, libtpu 0.0.51`."""
    return ", ".join(f"{name} {_version(name)}" for name in ("jax", "jaxlib", "libtpu"))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def mismatch() -> str:
    """What jax's own packaging says of libtpu, for a message about one that does not work."""
    wanted = next(
        (r.partition(";")[0] for r in metadata.requires("jax") or () if r.startswith("libtpu")), ""
    )
    return f"installed: {toolchain()}" + (f"; this jax names {wanted.strip()}" if wanted else "")


@cache
def target(name: str) -> Target:
    """The devices of a slice by libtpu, ahead of time.

    Raises OptionError for an unknown slice, EngineUnavailable where the compiler is absent, does
    not work with this jax, or is held by another process beside an attached TPU.
    """
    of = slice_named(name)
    require_compiler()
    _prepare()
    options = {"chip_config_name": of.chip_config} if of.chip_config else {}
    try:
        from jax.experimental import topologies

        found = topologies.get_topology_desc(of.topology, "tpu", **options)
    except Exception as problem:  # noqa: BLE001 - whatever a library that does not fit raises
        raise EngineUnavailable(
            f"libtpu gives no {of.name} ({_first_line(problem)}); {mismatch()};"
            " remedy: pip install -U 'perfsuite[tpu]'"
        ) from None
    if len(found.devices) != of.devices:
        raise EngineUnavailable(
            f"libtpu gives {len(found.devices)} devices for {of.name}, expected {of.devices};"
            f" {mismatch()}"
        )
    return Target(of.name, list(found.devices), of)


def _prepare() -> None:
    attached = absence(Device("tpu")) is None
    for name, value in (_QUIET if attached else _QUIET | _WITHOUT_TPU).items():
        os.environ.setdefault(name, value)
    if "jax" in sys.modules:  # too late for the environment
        sys.modules["jax"].config.update("jax_platforms", os.environ.get("JAX_PLATFORMS"))
    if attached:
        _take_library()


_held: list[FileLock] = []


def _take_library() -> None:
    """Beside an attached TPU one process at a time may load libtpu; it keeps it to its end."""
    lock = FileLock(lock_folder() / "libtpu.lock")
    try:
        lock.acquire(timeout=_LOCK_S)
    except Timeout:
        raise EngineUnavailable(
            "another process of this user holds the TPU's compiler, and a machine with a TPU"
            " loads it once: run without -n, or after the other"
        ) from None
    _held.append(lock)


def _first_line(problem: Exception) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0][:160]
