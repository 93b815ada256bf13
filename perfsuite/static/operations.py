"""Multiply-adds of matrix products in a compiled program, two operations each.

XLA for TPUs writes a product as a convolution, or, where it is thin, as a sum over a product of
vectors: a reduction that still carries the name of the `dot_general` it came from.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import cache

from perfsuite.static.hlo import Computation, Instruction, Module
from perfsuite.static.schedule import Step
from perfsuite.static.traffic import stated


def matrix_operations(module: Module, steps: tuple[Step, ...]) -> int:
    """Of one chip, all turns of loops together; of a kernel written by hand what it states."""
    return sum(
        step.times * sum(_operations(at, i) for at, i in _run(module, step)) for step in steps
    )


def _run(module: Module, step: Step) -> Iterator[tuple[Computation, Instruction]]:
    called = module.called(step.instruction) if _runs_inside(step.instruction) else None
    if called is None:
        yield step.at, step.instruction
    else:
        yield from _inside(module, called)


def _inside(module: Module, at: Computation) -> Iterator[tuple[Computation, Instruction]]:
    for instruction in at:
        called = module.called(instruction) if _runs_inside(instruction) else None
        if called is None:
            yield at, instruction
        else:
            yield from _inside(module, called)


def _runs_inside(instruction: Instruction) -> bool:
    return instruction.opcode in ("fusion", "async-start")


def _operations(at: Computation, instruction: Instruction) -> int:
    match instruction.opcode:
        case "convolution":
            return _convolution(at, instruction)
        case "dot":
            return 2 * instruction.array.elements * _contracted(at, instruction)
        case "reduce" if "dot_general" in instruction.origin:
            return 2 * at[instruction.operands[0]].array.elements
        case "custom-call":
            return stated(instruction, "flops") or 0
        case _:
            return 0


def _contracted(at: Computation, dot: Instruction) -> int:
    dims = at[dot.operands[0]].array.dims
    found = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", dot.attributes)
    return math.prod(dims[int(d)] for d in found[1].split(",") if d) if found else 1


def _convolution(at: Computation, instruction: Instruction) -> int:
    """2 x batch x features in x features out x the places where window and input really meet.

    As XLA's own cost analysis: places in the padding and between dilated values are none.
    """
    left, right = (at[name].array for name in instruction.operands[:2])
    result = instruction.array
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    if labels is None:
        return 0
    of_left, of_right, of_result = labels[1], labels[2], labels[3]
    places = 1
    window = _window(instruction.attributes)
    for number in (c for c in of_result if c.isdigit()):
        at_index = int(number)
        places *= _meetings(
            left.dims[of_left.index(number)],
            result.dims[of_result.index(number)],
            *(_entry(window, name, at_index, default) for name, default in _WINDOW),
        )
    features = right.dims[of_right.index("i")] * result.dims[of_result.index("f")]
    return 2 * result.dims[of_result.index("b")] * features * places


_WINDOW = (("size", "1"), ("stride", "1"), ("pad", "0_0"), ("lhs_dilate", "1"), ("rhs_dilate", "1"))


def _window(attributes: str) -> dict[str, list[str]]:
    found = re.search(r"window=\{([^}]*)\}", attributes)
    words = (word.partition("=") for word in (found[1].split() if found else ()))
    return {name: text.split("x") for name, _, text in words}


def _entry(window: dict[str, list[str]], name: str, index: int, default: str) -> str:
    listed = window.get(name, [])
    return listed[index] if index < len(listed) else default


@cache
def _meetings(
    length: int, results: int, size: str, stride: str, pad: str, dilated: str, apart: str
) -> int:
    """Pairs (place of the result, place of the window) that fall on a value of the input."""
    before, spread = int(pad.partition("_")[0]), int(dilated)
    last = (length - 1) * spread
    count = 0
    for place in range(results):
        start = place * int(stride) - before
        for step in range(int(size)):
            at = start + step * int(apart)
            count += 0 <= at <= last and at % spread == 0
    return count
