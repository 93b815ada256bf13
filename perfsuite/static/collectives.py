"""What the chips of a slice exchange: number and bytes of collectives by kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from perfsuite.static.hlo import Computation, Instruction, Module
from perfsuite.static.schedule import Step

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


@dataclass(frozen=True)
class Exchange:
    """A collective that runs `times` times; `bytes` of one chip, all its turns together.

    The bytes are those of its operands or of its results, whichever are more: what a chip ends
    up with of a gather, what it puts in of a scatter.
    """

    kind: str
    instruction: Instruction
    times: int
    bytes: int


def exchanges(module: Module, steps: tuple[Step, ...]) -> list[Exchange]:
    """Every collective once, asynchronous pairs too; those inside fusions by their own name."""
    return [found for step in steps for found in _of(module, step)]


def _of(module: Module, step: Step) -> Iterator[Exchange]:
    instruction = step.instruction
    called = module.called(instruction)
    if instruction.opcode in ("fusion", "async-start") and called is not None:
        for at, inner in _inside(module, called):
            yield _exchange(at, inner, step.times)
    elif _kind(step.at, instruction):
        yield _exchange(step.at, instruction, step.times)


def _inside(module: Module, at: Computation) -> Iterator[tuple[Computation, Instruction]]:
    for instruction in at:
        nested = module.called(instruction) if instruction.opcode == "fusion" else None
        if nested is not None:
            yield from _inside(module, nested)
        elif _kind(at, instruction):
            yield at, instruction


def _kind(at: Computation, instruction: Instruction) -> str:
    code = instruction.opcode.removesuffix("-start").replace("ragged-", "")
    # XLA for TPUs writes a reduce-scatter as a computation that reduces and takes its part
    if code == "all-reduce" and at.name.startswith("all-reduce-scatter"):
        return "reduce-scatter"
    return code if code in KINDS else ""


def _exchange(at: Computation, instruction: Instruction, times: int) -> Exchange:
    put = sum(a.bytes for name in dict.fromkeys(instruction.operands) for a in at[name].arrays)
    # a start repeats its operands beside its results: the larger of the two is the one array
    sizes = [array.bytes for array in instruction.arrays]
    got = max(sizes) if instruction.opcode.endswith("-start") else sum(sizes)
    return Exchange(_kind(at, instruction), instruction, times, max(put, got) * times)
