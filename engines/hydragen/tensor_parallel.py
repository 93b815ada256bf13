"""One model over several processes: heads and MLP divided, their sums joined.

Megatron-LM's plan (arXiv 1909.08053, section 3): matrices before an attention or an MLP are divided
by their outputs, those behind it by their inputs, so that each process computes a part of a sum and
one all-reduce a half layer joins it. Embedding, norms and head are whole in every process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch.distributed
from numpy.typing import NDArray
from torch import Tensor

from engines.weights import tensor_shapes

BY_OUTPUTS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
BY_INPUTS = ("o_proj", "down_proj")


def part_of(model: Any, count: int) -> Any:
    """The shape of one process's part; ValueError where something does not divide."""
    sizes = {name: getattr(model, name) for name in ("heads", "kv_heads", "intermediate_size")}
    for name, size in sizes.items():
        if size % count:
            raise ValueError(
                f"{model.name}: {name} {size} does not divide over {count} processes: "
                "choose another number of them"
            )
    return replace(model, **{name: size // count for name, size in sizes.items()})


def divided_axis(name: str) -> int | None:
    """The axis of a matrix [outputs, inputs] that is divided; None where it is whole."""
    kind = name.removesuffix(".weight").rpartition(".")[2]
    return 0 if kind in BY_OUTPUTS else 1 if kind in BY_INPUTS else None


def span(size: int, rank: int, count: int) -> slice:
    """A process's part of an axis."""
    each = size // count
    return slice(rank * each, (rank + 1) * each)


class Parts(Mapping[str, NDArray[Any]]):
    """One process's part of whole weights, by name, sliced when asked for."""

    def __init__(self, model: Any, whole: Mapping[str, Any], rank: int, count: int) -> None:
        self.whole, self.rank, self.count = whole, rank, count
        self.shapes = tensor_shapes(part_of(model, count))

    def __getitem__(self, name: str) -> NDArray[Any]:
        array: NDArray[Any] = np.asarray(self.whole[name])
        axis = divided_axis(name)
        if axis is None:
            return array
        mine = span(array.shape[axis], self.rank, self.count)
        return array[mine] if axis == 0 else array[:, mine]

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def joined(part: Tensor) -> Tensor:
    """The sum of all processes' parts, in place; all of them must call it in the same order."""
    torch.distributed.all_reduce(part)
    return part
