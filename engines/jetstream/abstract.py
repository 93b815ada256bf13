"""The full-size programs without data: name, jitted, arguments, bytes a chip must hold."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from engines.jetstream.cache import abstract_caches
from engines.jetstream.plan import Plan, bytes_a_chip
from engines.jetstream.programs import Programs, abstract_slots
from engines.jetstream.weights import abstract_weights


def prefill_program(plan: Plan, length: int) -> tuple[str, Any, tuple[Any, ...], int, int]:
    """One prompt of this length in its bucket, giving its keys, its values and a token."""
    weights = abstract_weights(plan)
    time = plan.bucket(length)
    tokens = jax.ShapeDtypeStruct((time,), jnp.int32, sharding=plan.sharding.place("T"))
    number = plan.abstract("", jnp.int32)
    arguments = (weights, tokens, number, number)
    prefix = _prefix_bytes(plan, time)
    return "prefill", Programs(plan).prefill, arguments, bytes_a_chip(weights), prefix


def decode_program(plan: Plan) -> tuple[str, Any, tuple[Any, ...], int, int]:
    """One token for all slots of the full batch over the whole ring."""
    weights, caches = abstract_weights(plan), abstract_caches(plan)
    held = bytes_a_chip(weights), bytes_a_chip(caches)
    return "decode", Programs(plan).generate, (weights, caches, abstract_slots(plan)), *held


def _prefix_bytes(plan: Plan, time: int) -> int:
    m = plan.model
    part = plan.sharding.place("KTD").shard_shape((m.kv_heads, time, m.head_dim))
    return 2 * m.layers * part[0] * part[1] * part[2] * plan.number.itemsize
