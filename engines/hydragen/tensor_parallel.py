"""One model over several processes: heads and MLP divided, their sums joined.

Megatron-LM's plan (arXiv 1909.08053, section 3): matrices before an attention or an MLP are divided
by their outputs, those behind it by their inputs, so that each process computes a part of a sum and
one all-reduce a half layer joins it. Embedding, norms and head are whole in every process.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed
from numpy.typing import NDArray
from torch import Tensor

from engines import checkpoint
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

    def __init__(self, part: Any, whole: Mapping[str, Any], rank: int, count: int) -> None:
        """`part` is the shape that part_of gives."""
        self.whole, self.rank, self.count = whole, rank, count
        self.shapes = tensor_shapes(part)

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


def meet(device: str) -> tuple[int, int]:
    """(rank, count), once all processes are there: by gloo on CPUs, by NCCL on GPUs."""
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo" if device == "cpu" else "nccl")
        atexit.register(torch.distributed.destroy_process_group)
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def divided_file(model: Any, rank: int) -> Path | None:
    """The rank's own file of a checkpoint that make_tp_files has divided."""
    file = Path(model.checkpoint or "") / f"{rank}.safetensors"
    return file if model.checkpoint and file.exists() else None


def stored_part(model: Any, rank: int, count: int) -> Mapping[str, Any]:
    """What is in it, with the shapes of one of `count` parts; ValueError where it was divided
    otherwise.
    """
    file, folder = divided_file(model, rank), Path(model.checkpoint)
    assert file is not None  # the caller has asked
    if (folder / f"{count}.safetensors").exists():
        raise ValueError(f"{folder} is divided into more than {count} parts: start as many")
    return checkpoint.read_files([file], part_of(model, count), folder)


def joined(part: Tensor) -> Tensor:
    """The sum of all processes' parts, in place; all of them must call it in the same order."""
    torch.distributed.all_reduce(part)
    return part
