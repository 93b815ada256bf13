"""Weight-only int8 by output channel, through torchao: levels int8, a scale for each row.

The library's own product widens the whole matrix in every step. On a CPU torch's operator for
int8 weights is called by name instead; it reads the levels as they are. It is made for few rows
of inputs: more are multiplied with a block of widened weights at a time.
"""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import Tensor
from torchao.quantization import Int8Tensor, Int8WeightOnlyConfig

from engines.torch_decoder import write
from engines.torchao_llama.blocks import quantised_rows, row_blocks

FEW_ROWS = 4  # of inputs: beyond, reading the weights is no longer what takes the time


class Int8Weights:
    """Matrices [rows, width] of a type on a device."""

    name = "int8wo"

    def __init__(self, dtype: torch.dtype, device: str) -> None:
        self._dtype, self._device = dtype, device
        self._operator = torch.ops.aten._weight_int8pack_mm if device == "cpu" else None

    def __str__(self) -> str:
        operator = self._operator.__name__ if self._operator else "torchao's own product"
        return f"int8 by output channel, {operator}"

    def empty(self, rows: int, width: int) -> Int8Tensor:
        """A quantised matrix that is not filled; scales in the model's type, as products use."""
        levels = torch.empty((rows, width), dtype=torch.int8, device=self._device)
        scales = torch.empty((rows, 1), dtype=self._dtype, device=self._device)
        return Int8Tensor(levels, scales, [1, width], self._dtype)

    def fill(self, held: Int8Tensor, matrix: Tensor) -> None:
        """Quantise a matrix into one of `empty`."""
        config = Int8WeightOnlyConfig(set_inductor_config=False)
        for start, made in quantised_rows(matrix, config):
            write(held.qdata.narrow(0, start, made.shape[0]), made.qdata)
            write(held.scale.narrow(0, start, made.shape[0]), made.scale)

    def linear(self, x: Tensor, weight: Tensor) -> Tensor:
        """Inputs [..., width] -> [..., rows]; a plain matrix is multiplied as it is."""
        if not isinstance(weight, Int8Tensor) or self._operator is None:
            return F.linear(x, weight)
        if prod(x.shape[:-1]) > FEW_ROWS:
            return self._in_blocks(x, weight)
        inputs = x.reshape(-1, x.shape[-1])
        found: Tensor = self._operator(inputs, weight.qdata, weight.scale.view(-1))
        return found.view(*x.shape[:-1], -1)

    def _in_blocks(self, x: Tensor, weight: Int8Tensor) -> Tensor:
        parts = []
        for start, count in row_blocks(weight.shape[0]):
            wide = weight.qdata.narrow(0, start, count).to(x.dtype)
            scales = weight.scale.narrow(0, start, count).view(-1)
            parts.append(F.linear(x, wide).mul_(scales))
        return torch.cat(parts, -1)

    def numbers(self, held: Int8Tensor) -> Tensor:
        """What a quantised matrix stands for, [rows, width] float64."""
        return held.qdata.double() * held.scale.double()
