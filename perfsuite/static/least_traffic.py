"""The bytes that a torch program moves at least, whatever a compiler makes of it.

Memory that was there before the call has to be read where an operator reads it, and written where
one writes it, once each: the size of the views, not of the storage, where those that do not overlap
add up and of those that do the larger counts. What the call makes and leaves counts once. What it
makes and frees may stay in a cache or a register, and counts nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from math import prod
from typing import Any

import torch

from perfsuite.static.alive import Storage, tensors

# Operators that read a few rows of a table: as many bytes as they give.
_READ_IN_PART = {
    "embedding": "weight",
    "gather": "self",
    "index": "self",
    "index_select": "self",
    "take": "self",
}
# Operators that write into a few places: as many bytes as they are given to write, or unknown.
_WRITE_IN_PART = {
    "_index_put_impl_": "values",
    "index_add_": "source",
    "index_copy_": "source",
    "index_fill_": "",
    "index_put_": "values",
    "masked_fill_": "",
    "masked_scatter_": "",
    "scatter_": "src",
    "scatter_add_": "src",
}


@dataclass(frozen=True, slots=True)
class View:
    """A part of a storage, in elements, without the dimensions that were expanded."""

    bytes: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    start: tuple[int, ...]  # index of its first element in the tensor that it was cut out of
    span: tuple[int, int]  # of its first element, and behind its last

    def overlaps(self, other: View) -> bool:
        """Exact for slices of one contiguous tensor, else whether the spans meet."""
        if self.strides != other.strides or not self.strides:
            return self.span[0] < other.span[1] and other.span[0] < self.span[1]
        dims = zip(self.start, other.start, self.shape, other.shape, strict=True)
        return all(ours < theirs + n and theirs < ours + m for ours, theirs, m, n in dims)


@dataclass
class Moved:
    """The views of one storage that were read, or written: none of those that count overlap."""

    seen: set[tuple[Any, ...]] = field(default_factory=set)
    counted: list[View] = field(default_factory=list)

    def add(self, tensor: torch.Tensor, most: int | None) -> None:
        """A view of which at most so many bytes were moved."""
        key = (tensor.storage_offset(), tensor.shape, tensor.stride(), most)
        if key in self.seen:
            return
        self.seen.add(key)
        view = _view(tensor, most)
        others = [other for other in self.counted if view.overlaps(other)]
        if view.bytes > sum(other.bytes for other in others):
            self.counted = [v for v in self.counted if v not in others] + [view]

    @property
    def bytes(self) -> int:
        """Of the views that count."""
        return sum(view.bytes for view in self.counted)


def _view(tensor: torch.Tensor, most: int | None) -> View:
    steps = [(size, by) for size, by in zip(tensor.shape, tensor.stride(), strict=True) if by]
    shape, strides = tuple(size for size, _ in steps), tuple(by for _, by in steps)
    whole, first = prod(shape) * tensor.element_size(), int(tensor.storage_offset())
    behind = first + 1 + sum((size - 1) * by for size, by in steps)
    moved = whole if most is None else min(most, whole)
    return View(moved, shape, strides, _start(first, strides), (first, behind))


def _start(offset: int, strides: tuple[int, ...]) -> tuple[int, ...]:
    """The index of an element in a contiguous tensor of these strides."""
    found = [0] * len(strides)
    for at in sorted(range(len(strides)), key=lambda n: -strides[n]):
        found[at], offset = divmod(offset, strides[at])
    return tuple(found)


class LeastTraffic:
    """Reads and writes of what was alive before the call, by storage."""

    def __init__(self) -> None:
        self._read: dict[Storage, Moved] = {}
        self._written: dict[Storage, Moved] = {}

    def operands(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], results: list[torch.Tensor]
    ) -> Iterator[tuple[torch.Tensor, bool, int | None]]:
        """Each operand of a call: is it written, and of how many bytes at most."""
        operator = func.overloadpacket.__name__
        given = dict(zip(_names(func), args, strict=False)) | kwargs
        for name, value in given.items():
            written, most = name in _written(func), None
            if _READ_IN_PART.get(operator) == name:
                most = _size(results)
            elif written and operator in _WRITE_IN_PART:
                most = _size(given.get(_WRITE_IN_PART[operator]))
            for tensor in tensors(value):
                yield tensor, written, most

    def moved(
        self, storage: Storage, tensor: torch.Tensor, written: bool, most: int | None
    ) -> None:
        """An operator reads or writes this tensor, whose storage this is."""
        if storage.before:
            side = self._written if written else self._read
            side.setdefault(storage, Moved()).add(tensor, most)

    @property
    def bytes(self) -> int:
        """Of all that was read and written, a storage at most once each."""
        sides = (self._read, self._written)
        return sum(min(s.bytes, moved.bytes) for side in sides for s, moved in side.items())


def _size(value: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors(value))


@cache
def _names(func: Any) -> tuple[str, ...]:
    return tuple(argument.name for argument in func._schema.arguments)


@cache
def _written(func: Any) -> frozenset[str]:
    """The arguments that the operator writes to; those that it also reads count as written."""
    arguments = func._schema.arguments
    return frozenset(a.name for a in arguments if a.alias_info and a.alias_info.is_write)
