"""What a compiled CUDA kernel takes, read from its cubin by the tools that Triton ships.

cuobjdump tells registers, stack and static shared memory, nvdisasm the instructions. Neither tells
spills: those are only in what ptxas says while it assembles. A spill needs a stack, so where a
kernel has none there is none, and ptxas is asked again only where it has one.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_USAGE = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")
_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)")
_SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")
_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Taken:
    """Registers and bytes of stack of a thread, bytes of static shared memory of a block.

    From sm_90 on the KiB that the driver reserves is counted in, where any shared memory is used.
    """

    registers: int
    stack: int
    shared: int
    instructions: int


@dataclass(frozen=True)
class Assembled:
    """What ptxas said: registers of a thread, and the bytes that its spills write and read."""

    registers: int
    spill_stores: int
    spill_loads: int


class UnreadableCubin(Exception):
    """A tool that failed, or said something that this file does not understand."""


def read(cubin: Path, cuobjdump: str, nvdisasm: str) -> Taken:
    """What the one kernel of a cubin takes; UnreadableCubin where a tool does not tell."""
    said = _output([cuobjdump, "--dump-resource-usage", str(cubin)])
    found = _USAGE.search(said)
    code = _INSTRUCTION.findall(_output([nvdisasm, "-c", str(cubin)]))
    if found is None or not code:
        raise UnreadableCubin(f"no resource usage or no code in {said.strip()[:200]!r}")
    registers, stack, shared, local = map(int, found.groups())
    # what fills the last bytes of a section is never run
    instructions = sum(name != "NOP" for name in code)
    return Taken(registers, stack + local, shared, instructions)


def assemble(ptx: Path, ptxas: Sequence[str]) -> Assembled:
    """What ptxas says of the spills of PTX; `ptxas` is the tool with its options."""
    out = str(ptx.with_suffix(".again"))
    said = _output([*ptxas, "-v", str(ptx), "-o", out])
    registers, spills = _REGISTERS.search(said), _SPILLS.findall(said)
    if registers is None or not spills:
        raise UnreadableCubin(f"ptxas -v says {said.strip()[:200]!r}")
    stores, loads = (sum(map(int, column)) for column in zip(*spills, strict=True))
    return Assembled(int(registers[1]), stores, loads)


def _output(command: list[str]) -> str:
    """What a tool prints, on either stream."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError) as problem:
        told = getattr(problem, "stderr", None) or str(problem)
        raise UnreadableCubin(f"{Path(command[0]).name}: {str(told).strip()[:300]}") from None
    return done.stdout + done.stderr
