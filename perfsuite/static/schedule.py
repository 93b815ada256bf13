"""What a compiled program runs, and how often: loops, calls and branches taken apart."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from perfsuite.static.hlo import Computation, Instruction, Module
from perfsuite.static.loops import turns


@dataclass(frozen=True)
class Step:
    """An instruction that the chip runs `times` times; `at` is the computation it stands in."""

    instruction: Instruction
    at: Computation
    times: int

    @property
    def operands(self) -> Iterator[Instruction]:
        """The instructions whose results it reads, each once."""
        return (self.at[name] for name in dict.fromkeys(self.instruction.operands))


@dataclass(frozen=True)
class Schedule:
    """All steps. `unknown` are the loops whose turns could not be told: they are counted once."""

    steps: tuple[Step, ...]
    unknown: tuple[str, ...]


def schedule(module: Module) -> Schedule:
    """The steps of a program. Of a conditional the longest branch counts."""
    unknown: list[str] = []
    return Schedule(tuple(_steps(module, module.entry, 1, unknown)), tuple(unknown))


def _steps(module: Module, at: Computation, times: int, unknown: list[str]) -> Iterator[Step]:
    for instruction in at:
        match instruction.opcode:
            case "while":
                count = turns(module, at, instruction)
                if count is None:
                    unknown.append(instruction.name)
                body = module.computations[instruction.attribute("body")]
                yield from _steps(module, body, times * (1 if count is None else count), unknown)
            case "call":
                called = module.computations[instruction.attribute("to_apply")]
                yield from _steps(module, called, times, unknown)
            case "conditional":
                yield from _steps(module, _longest(module, instruction), times, unknown)
            case _:
                yield Step(instruction, at, times)


def _longest(module: Module, conditional: Instruction) -> Computation:
    """The branch that gives the most bytes: which one is taken nobody knows beforehand."""
    listed = re.search(r"branch_computations=\{([^}]*)\}", conditional.attributes)
    names = re.findall(r"%([\w.\-]+)", listed[1]) if listed else []
    names = names or [conditional.attribute(f"{word}_computation") for word in ("true", "false")]
    return max(
        (module.computations[name] for name in names),
        key=lambda branch: sum(array.bytes for i in branch for array in i.arrays),
    )
