"""The decoder: embedding, layers, attention over a prompt or over the ring, scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from engines.jetstream.plan import Plan
from engines.jetstream.quantize import Int8
from engines.jetstream.weights import Layer, Weights

ROW_PARTS = 8  # of a product of one row on a CPU

Attend = Callable[[int, Any, Any, Any], Any]  # (layer, q, k, v) -> what the queries have seen


def hidden(plan: Plan, weights: Weights, tokens: Any, places: Any, attend: Attend) -> Any:
    """Tokens [B, T] at their places in their sequences -> [B, T, E], before the last norm."""
    model = plan.model
    x = embedded(model, weights, tokens)
    # A place beyond the tables gives NaN, never another place's angle.
    cos = jnp.take(weights.cos, places, axis=0, mode="fill", fill_value=jnp.nan)[:, :, None]
    sin = jnp.take(weights.sin, places, axis=0, mode="fill", fill_value=jnp.nan)[:, :, None]
    for number, layer in enumerate(weights.layers):
        h = normalised(model, x, layer.attention_norm)
        q, k = (rotated(to_heads(plan, h, matrix), cos, sin) for matrix in (layer.q, layer.k))
        seen = attend(number, q, k, to_heads(plan, h, layer.v))
        x = kept(x + from_heads(plan, seen, layer.output))
        x = kept(x + gated(plan, layer, normalised(model, x, layer.mlp_norm)))
    return x


def kept(x: Any) -> Any:
    """The sum as it is: XLA would keep its parts of all layers, and add them up for every use."""
    return jax.lax.optimization_barrier(x)


def scores(model: Any, weights: Weights, x: Any) -> Any:
    """[B, E] -> [B, V]."""
    head = weights.embedding if weights.head is None else weights.head
    return product("be,ve->bv", normalised(model, x, weights.norm), head)


def to_heads(plan: Plan, h: Any, matrix: Any) -> Any:
    """[B, T, E] -> [B, T, heads, D]."""
    if not merges_heads(plan):
        return product("bte,hde->bthd", h, matrix)
    found = product("bte,ie->bti", h, merged(matrix))
    return found.reshape(*found.shape[:2], -1, plan.model.head_dim)


def from_heads(plan: Plan, seen: Any, matrix: Any) -> Any:
    """[B, T, H, D] -> [B, T, E]."""
    if not merges_heads(plan):
        return product("bthd,hde->bte", seen, matrix)
    return summed_up(plan, seen.reshape(*seen.shape[:2], -1), merged(matrix))


def summed_up(plan: Plan, x: Any, matrix: Any) -> Any:
    """[B, T, I] -> [B, T, E]; in parts where one core of a CPU would do all of one row."""
    rows, inner = x.shape[0] * x.shape[1], x.shape[2]
    if plan.sharding.platform != "cpu" or rows > 1 or inner % ROW_PARTS:
        return product("bti,ie->bte", x, matrix)
    values, scale = matrix if isinstance(matrix, Int8) else (matrix, None)
    parts = summed(
        "pi,pie->pe",
        x.reshape(ROW_PARTS, -1),
        values.astype(x.dtype).reshape(ROW_PARTS, -1, values.shape[-1]),
    )
    found = parts.sum(0)[None, None]
    return (found if scale is None else found * scale).astype(x.dtype)


def merges_heads(plan: Plan) -> bool:
    """On a CPU XLA transposes a matrix of three axes in every step; on a TPU merging costs."""
    return plan.sharding.platform == "cpu" and not plan.sharding.divides("D")


def merged(matrix: Any) -> Any:
    """[heads, D, E] -> [heads * D, E]."""
    if isinstance(matrix, Int8):
        return Int8(merged(matrix.values), matrix.scale.reshape(-1))
    return matrix.reshape(-1, matrix.shape[-1])


def product(equation: str, x: Any, matrix: Any) -> Any:
    """One x times a matrix; int8 levels are scaled after their product, by output channel."""
    if isinstance(matrix, Int8):
        found = summed(equation, x, matrix.values.astype(x.dtype), x.dtype)
        return (found * matrix.scale).astype(x.dtype)
    return summed(equation, x, matrix, x.dtype)


def summed(equation: str, x: Any, y: Any, dtype: Any = jnp.float32) -> Any:
    """Sums of products, rounded to `dtype` once; float32 is float32 on a TPU and a GPU too."""
    precision = jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    return jnp.einsum(equation, x, y, precision=precision, preferred_element_type=dtype)


def embedded(model: Any, weights: Weights, tokens: Any) -> Any:
    """[B, T] -> [B, T, E]; Gemma multiplies by sqrt(E)."""
    table, number = weights.embedding, weights.norm.dtype
    if isinstance(table, Int8):
        levels = table.values[tokens].astype(jnp.float32)
        x = (levels * table.scale[tokens][..., None]).astype(number)
    else:
        x = table[tokens]
    return x * jnp.asarray(model.hidden_size**0.5, number) if model.scaled_embeddings else x


def normalised(model: Any, x: Any, weight: Any) -> Any:
    """RMSNorm over the last axis."""
    wide = x.astype(jnp.float32)
    square = jnp.mean(wide * wide, axis=-1, keepdims=True)
    return (wide * jax.lax.rsqrt(square + model.norm_eps)).astype(x.dtype) * weight


def rotated(x: Any, cos: Any, sin: Any) -> Any:
    """[B, T, heads, D] turned by the angles [B, T, 1, D / 2] of its places."""
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def gated(plan: Plan, layer: Layer, h: Any) -> Any:
    """The gated MLP."""
    gate = activation(plan.model.activation)(product("bte,ie->bti", h, layer.gate))
    return summed_up(plan, gate * product("bte,ie->bti", h, layer.up), layer.down)


def activation(name: str) -> Callable[[Any], Any]:
    """SiLU, or the tanh form of GELU."""
    known: dict[str, Callable[[Any], Any]] = {"silu": jax.nn.silu, "gelu_tanh": jax.nn.gelu}
    if name not in known:
        raise ValueError(f"got activation {name!r}, expected 'silu' or 'gelu_tanh'")
    return known[name]


def attend_prompt(q: Any, k: Any, v: Any, window: int) -> Any:
    """Each token [B, T] sees itself and up to `window - 1` before it; q [B, T, H, D]."""
    time = jnp.arange(q.shape[1])
    distance = time[:, None] - time[None, :]
    allowed = distance >= 0
    if window < len(time):  # otherwise rings of several lengths have one program
        allowed &= distance < window
    grouped = _grouped(q, k.shape[2])
    found = summed("btkgd,bskd->bkgts", grouped, k) * q.shape[-1] ** -0.5
    shares = softmax(found, allowed).astype(q.dtype)
    return summed("bkgts,bskd->btkgd", shares, v).astype(q.dtype).reshape(q.shape)


def attend_ring(q: Any, keys: Any, values: Any, seen: Any) -> Any:
    """One query a slot [B, 1, H, D] over a ring [B, K, N, C, P], where seen [B, C] allows it."""
    levels = keys.values.astype(q.dtype) if isinstance(keys, Int8) else keys
    kv_heads, parts = levels.shape[1:3]
    grouped = q.reshape(q.shape[0], kv_heads, -1, parts, levels.shape[-1])
    found = summed("bkgnp,bkncp->bkgc", grouped, levels) * q.shape[-1] ** -0.5
    if isinstance(keys, Int8):
        found = found * _by_place(keys.scale)
    shares = softmax(found, seen[:, None, None])
    if isinstance(values, Int8):
        shares = shares * _by_place(values.scale)
        values = values.values.astype(q.dtype)
    mixed = summed("bkgc,bkncp->bkgnp", shares.astype(q.dtype), values)
    return mixed.astype(q.dtype).reshape(q.shape)


def softmax(found: Any, allowed: Any) -> Any:
    """Shares over the last axis of what is allowed; at least one entry is."""
    return jax.nn.softmax(jnp.where(allowed, found, -jnp.inf), axis=-1)


def _grouped(q: Any, kv_heads: int) -> Any:
    """[B, T, H, D] -> [B, T, K, G, D]."""
    return q.reshape(*q.shape[:2], kv_heads, -1, q.shape[-1])


def _by_place(scale: Any) -> Any:
    """Scales [B, K, C] for scores [B, K, G, C]."""
    return scale[:, :, None].astype(jnp.float32)
