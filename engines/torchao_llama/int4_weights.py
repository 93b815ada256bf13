"""Weight-only int4 in groups, through torchao: 16 levels between a group's extremes.

How levels are packed belongs to the device's operator, so there is a class for each. The operators
are called by name: torchao's own call of them takes brackets, which fake CUDA tensors do not have.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import Tensor
from torchao.prototype.quantization.int4 import Int4OpaqueTensor, PrototypeInt4WeightOnlyConfig
from torchao.quantization import Int4TilePackedTo4dTensor, Int4WeightOnlyConfig
from torchao.quantization.quantize_.workflows import Int4PackingFormat

from engines.torch_decoder import write
from engines.torchao_llama.blocks import quantised_rows

TILE_WIDTH = 1024  # torchao pads the width of a tile-packed matrix to a multiple of it
TILE_ROWS = 8


class CpuInt4Weights:
    """Matrices [rows, width], packed for torch's int4 product on a CPU."""

    name = "int4wo"

    def __init__(self, dtype: torch.dtype, group: int) -> None:
        self._dtype, self._group = dtype, group
        self._operator = torch.ops.aten._weight_int4pack_mm_for_cpu

    def __str__(self) -> str:
        return f"int4 in groups of {self._group}, {self._operator.__name__}"

    def empty(self, rows: int, width: int) -> Int4OpaqueTensor:
        """A quantised matrix that is not filled."""
        packed = torch.empty((rows, width // 2), dtype=torch.uint8)
        scales = torch.empty((width // self._group, rows, 2), dtype=self._dtype)
        return Int4OpaqueTensor(packed, scales, [1, self._group], torch.Size((rows, width)))

    def fill(self, held: Int4OpaqueTensor, matrix: Tensor) -> None:
        """Quantise a matrix into one of `empty`."""
        config = PrototypeInt4WeightOnlyConfig(group_size=self._group, set_inductor_config=False)
        for start, made in quantised_rows(matrix, config):
            write(held.qdata.narrow(0, start, made.shape[0]), made.qdata)
            write(held.scale_and_zero.narrow(1, start, made.shape[0]), made.scale_and_zero)

    def linear(self, x: Tensor, weight: Tensor) -> Tensor:
        """Inputs [..., width] -> [..., rows]; a plain matrix is multiplied as it is."""
        if not isinstance(weight, Int4OpaqueTensor):
            return F.linear(x, weight)
        inputs = x.reshape(-1, x.shape[-1])
        found: Tensor = self._operator(inputs, weight.qdata, self._group, weight.scale_and_zero)
        return found.view(*x.shape[:-1], -1)

    def numbers(self, held: Int4OpaqueTensor) -> Tensor:
        """What a quantised matrix stands for, [rows, width] float64.

        The packing is the operator's own, so it is asked: its product, in float32, with the
        identity. Each sum then has one term that is not zero.
        """
        identity, scales = torch.eye(held.shape[1]), held.scale_and_zero.float()
        found: Tensor = self._operator(identity, held.qdata, self._group, scales)
        return found.T.double()


class CudaInt4Weights:
    """Matrices [rows, width] in bfloat16, packed in tiles for torch's int4 product on CUDA."""

    name = "int4wo"

    def __init__(self, device: str, group: int) -> None:
        self._device, self._group = device, group
        self._operator = torch.ops.aten._weight_int4pack_mm

    def __str__(self) -> str:
        return f"int4 in groups of {self._group}, {self._operator.__name__}"

    def empty(self, rows: int, width: int) -> Int4TilePackedTo4dTensor:
        """A quantised matrix that is not filled."""
        padded = _rounded_up(width, TILE_WIDTH)
        tiles = (_rounded_up(rows, TILE_ROWS) // TILE_ROWS, padded // 128, 32, 4)
        packed = torch.empty(tiles, dtype=torch.int32, device=self._device)
        groups = (padded // self._group, tiles[0] * TILE_ROWS, 2)
        scales = torch.empty(groups, dtype=torch.bfloat16, device=self._device)
        shape = torch.Size((rows, width))
        return Int4TilePackedTo4dTensor(packed, scales, [1, self._group], shape)

    def fill(self, held: Int4TilePackedTo4dTensor, matrix: Tensor) -> None:
        """Quantise a matrix into one of `empty`."""
        config = Int4WeightOnlyConfig(
            group_size=self._group,
            int4_packing_format=Int4PackingFormat.TILE_PACKED_TO_4D,
            set_inductor_config=False,
        )
        for start, made in quantised_rows(matrix, config):
            tiles, rows = made.qdata.shape[0], made.scale_and_zero.shape[1]
            write(held.qdata.narrow(0, start // TILE_ROWS, tiles), made.qdata)
            write(held.scale_and_zero.narrow(1, start, rows), made.scale_and_zero)

    def linear(self, x: Tensor, weight: Tensor) -> Tensor:
        """Inputs [..., width] -> [..., rows]; a plain matrix is multiplied as it is."""
        if not isinstance(weight, Int4TilePackedTo4dTensor):
            return F.linear(x, weight)
        rows, width = weight.shape
        inputs = F.pad(x.reshape(-1, width), (0, _rounded_up(width, TILE_WIDTH) - width))
        found = self._operator(inputs, weight.qdata, self._group, weight.scale_and_zero)
        return found.narrow(1, 0, rows).reshape(*x.shape[:-1], rows)

    def numbers(self, held: Int4TilePackedTo4dTensor) -> Tensor:
        """What a quantised matrix stands for, [rows, width] float64.

        The operator is asked by its product with the identity. It widens levels to bfloat16 before
        it multiplies, so the products are what it works with.
        """
        identity = torch.eye(held.shape[1], dtype=torch.bfloat16, device=self._device)
        return self.linear(identity, held).T.double()


def _rounded_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
