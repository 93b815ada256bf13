"""Attention of one new token on a cache that comes in tiles, under a mask.

Letters of the shapes: B batch, H query heads, K key/value heads, G = H / K, D head_dim.

A tile's output is weighted by the exponent of its log-sum-exp, so the tiles need not lie beside
each other (as the parts of Hydragen's attention, whose `combine` makes the sum). The G queries of a
key/value head are G queries of that head, so no key is repeated.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engines.hydragen.attention import Part, combine
from engines.torchao_llama.cache import Tile


@dataclass(frozen=True)
class Masked:
    """The device's attention operator that takes a bias and says its log-sum-exp, by name."""

    device: str
    dtype: torch.dtype

    def __call__(self, q: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Part:
        """Queries [B, K, G, D] on keys and values [B, K, S, D]; bias [S] is added to scores."""
        count, seen = q.shape[2], bias.view(1, 1, 1, -1)
        if self.device == "cpu":
            # In bfloat16 a single query for a head goes through a kernel twice as slow as two.
            doubled = count == 1 and self.dtype == torch.bfloat16
            queries = q.expand(-1, -1, 2, -1) if doubled else q
            found = self.operator(queries, keys, values, 0.0, False, attn_mask=seen)
        else:
            wide = seen.expand(*q.shape[:3], -1)
            found = self.operator(q, keys, values, wide, True, 0.0, False)
        return Part(found[0].narrow(2, 0, count), found[1].narrow(2, 0, count))

    @property
    def operator(self) -> Any:
        """On CUDA flash attention takes no mask; the memory-efficient operator does."""
        if self.device == "cpu":
            return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return torch.ops.aten._scaled_dot_product_efficient_attention

    def __str__(self) -> str:
        return str(self.operator.__name__)


def bias_of(row: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to scores: 0 where the row [S] is True, elsewhere so little that nothing of it
    is left; a number and not -inf, because a tile of which nothing may be seen would be NaN.
    """
    hidden = torch.finfo(dtype).min / 2
    return torch.zeros(row.shape, dtype=dtype, device=row.device).masked_fill_(
        row.logical_not(), hidden
    )


def attend(masked: Masked, q: Tensor, tiles: Iterable[Tile], bias: Tensor) -> Tensor:
    """One query q [B, H, 1, D] of each sequence on all tiles; bias [span]: [B, H, 1, D]."""
    parts: list[Part] = []
    for start, keys, values in tiles:
        grouped = q.reshape(q.shape[0], keys.shape[1], -1, q.shape[3])
        parts.append(masked(grouped, keys, values, bias.narrow(0, start, keys.shape[2])))
    return combine(parts).reshape(q.shape)
