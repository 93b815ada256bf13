"""TPU slices by name: how libtpu calls them and what a chip of theirs has. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from perfsuite.errors import OptionError


@dataclass(frozen=True)
class Chip:
    """What one chip has: `hbm` bytes as libtpu allows them, bytes/s of its memory, operations/s.

    peak is that of bfloat16 products.
    """

    hbm: float
    bandwidth: float
    peak: float


@dataclass(frozen=True)
class Slice:
    """A slice by the name of the documents, and how libtpu calls it."""

    name: str
    topology: str
    devices: int
    chip: Chip
    chip_config: str = ""


# Bandwidth and peak: cloud.google.com/tpu/docs, the tables "System architecture" of v4 (32 GiB,
# 1200 GBps, 275 TFLOPs), v5e (16 GB, 819 GBps, 197 TFLOPs), v5p (95 GB, 2765 GBps, 459 TFLOPs) and
# v6e (32 GB, 1640 GBps, 918 TFLOPs). The usable HBM is what libtpu 0.0.51 says when a program does
# not fit; the rest is reserved.
_GIB = 2.0**30
_V4 = Chip(30.75 * _GIB, 1200e9, 275e12)
_V5E = Chip(15.75 * _GIB, 819e9, 197e12)
_V5P = Chip(95.73 * _GIB, 2765e9, 459e12)
_V6E = Chip(31.24 * _GIB, 1640e9, 918e12)

# v4 and v5p count cores in their names, two a chip; a v4 chip is one device only as "megacore".
SLICES = {
    found.name: found
    for found in (
        Slice("v4-8", "v4:2x2x1", 4, _V4, chip_config="megacore"),
        Slice("v5e-1", "v5e:1x1", 1, _V5E),
        Slice("v5e-8", "v5e:2x4", 8, _V5E),
        Slice("v5p-8", "v5p:2x2x1", 4, _V5P),
        Slice("v6e-8", "v6e:2x4", 8, _V6E),
    )
}


def slice_named(name: str) -> Slice:
    """The slice of that name; OptionError with the known ones."""
    found = SLICES.get(name.strip())
    if found is None:
        raise OptionError(f"unknown TPU slice {name!r}; known: {', '.join(SLICES)}")
    return found


def slice_of(hardware: str) -> str:
    """`v5e-8` of a document's "TPU v5e-8"; empty where it names no slice that is known here."""
    found = re.fullmatch(r"TPU (\S+)", hardware.strip())
    return found[1] if found and found[1] in SLICES else ""
