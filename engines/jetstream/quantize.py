"""Symmetric int8: the nearest of 255 levels, the largest magnitude of a group at level 127.

One scale for each output channel of a matrix, one for each (slot, head, position) of a cache. A
group of zeros has scale 1, so nothing is divided by zero. Products are made with the levels, which
float32 and bfloat16 hold exactly, and scaled afterwards: nothing is widened in memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

LEVELS = 127


class Int8(NamedTuple):
    """`values` int8 and their scales; `values * scale` are the numbers meant."""

    values: Any
    scale: Any


def quantized(x: jax.Array, axis: int | tuple[int, ...], dtype: Any) -> Int8:
    """Levels and scales of type `dtype`; the groups lie along `axis`, which the scale lacks.

    The levels belong to the scale as it is stored. Rounding it may put the largest magnitude
    beyond level 127, where it is clamped: off by at most 127 times the scale's own rounding.
    """
    wide = x.astype(jnp.float32)
    largest = jnp.max(jnp.abs(wide), axis=axis, keepdims=True)
    scale = jnp.where(largest > 0, largest / LEVELS, 1.0).astype(dtype)
    levels = jnp.round(wide / scale.astype(jnp.float32))
    clamped = jnp.clip(levels, -LEVELS, LEVELS).astype(jnp.int8)
    return Int8(clamped, jnp.squeeze(scale, axis))


def quantized_on_host(x: np.ndarray[Any, Any], axis: int | tuple[int, ...]) -> Int8:
    """The same in numpy, in float64 with float32 scales: every machine gets the same levels."""
    wide = x.astype(np.float64)
    largest = np.abs(wide).max(axis=axis, keepdims=True)
    scale = np.where(largest > 0, largest / LEVELS, 1.0).astype(np.float32)
    levels = np.clip(np.rint(wide / scale), -LEVELS, LEVELS).astype(np.int8)
    return Int8(levels, np.squeeze(scale, axis))
