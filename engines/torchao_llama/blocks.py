"""A matrix quantised by torchao a few rows at a time, so that no widened copy of all is made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torchao.quantization import quantize_

ROWS = 1024  # a multiple of 64: the rows that torch's int4 packing for a CPU takes together


def row_blocks(rows: int) -> Iterator[tuple[int, int]]:
    """(first, count) of each block."""
    for start in range(0, rows, ROWS):
        yield start, min(ROWS, rows - start)


def quantised_rows(matrix: Tensor, config: Any) -> Iterator[tuple[int, Any]]:
    """(first row, torchao's tensor) of each block of a matrix [rows, width]."""
    for start, count in row_blocks(matrix.shape[0]):
        linear = torch.nn.Linear(matrix.shape[1], count, bias=False, device="meta")
        linear.weight = torch.nn.Parameter(matrix.narrow(0, start, count), requires_grad=False)
        quantize_(linear, config)
        yield start, linear.weight
