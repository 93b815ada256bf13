"""How many warps of a kernel fit on one multiprocessor (SM) of an architecture at a time. Pure.

The limits of an SM are those of NVIDIA's CUDA C++ Programming Guide, "Technical Specifications per
Compute Capability", for 8.0, 9.0 and 10.0; the 512 columns of tensor memory are the PTX ISA's. The
arithmetic is that of cuda_occupancy.h of the CUDA toolkit, on whose results a test insists:

    registers      those of a warp are given out in units of 256, and a warp lives in one of four
                   partitions, which has a quarter of the registers:
                       4 * floor(65536 / 4 / (256 * ceil(32 * registers a thread / 256))) warps
    shared memory  that of a block plus 1 KiB of the driver's, in units of 128 bytes
    warps, blocks  64 and 32
    tensor memory  512 columns; from 10.0 on

The smallest of them decides. It is a bound: a grid that is too small, or a cluster of blocks, keeps
fewer at work. Named barriers are not counted: an SM has two of them for each of its 32 blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

_WARP = 32  # threads
_BLOCK_WARPS = 1024 // _WARP
_PARTITIONS = 4
_REGISTERS = 65_536  # of an SM
_REGISTER_UNIT = 256
_SHARED_UNIT = 128
RESERVED = 1024  # bytes of shared memory of each block that the driver takes


@dataclass(frozen=True)
class Multiprocessor:
    """What the blocks on one SM share; shared memory in bytes, without a block's reserved part."""

    shared: int
    shared_of_block: int
    tensor_columns: int = 0
    warps: int = 64
    blocks: int = 32


@dataclass(frozen=True)
class Demand:
    """What a kernel asks for: registers of a thread, all else of a block."""

    warps: int
    registers: int
    shared: int
    tensor_columns: int = 0


MULTIPROCESSORS = {
    80: Multiprocessor(164 * 1024, 163 * 1024),
    90: Multiprocessor(228 * 1024, 227 * 1024),
    100: Multiprocessor(228 * 1024, 227 * 1024, tensor_columns=512),
}


def blocks(kernel: Demand, sm: Multiprocessor) -> dict[str, int]:
    """The blocks that fit at a time by each limit; the smallest is the bound, 0 is no block."""
    found = {
        "warps": sm.warps // kernel.warps if kernel.warps <= _BLOCK_WARPS else 0,
        "blocks": sm.blocks,
        "registers": _by_registers(kernel),
        "shared memory": _by_shared_memory(kernel, sm),
    }
    if kernel.tensor_columns:
        found["tensor memory"] = sm.tensor_columns // kernel.tensor_columns
    return found


def _by_registers(kernel: Demand) -> int:
    of_warp = _rounded_up(kernel.registers * _WARP, _REGISTER_UNIT)
    return _PARTITIONS * (_REGISTERS // _PARTITIONS // of_warp) // kernel.warps


def _by_shared_memory(kernel: Demand, sm: Multiprocessor) -> int:
    if kernel.shared > sm.shared_of_block:
        return 0
    return sm.shared // _rounded_up(kernel.shared + RESERVED, _SHARED_UNIT)


def _rounded_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
