"""Compiled HLO text as values: computations, instructions, arrays with their layout.

Only what the accounting needs is kept apart; the attributes of an instruction stay text.
The grammar is that of XLA's `HloModule::ToString`, operands without shapes, as jax prints it:

    %name = bf16[96,512]{1,0:T(8,128)(2,1)S(1)} fusion(%a, %b), kind=kLoop, calls=%computation
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

ON_CHIP = (1, 2, 6)  # VMEM, flags and SMEM in the layouts that XLA prints for TPUs
_ARRAY = re.compile(r"([a-z]\w*)\[([^\]]*)\](?:\{([^}]*)\})?")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%([^\s=]+) = (.*)")
_COMPUTATION = re.compile(r"(ENTRY )?%([^\s(]+) \(.*\{\s*$")
_COMMENT = re.compile(r"/\*.*?\*/")
_ALIAS = re.compile(r"\{([\d, ]*)\}: \((\d+), \{[\d, ]*\}")


@dataclass(frozen=True, slots=True)
class Array:
    """One array: sizes, and how it lies in which memory. `space` 0 is the chip's HBM."""

    dtype: str
    dims: tuple[int, ...]
    order: tuple[int, ...] = ()  # dimensions from the fastest to the slowest
    tile: tuple[int, ...] = ()  # of the fastest dimensions, the slowest of them first
    space: int = 0

    @property
    def item_bits(self) -> int:
        """Bits of one element; tokens and opaque values have none."""
        digits = re.search(r"\d+", self.dtype)
        if self.dtype == "pred":
            return 8
        return int(digits[0]) if digits else 0

    @property
    def elements(self) -> int:
        """Elements without padding."""
        return math.prod(self.dims)

    @property
    def content_bytes(self) -> int:
        """Bytes of the elements without padding."""
        return math.ceil(self.elements * self.item_bits / 8)

    @property
    def bytes(self) -> int:
        """Bytes that the array takes: the dimensions of the tile are filled up to it."""
        sizes = [self.dims[d] for d in reversed(self.order)] or list(self.dims) or [1]
        for place, length in enumerate(reversed(self.tile), start=1):
            if place <= len(sizes):
                sizes[-place] = math.ceil(sizes[-place] / length) * length
            else:
                sizes.insert(0, length)
        return math.ceil(math.prod(sizes) * self.item_bits / 8)

    @property
    def is_in_hbm(self) -> bool:
        """Whether reading or writing it is traffic to the chip's memory."""
        return self.space not in ON_CHIP

    @property
    def text(self) -> str:
        """`bf16[96,512]`."""
        return f"{self.dtype}[{','.join(map(str, self.dims))}]"


Shape = Array | tuple["Shape", ...]


def leaves(shape: Shape) -> Iterator[Array]:
    """The arrays of a shape, nested tuples included."""
    if isinstance(shape, Array):
        yield shape
        return
    for part in shape:
        yield from leaves(part)


@dataclass(frozen=True)
class Instruction:
    """One line of a computation. `literal` is the text between the parentheses of its opcode."""

    name: str
    opcode: str
    shape: Shape
    operands: tuple[str, ...]
    literal: str
    attributes: str

    def attribute(self, name: str) -> str:
        """`body` of `body=%computation.3`, empty where there is none."""
        found = re.search(rf"\b{name}=%?([\w.\-]+)", self.attributes)
        return found[1] if found else ""

    @cached_property
    def arrays(self) -> tuple[Array, ...]:
        """The arrays that it gives."""
        return tuple(leaves(self.shape))

    @property
    def array(self) -> Array:
        """The first array that it gives; of an empty tuple one without bytes."""
        return self.arrays[0] if self.arrays else Array("token", ())

    @property
    def origin(self) -> str:
        """The operation of the program that it came from; of a parameter the argument's name."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""

    @property
    def number(self) -> int:
        """Which parameter or which element of a tuple."""
        return int(self.literal if self.opcode == "parameter" else self.attribute("index"))


@dataclass(frozen=True)
class Computation:
    """Instructions by name, in the order in which they are scheduled."""

    name: str
    instructions: Mapping[str, Instruction]
    root: Instruction

    def __iter__(self) -> Iterator[Instruction]:
        return iter(self.instructions.values())

    def __getitem__(self, name: str) -> Instruction:
        return self.instructions[name]

    @cached_property
    def parameters(self) -> dict[int, Instruction]:
        """The parameters by number."""
        return {i.number: i for i in self if i.opcode == "parameter"}

    @cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """The instructions that read each name."""
        found: dict[str, list[Instruction]] = {}
        for instruction in self:
            for name in dict.fromkeys(instruction.operands):
                found.setdefault(name, []).append(instruction)
        return found


@dataclass(frozen=True)
class Module:
    """A compiled program. `aliased` are the parameters whose memory an output takes over."""

    computations: Mapping[str, Computation]
    entry: Computation
    aliased: Mapping[int, int]  # output -> parameter

    def called(self, instruction: Instruction) -> Computation | None:
        """The computation that a fusion, a call or an asynchronous start runs."""
        name = instruction.attribute("calls") or instruction.attribute("to_apply")
        return self.computations.get(name)


def parse(text: str) -> Module:
    """The module that XLA printed; ValueError where the text has no entry computation."""
    computations: dict[str, Computation] = {}
    entry = ""
    name, body, root = "", dict[str, Instruction](), ""
    for line in text.splitlines():
        head = _COMPUTATION.match(line)
        if head:
            name, body, root = head[2], {}, ""
            entry = name if head[1] else entry
        elif line.startswith("}") and name:
            computations[name] = Computation(name, body, body[root or next(reversed(body))])
            name = ""
        elif name and (found := _INSTRUCTION.match(line)):
            body[found[2]] = _instruction(found[2], _COMMENT.sub("", found[3]))
            root = found[2] if found[1] else root
    if entry not in computations:
        raise ValueError("no entry computation in the compiled program's text")
    header = text.partition("\n")[0].partition("entry_computation_layout")[0]
    return Module(computations, computations[entry], _aliases(header))


def _aliases(header: str) -> dict[int, int]:
    found = header.partition("input_output_alias={")[2]
    pairs = (_ALIAS.finditer(found)) if found else ()
    return {int(m[1].split(",")[0] or 0): int(m[2]) for m in pairs}


def _instruction(name: str, text: str) -> Instruction:
    shape, at = _shape(text, 0)
    opcode, _, rest = text[at:].lstrip().partition("(")
    end = _closing(rest)
    literal = rest[:end]
    operands = tuple(re.findall(r"%([\w.\-]+)", literal)) if "%" in literal else ()
    return Instruction(name, opcode, shape, operands, literal.strip(), rest[end + 1 :])


def _closing(text: str) -> int:
    """Where the parenthesis closes that was opened before the text."""
    depth = 1
    for found in re.finditer(r"[()]", text):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return found.start()
    return len(text)


def _shape(text: str, at: int) -> tuple[Shape, int]:
    if text[at] != "(":
        found = _ARRAY.match(text, at)
        if found is None:
            raise ValueError(f"no shape in {text[at : at + 60]!r}")
        return _array(found), found.end()
    parts: list[Shape] = []
    at += 1
    while text[at] != ")":
        if text[at] in ", ":
            at += 1
            continue
        part, at = _shape(text, at)
        parts.append(part)
    return tuple(parts), at + 1


def _array(found: re.Match[str]) -> Array:
    layout = found[3] or ""
    order, _, rest = layout.partition(":")
    tile = re.search(r"T\(([\d,]+)\)", rest)
    space = re.search(r"S\((\d+)\)", rest)
    return Array(
        dtype=found[1],
        dims=tuple(int(d.removeprefix("<=")) for d in found[2].split(",") if d.strip()),
        order=tuple(int(d) for d in order.split(",") if d.strip()),
        tile=tuple(int(d) for d in tile[1].split(",")) if tile else (),
        space=int(space[1]) if space else 0,
    )
