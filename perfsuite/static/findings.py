"""What a reader asks when a compiled figure moves: which array, which collective, from where.

Each finding is one short line under a name. They are kept beside the baseline, so that a failure
names those that changed. Arrays below a mebibyte are not worth a word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

from perfsuite.metrics import in_unit
from perfsuite.static.collectives import Exchange
from perfsuite.static.hlo import Array, Computation, Instruction, Module
from perfsuite.static.schedule import Schedule, Step, schedule
from perfsuite.static.traffic import Moved, stated, works_in_place

_LEAST = 2**20
_NAMES = ("tuple", "get-tuple-element", "bitcast", "parameter", "while", "conditional", "constant")


def of(
    module: Module, plan: Schedule, moved: Sequence[Moved], exchanged: Sequence[Exchange]
) -> dict[str, str]:
    """The findings of one program by name; what there is nothing to say of is left out."""
    found = {
        "argument copied": _not_donated(module),
        "argument widened": _widened(module, moved),
        "largest collective": _largest_collective(exchanged),
        "largest temporary": _largest_temporary(module, plan),
        "kernels": _kernels(plan),
        "loops of unknown turns": ", ".join(plan.unknown),
    }
    return {name: text for name, text in found.items() if text}


def _not_donated(module: Module) -> str:
    """Arguments that an output of the same shape and size could have taken over, and did not."""
    waiting = [a for n, a in enumerate(module.entry.root.arrays) if n not in module.aliased]
    taken = set(module.aliased.values())
    left: list[Instruction] = []
    for number, argument in sorted(module.entry.parameters.items()):
        array = argument.array
        match = next((a for a in waiting if (a.dtype, a.dims) == (array.dtype, array.dims)), None)
        if number not in taken and match is not None and array.bytes >= _LEAST:
            waiting.remove(match)
            left.append(argument)
    return _listed(left)


def _listed(arguments: Sequence[Instruction]) -> str:
    """`cache[0][0] bf16[96,4,2048,128] and 7 more, 1.611 GB`."""
    if not arguments:
        return ""
    more = f" and {len(arguments) - 1} more" if len(arguments) > 1 else ""
    total = _bytes(sum(argument.array.bytes for argument in arguments))
    return f"{arguments[0].origin} {arguments[0].array.text}{more}, {total}"


def _widened(module: Module, moved: Sequence[Moved]) -> str:
    """Arguments of 8 bits and fewer that were written to memory again in more bits."""
    found: dict[str, tuple[Instruction, Array]] = {}
    for step in (m.step for m in moved):
        for operand in step.operands:
            source = _source(step.at, operand)
            wide = next((a for a in step.instruction.arrays if _is_wider(a, operand)), None)
            if wide is not None and source.opcode == "parameter":
                found[source.name] = source, wide
    if not found:
        return ""
    source, wide = max(found.values(), key=lambda pair: pair[1].bytes)
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f"{source.origin} {source.array.text} to {wide.dtype}{more}, {_bytes(wide.bytes)}"


def _is_wider(result: Array, operand: Instruction) -> bool:
    narrow = operand.array
    return (
        result.is_in_hbm
        and 0 < narrow.item_bits <= 8 < result.item_bits
        and narrow.dtype != "pred"
        and result.elements == narrow.elements
        and result.bytes >= _LEAST
    )


def _largest_collective(exchanged: Sequence[Exchange]) -> str:
    if not exchanged:
        return ""
    most = max(exchanged, key=lambda e: e.bytes / max(e.times, 1))
    array = max(most.instruction.arrays, key=lambda a: a.bytes)
    size = _bytes(most.bytes // max(most.times, 1))
    return f"{most.kind} {array.text}{_from(most.instruction.origin)}, {size}"


def _largest_temporary(module: Module, plan: Schedule) -> str:
    made = _made(module, plan)
    if not made:
        return ""
    step, array = max(made, key=lambda pair: pair[1].bytes)
    return _described(step, array)


def largest_arrays(module: Module) -> str:
    """Of a program that does not fit: what its memory goes to beside the arguments."""
    made = _made(module, schedule(module))
    groups = [list(same) for _, same in groupby(sorted(made, key=_group), key=_group)]
    groups.sort(key=lambda same: -sum(array.bytes for _, array in same))
    texts = [
        _described(*same[0]) + (f" (made {len(same)} times)" if len(same) > 1 else "")
        for same in groups[:3]
    ]
    return "largest beside the arguments: " + "; ".join(texts) if texts else ""


def _group(made: tuple[Step, Array]) -> tuple[str, str]:
    return made[1].text, made[0].instruction.opcode


def _made(module: Module, plan: Schedule) -> list[tuple[Step, Array]]:
    """Arrays in HBM that the program makes, where they are not another's memory taken over."""
    taken_over = _into_arguments(module)
    return [
        (step, array)
        for step in plan.steps
        if step.instruction.opcode not in _NAMES and not step.instruction.opcode.endswith("-done")
        if step.instruction.name not in taken_over
        for number, array in enumerate(step.instruction.arrays)
        if array.is_in_hbm and array.bytes >= _LEAST
        and not works_in_place(module, step, number) and not _is_operand(step, number)
    ]  # fmt: skip


def _into_arguments(module: Module) -> set[str]:
    """The instructions that write an output straight into the argument that was donated for it."""
    outputs = module.entry.root.operands
    names = set()
    for number in module.aliased:
        found = module.entry[outputs[number]] if number < len(outputs) else module.entry.root
        while found.opcode in ("bitcast", "copy-done") and found.operands:
            found = module.entry[found.operands[0]]
        names.add(found.name)
    return names


def _is_operand(step: Step, number: int) -> bool:
    """Asynchronous starts repeat their operands: `copy-start` second, the others first."""
    code = step.instruction.opcode
    return code.endswith("-start") and number == (1 if code == "copy-start" else 0)


def _described(step: Step, array: Array) -> str:
    instruction = step.instruction
    origin = instruction.origin
    if instruction.opcode in ("copy", "copy-start") and instruction.operands:
        origin = _source(step.at, step.at[instruction.operands[0]]).origin or origin
    return f"{instruction.opcode} {array.text}{_from(origin)}, {_bytes(array.bytes)}"


def _source(at: Computation, instruction: Instruction) -> Instruction:
    """What an array is a copy or another name of."""
    found = instruction
    while found.opcode in ("bitcast", "copy", "copy-done", "copy-start") and found.operands:
        found = at[found.operands[0]]
    return found


def _kernels(plan: Schedule) -> str:
    """Kernels of somebody's own, whose traffic is taken from what they state, or else assumed."""
    found = [s for s in plan.steps if "tpu_custom_call" in s.instruction.attributes]
    silent = [s for s in found if stated(s.instruction, "bytes_accessed") is None]
    words = f"{sum(s.times for s in found)} runs"
    if silent:
        words += f", {sum(s.times for s in silent)} state no cost: all that they are given counts"
    return words if found else ""


def _from(origin: str) -> str:
    """Without the name of the jitted function, which is the same for all of a program."""
    short = re.sub(r"^jit\(\w+\)/", "", origin)
    return f" of {short}" if short else ""


def _bytes(count: int) -> str:
    return in_unit("bytes", count)
