"""The keys and values of one layer, as the model's numbers or as int8 levels.

Letters of the shapes: B batch, K key/value heads, T tokens, C cache length, D head_dim.

A cache hands out what it holds in tiles, each with the place of its first token. What is quantised
is widened one tile at a time, so that no temporary is as long as the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from engines.torchao_llama.plan import Plan

TILE = 8192  # tokens that are widened at once: 16 MiB of keys for 8 heads of 128 in bfloat16
LARGEST_LEVEL = 127

Tile = tuple[int, Tensor, Tensor]  # first place, keys and values [B, K, tokens, D]


class PlainCache:
    """Keys and values [B, K, C, D] in the model's type."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
        # A mask multiplies unwritten values by zero, and zero times NaN is NaN.
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)

    def put(self, keys: Tensor, values: Tensor, places: Tensor) -> None:
        """Keys and values [B, K, T, D] to the places [T]."""
        self.keys.index_copy_(2, places, keys)
        self.values.index_copy_(2, places, values)

    def tiles(self, span: int) -> Iterator[Tile]:
        """The first `span` tokens as they are held: one tile."""
        yield 0, self.keys.narrow(2, 0, span), self.values.narrow(2, 0, span)

    def held(self) -> dict[str, Tensor]:
        """Its tensors by name."""
        return {"keys": self.keys, "values": self.values}


class Int8Cache:
    """Levels [B, K, C, D] int8 and, for each token and head, a scale [B, K, C, 1].

    A token is seen as it is held, by itself too. (The original shows it to itself unquantised, and
    widens the whole cache in every step to do so.)
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
        self._dtype = dtype
        scales = (*shape[:-1], 1)
        self.keys = torch.zeros(shape, dtype=torch.int8, device=device)
        self.key_scales = torch.zeros(scales, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=torch.int8, device=device)
        self.value_scales = torch.zeros(scales, dtype=dtype, device=device)

    def put(self, keys: Tensor, values: Tensor, places: Tensor) -> None:
        """Keys and values [B, K, T, D], quantised a tile at a time, to the places [T]."""
        parts = zip(keys.split(TILE, 2), values.split(TILE, 2), places.split(TILE), strict=True)
        for some_keys, some_values, at in parts:
            levels, scales = quantised(torch.cat([some_keys, some_values], 1))
            heads = some_keys.shape[1]
            self.keys.index_copy_(2, at, levels.narrow(1, 0, heads))
            self.values.index_copy_(2, at, levels.narrow(1, heads, heads))
            self.key_scales.index_copy_(2, at, scales.narrow(1, 0, heads))
            self.value_scales.index_copy_(2, at, scales.narrow(1, heads, heads))

    def tiles(self, span: int) -> Iterator[Tile]:
        """The first `span` tokens, widened."""
        for start in range(0, span, TILE):
            count = min(TILE, span - start)
            keys = self._widened(self.keys, self.key_scales, start, count)
            values = self._widened(self.values, self.value_scales, start, count)
            yield start, keys, values

    def _widened(self, levels: Tensor, scales: Tensor, start: int, count: int) -> Tensor:
        # In two steps: a product of int8 and bfloat16 makes a widened copy of its own on a CPU.
        wide = levels.narrow(2, start, count).to(self._dtype)
        return wide.mul_(scales.narrow(2, start, count))

    def held(self) -> dict[str, Tensor]:
        """Its tensors by name."""
        return {
            "keys": self.keys,
            "key_scales": self.key_scales,
            "values": self.values,
            "value_scales": self.value_scales,
        }


def quantised(x: Tensor) -> tuple[Tensor, Tensor]:
    """From x [..., D]: levels [..., D] int8 from -127 to 127, and scales [..., 1] in x's type.

    Symmetric: the largest magnitude of each vector is at level 127. Levels are found in float32
    from the scale as it is held, rounded to the nearest.
    """
    wide = x.float()
    scales = wide.abs().amax(-1, keepdim=True).div_(LARGEST_LEVEL)
    scales = scales.clamp_min_(torch.finfo(x.dtype).tiny).to(x.dtype)  # a vector of zeros has one
    levels = wide.div(scales.float()).round_().clamp_(-LARGEST_LEVEL, LARGEST_LEVEL)
    return levels.to(torch.int8), scales


def cache_for(plan: Plan, shape: tuple[int, ...], dtype: torch.dtype, device: str) -> Any:
    """An empty cache of a plan, [B, K, C, D]."""
    return (Int8Cache if plan.int8_cache else PlainCache)(shape, dtype, device)
