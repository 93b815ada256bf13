"""The ring: every layer's keys and values [B, K, N, C, P], one position for all slots.

Each step writes the newest token of every slot at the global position, which then moves on by one
and wraps. A sequence of n tokens lies in the n places before the position, so whether a slot may
see a place follows from the place's age and the slot's length alone, and a sequence longer than
the ring has lost its oldest tokens: a rolling window.

A head of 256 numbers lies in two parts of 128, one tile wide. XLA's int8 tiles of the arguments and
of the in-place update differ in height, which is the same memory in parts of one tile only: with
wider ones every step would copy the whole cache.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from engines.jetstream.plan import Plan
from engines.jetstream.quantize import Int8, quantized


class Cache(NamedTuple):
    """One layer; quantised ones have scales [B, K, C], in the type of the activations."""

    keys: Any
    values: Any


def abstract_caches(plan: Plan) -> tuple[Cache, ...]:
    """All layers' without data."""
    if plan.quantize_cache:
        half: Any = Int8(plan.abstract("BKNCP", jnp.int8), plan.abstract("BKC"))
    else:
        half = plan.abstract("BKNCP")
    return (Cache(half, half),) * plan.model.layers


def ages(position: Any, length: int) -> Any:
    """[C] steps since a place of the ring was written: 0 where `position` points."""
    return (position - jnp.arange(length)) % length


def visible(position: Any, lengths: Any, length: int) -> Any:
    """[B, C]: the newest `lengths` tokens of a slot, of which the last is at `position`."""
    return ages(position, length)[None, :] < lengths[:, None]


def written(cache: Any, position: Any, new: Any) -> Any:
    """A cache [B, K, N, C, P] with new [B, K, D] at the position, in place where it is donated."""
    update = jax.lax.dynamic_update_slice_in_dim
    if not isinstance(cache, Int8):
        return update(cache, parted(new, cache)[:, :, :, None], position, 3)
    levels, scale = quantized(new, -1, cache.scale.dtype)
    values = update(cache.values, parted(levels, cache.values)[:, :, :, None], position, 3)
    return Int8(values, update(cache.scale, scale[:, :, None], position, 2))


def inserted(cache: Any, slot: Any, prefix: Any, length: Any, position: Any) -> Any:
    """A cache whose slot holds a prefix [K, T, D] of `length` tokens that ends before `position`.

    Places that the prefix does not reach get one of its tokens; the slot's length hides them.
    """
    update = jax.lax.dynamic_update_slice_in_dim
    ring = (cache.values if isinstance(cache, Int8) else cache).shape[3]
    tokens = length - 1 - ages(position - 1, ring)
    row = jnp.take(prefix, tokens, axis=1, mode="clip")
    if not isinstance(cache, Int8):
        return update(cache, parted(row, cache).swapaxes(1, 2)[None], slot, 0)
    levels, scale = quantized(row, -1, cache.scale.dtype)
    values = update(cache.values, parted(levels, cache.values).swapaxes(1, 2)[None], slot, 0)
    return Int8(values, update(cache.scale, scale[None], slot, 0))


def parted(x: Any, cache: Any) -> Any:
    """[..., D] -> [..., N, P] as in the cache."""
    return x.reshape(*x.shape[:-1], -1, cache.shape[-1])
