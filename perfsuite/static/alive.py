"""The storages that a program's tensors keep alive: their sum, its peak, and who is there then.

A tensor and all views of it are one storage. A subclass that wraps others has no memory of its own:
its inner tensors are followed. What was there at the peak is remembered when the first storage of
it goes, so that following costs no more than a sum.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

WORTH_A_WORD = 2**20  # bytes; what made a smaller storage is not looked up
ACTIVATIONS = "activations"


@dataclass(eq=False, slots=True)
class Storage:
    """Memory of one tensor and its views; its text is that of the tensor first seen or named."""

    bytes: int
    text: str  # "bf16[128256,4096]"
    made_by: str  # operator and place, "" below WORTH_A_WORD
    name: str = ""  # the program's own: "weights.layers.0.qkv"
    kind: str = ACTIVATIONS
    before: bool = False  # alive before the call


class Alive:
    """What is alive; `place` tells where in the program an operator was called."""

    def __init__(self, place: Callable[[], str]) -> None:
        self.bytes = self.peak_bytes = 0
        self._place = place
        self._storages: dict[int, Storage] = {}
        self._there: list[Storage] = []
        self._has_risen = False

    def follow(self, tensor: torch.Tensor, operator: str = "") -> Storage:
        """The storage of a plain tensor; a new one counts from now until it is freed."""
        memory = tensor.untyped_storage()
        identity = memory._cdata
        known = self._storages.get(identity)
        if known is not None:
            return known
        made_by = ""
        if memory.nbytes() >= WORTH_A_WORD:
            made_by = " in ".join(filter(None, (operator, self._place())))
        storage = Storage(memory.nbytes(), described(tensor), made_by)
        self._storages[identity] = storage
        self.bytes += storage.bytes
        if self.bytes > self.peak_bytes:
            self.peak_bytes, self._has_risen = self.bytes, True
        weakref.finalize(memory, self._gone, identity)
        return storage

    def named(self, held: Mapping[str, torch.Tensor]) -> None:
        """Call storages by the program's own names, of which the first part is the kind."""
        for name, tensor in held.items():
            for part, inner in plain(tensor):
                storage = self.follow(inner)
                if not storage.name:
                    storage.name, storage.text = name + part, described(inner)
                    storage.kind = name.partition(".")[0]

    def classed(self, kind: str) -> None:
        """Without names, all that is alive is of one kind."""
        for storage in self._storages.values():
            storage.kind = kind

    def start_over(self) -> None:
        """All that is alive was there before the call; the peak counts from here."""
        for storage in self._storages.values():
            storage.before = True
        self.peak_bytes, self._has_risen = self.bytes, True

    def at_peak(self) -> list[Storage]:
        """What was alive when the sum was highest."""
        self._remember()
        return self._there

    def made(self) -> int:
        """Bytes that are alive now and were not before the call."""
        return sum(s.bytes for s in self._storages.values() if not s.before)

    def _remember(self) -> None:
        if self._has_risen:
            self._there, self._has_risen = list(self._storages.values()), False

    def _gone(self, identity: int) -> None:
        self._remember()
        self.bytes -= self._storages.pop(identity).bytes


def plain(tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors with memory in a tensor: `("", itself)`, or `(".qdata", inner)` of a wrapper."""
    if not is_traceable_wrapper_subclass(tensor):
        yield "", tensor
        return
    wrapper: Any = tensor
    for attribute in wrapper.__tensor_flatten__()[0]:
        for rest, inner in plain(getattr(wrapper, attribute)):
            yield f".{attribute}{rest}", inner


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """Those in an operator's argument or result: one, several in a list, or none."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors(part)


def described(tensor: torch.Tensor) -> str:
    """`bf16[128256,4096]`."""
    dtype = str(tensor.dtype).removeprefix("torch.").replace("float", "f")
    return f"{dtype}[{','.join(map(str, tensor.shape))}]"
