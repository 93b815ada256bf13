"""Bytes that a compiled program reads from and writes to the HBM of one chip.

The accounting is derived and checked in docs/tpu.md. In short, for each instruction that runs:

- what lies in on-chip memory moves nothing;
- operands are read once and results written once, at the size they take with their padding;
- of a slice, a gather or a dynamic slice only what is taken is read, inside a fusion too;
- an update in place writes the update; what a fusion passes on untouched moves nothing;
- of an asynchronous pair the start counts;
- a kernel written by hand counts what it states, else everything that it is given and gives.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from perfsuite.static.hlo import Array, Computation, Instruction, Module, leaves
from perfsuite.static.schedule import Step

# They name, split or join memory; asynchronous work was counted where it started.
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id",
    "replica-id", "optimization-barrier", "add-dependency", "domain",
}  # fmt: skip
_FREE_CALLS = ("AllocateBuffer", "ConcatBitcast", "AssumeGatherIndicesInBound", "Sharding")
_SLICES = ("slice", "dynamic-slice", "gather")
_UPDATES = {"dynamic-update-slice": 1, "scatter": 2}  # which operand is the update
# What a fusion computes only where it is asked for: through these a slice reaches further.
_ON_DEMAND = ("bitcast", "reshape", "convert", "copy", "transpose", "reduce-precision")


@dataclass(frozen=True)
class Moved:
    """The bytes of one instruction, all its turns together."""

    step: Step
    read: int
    written: int

    @property
    def bytes(self) -> int:
        """Both ways."""
        return self.read + self.written


def moves(module: Module, steps: tuple[Step, ...]) -> list[Moved]:
    """What each step moves; steps that move nothing are left out."""
    found = (_moved(module, step) for step in steps)
    return [moved for moved in found if moved.bytes]


def _moved(module: Module, step: Step) -> Moved:
    read, written = _once(module, step)
    return Moved(step, read * step.times, written * step.times)


def _once(module: Module, step: Step) -> tuple[int, int]:
    instruction = step.instruction
    code = instruction.opcode
    if code in _FREE or code.endswith(("-done", "-update")) or _is_free_call(instruction):
        return 0, 0
    if code == "copy-start" and _is_prefetched(step):
        return 0, 0
    called = module.called(instruction)
    if code in ("fusion", "async-start") and called is not None:
        return _fusion(module, step, called)
    if code in _UPDATES:
        return _update(step)
    if code in _SLICES or code == "slice-start":
        return _slice(step)
    if code.endswith("-start"):
        return _start(step)
    if code == "custom-call":
        return _custom(step)
    return _read(step), sum(_hbm(array) for array in instruction.arrays)


def _is_free_call(instruction: Instruction) -> bool:
    target = re.search(r'custom_call_target="([^"]*)"', instruction.attributes)
    return target is not None and target[1] in _FREE_CALLS


def _is_prefetched(step: Step) -> bool:
    """Whether the end of the run before has brought this argument on the chip already.

    XLA writes that copy twice, at the start (which only a first run makes) and at the end.
    """
    if "cross_program_prefetch_index" not in step.instruction.attributes:
        return False
    copies = [u for u in step.at.users[step.instruction.operands[0]] if u.opcode == "copy-start"]
    return len(copies) > 1


def _hbm(array: Array) -> int:
    return array.bytes if array.is_in_hbm else 0


def _read(step: Step) -> int:
    return sum(_hbm(array) for operand in step.operands for array in operand.arrays)


def _update(step: Step) -> tuple[int, int]:
    """In place: XLA copies beforehand, in an instruction of its own, what must not change."""
    instruction = step.instruction
    update = step.at[instruction.operands[_UPDATES[instruction.opcode]]].array
    whole = step.at[instruction.operands[0]]
    others = (o for o in step.operands if o is not whole)
    read = sum(_hbm(array) for operand in others for array in operand.arrays)
    return read, update.content_bytes if instruction.array.is_in_hbm else 0


def _slice(step: Step) -> tuple[int, int]:
    """What is taken is read; the indices are read whole."""
    whole, *indices = list(step.operands)
    arrays = step.instruction.arrays
    taken = arrays[1] if step.instruction.opcode == "slice-start" else arrays[0]
    read = taken.content_bytes if whole.array.is_in_hbm else 0
    return read + sum(_hbm(a) for i in indices for a in i.arrays), _hbm(taken)


def _start(step: Step) -> tuple[int, int]:
    """`copy-start` gives (copy, original, flag), a collective (operands, results, flags)."""
    instruction = step.instruction
    shape = instruction.shape
    if isinstance(shape, Array):
        return _read(step), _hbm(shape)
    result = shape[0] if instruction.opcode == "copy-start" else shape[1]
    return _read(step), sum(map(_hbm, leaves(result)))


def _custom(step: Step) -> tuple[int, int]:
    """A kernel of somebody's own: what it states, else all operands and all new results.

    An array that it updates in place is then taken as read: nobody can tell how much of it is.
    """
    said = stated(step.instruction, "bytes_accessed")
    if said is not None:
        return said, 0
    aliased = aliased_operands(step.instruction)
    new = (array for n, array in enumerate(step.instruction.arrays) if n not in aliased)
    return _read(step), sum(map(_hbm, new))


def stated(kernel: Instruction, what: str) -> int | None:
    """`flops` or `bytes_accessed` of a kernel's cost estimate, None where its author gave none."""
    found = re.search(rf'"cost_estimate":{{[^}}]*"{what}":"(\d+)"', kernel.attributes)
    return int(found[1]) if found else None


def aliased_operands(kernel: Instruction) -> dict[int, int]:
    """Result -> operand of a custom call that works in place."""
    found = re.search(r"output_to_operand_aliasing=\{(.*?\)\})", kernel.attributes)
    pairs = re.findall(r"\{(\d*)\}: \((\d+)", found[1]) if found else []
    return {int(result or 0): int(operand) for result, operand in pairs}


def works_in_place(module: Module, step: Step, number: int) -> bool:
    """Whether a result of a step takes over the memory of one of its operands."""
    instruction = step.instruction
    if instruction.opcode in _UPDATES:
        return True
    if instruction.opcode == "custom-call":
        return number in aliased_operands(instruction)
    called = module.called(instruction)
    if instruction.opcode != "fusion" or called is None:
        return False
    given = list(_outputs(instruction, called))
    if number >= len(given):  # a nested tuple: what becomes of its parts is not followed
        return False
    name, array = given[number]
    return _written(module, called, name, array) < array.bytes


def _fusion(module: Module, step: Step, called: Computation) -> tuple[int, int]:
    read = 0
    seen: set[str] = set()
    for number, name in enumerate(step.instruction.operands):
        operand = step.at[name]
        if operand.array.is_in_hbm and name not in seen and number in called.parameters:
            seen.add(name)
            full = sum(_hbm(array) for array in operand.arrays)
            whole = _Whole(full, operand.array.item_bits)
            read += min(_touched(module, called, called.parameters[number], whole), full)
    outputs = _outputs(step.instruction, called)
    return read, sum(_written(module, called, name, array) for name, array in outputs)


def _outputs(fusion: Instruction, called: Computation) -> Iterator[tuple[str, Array]]:
    """The instruction of the fused computation that gives each array of the result."""
    arrays = fusion.arrays
    if fusion.opcode == "async-start":  # (operands, results, flags)
        shape = fusion.shape
        arrays = tuple(leaves(shape[1])) if isinstance(shape, tuple) else ()
    names = called.root.operands if called.root.opcode == "tuple" else (called.root.name,)
    return zip(names, arrays, strict=False)


@dataclass(frozen=True)
class _Whole:
    """An operand of a fusion: its bytes, and the bits of one element as it lies in memory."""

    bytes: int
    bits: int


def _touched(module: Module, at: Computation, value: Instruction, whole: _Whole) -> int:
    """Bytes of a value that a fused computation reads: all, unless every user takes a part."""
    total = 0
    for user in at.users.get(value.name, ()):
        total += _touched_by(module, at, value, user, whole)
        if total >= whole.bytes:
            return whole.bytes
    return total


def _touched_by(
    module: Module, at: Computation, value: Instruction, user: Instruction, whole: _Whole
) -> int:
    code = user.opcode
    first = user.operands[0] == value.name
    if code in _SLICES and first:
        return user.array.elements * whole.bits // 8
    if code in _UPDATES and first and value.name not in user.operands[1:]:
        return 0 if user is at.root else _touched(module, at, user, whole)
    if code == "tuple" or (code == "bitcast" and user is at.root):
        return 0  # passed on untouched
    if code in _ON_DEMAND and user is not at.root:
        return _touched(module, at, user, whole)
    inner = module.called(user) if code == "fusion" else None
    return whole.bytes if inner is None else _touched_inside(module, at, value, user, inner, whole)


def _touched_inside(
    module: Module,
    at: Computation,
    value: Instruction,
    user: Instruction,
    inner: Computation,
    whole: _Whole,
) -> int:
    """By a fusion within the fusion."""
    number = user.operands.index(value.name)
    if _is_passed_on(inner, number):
        return _touched(module, at, user, whole) if user is not at.root else 0
    return _touched(module, inner, inner.parameters[number], whole)


def _is_passed_on(inner: Computation, number: int) -> bool:
    """Whether a nested fusion only names a parameter anew."""
    return _source(inner, inner.root.name) is inner.parameters[number]


def _source(at: Computation, name: str) -> Instruction:
    """What a value is another name for."""
    found = at[name]
    while found.opcode == "bitcast":
        found = at[found.operands[0]]
    return found


def _written(module: Module, at: Computation, name: str, array: Array) -> int:
    """Bytes of a fusion's result that are written: an update in place writes the update."""
    if not array.is_in_hbm:
        return 0
    source = _source(at, name)
    if source.opcode == "parameter":
        return 0
    if source.opcode in _UPDATES and _is_in_place(at, source):
        update = at[source.operands[_UPDATES[source.opcode]]].array
        return min(update.elements * array.item_bits // 8, array.bytes)
    inner = module.called(source) if source.opcode == "fusion" else None
    if inner is not None and inner.root.opcode != "tuple":
        return _written(module, inner, inner.root.name, array)
    return array.bytes


def _is_in_place(at: Computation, update: Instruction) -> bool:
    """Whether what is updated came into the fusion as a whole, and not made in it."""
    found = at[update.operands[0]]
    while found.opcode in ("bitcast", *_UPDATES):
        found = at[found.operands[0]]
    return found.opcode == "parameter"
