"""The specification: a Llama-family forward pass in numpy, float64, slow and obvious.

Letters of the shapes: B batch, T time, H query heads, K key/value heads, G = H / K, D head_dim,
E hidden size, V vocabulary. Weights are a mapping of Hugging Face names to arrays.

Every number that an engine would keep passes through `arithmetic.stored`, every long sum through
`arithmetic.summed`. EXACT leaves both alone; engines.tolerance perturbs them to derive the bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Weights = Mapping[str, NDArray[Any]]


class Arithmetic(Protocol):
    """What happens to a number that is stored, and to a sum of `terms` products."""

    def stored(self, values: Array) -> Array:
        """A number that an engine keeps in its own type."""

    def summed(self, values: Array, terms: int) -> Array:
        """A sum that an engine makes in float32."""

    def level(self, values: Array) -> Array:
        """The whole number that an engine rounds to when it quantises."""


class Exact:
    """Numbers as float64 has them."""

    def stored(self, values: Array) -> Array:
        """As it is."""
        return values

    def summed(self, values: Array, terms: int) -> Array:  # noqa: ARG002  (part of Arithmetic)
        """As it is."""
        return values

    def level(self, values: Array) -> Array:
        """The nearest."""
        return np.rint(values)


EXACT = Exact()


def forward(
    model: Any,
    weights: Weights,
    token_ids: ArrayLike,
    *,
    attention: bool = True,
    window: int | None = None,
    positions: ArrayLike | None = None,
    int8_cache_from: int | None = None,
    arithmetic: Arithmetic = EXACT,
) -> Array:
    """token_ids [B, T] -> logits [B, T, V]; no input is changed.

    window: a token sees itself and the `window - 1` tokens before it (a rolling cache).
    int8_cache_from: tokens from this one on read all keys and values, their own too, as an int8
    cache holds them (a prompt is run with its keys at hand, and cached afterwards).
    attention=False: Hydragen's "noattention". All projections run, but what attention returns for
    a token is its own query after RoPE. Tokens then do not see each other, so the output means
    nothing. `positions` [T] replaces 0..T-1: without a cache, decoding counts from 0 again.
    """
    tokens = np.asarray(token_ids)
    if tokens.ndim != 2:
        raise ValueError(f"got token ids of shape {tokens.shape}, expected [batch, time]")
    places = np.arange(tokens.shape[1]) if positions is None else np.asarray(positions)
    mask = causal_mask(tokens.shape[1], window) if attention else None
    rope = rotations(model, places, arithmetic)
    x = embed(model, weights, tokens, arithmetic)
    for layer in range(model.layers):
        named = _Named(weights, f"model.layers.{layer}.")
        seen = attend(model, named, x, rope, mask, arithmetic, int8_cache_from)
        x = arithmetic.stored(x + seen)
        x = arithmetic.stored(x + feed_forward(model, named, x, arithmetic))
    x = normalise(model, weights["model.norm.weight"], x, arithmetic)
    head = "model.embed_tokens.weight" if model.tied_embeddings else "lm_head.weight"
    return project(weights[head], x, arithmetic)


class _Named:
    """The weights of one layer: `named("mlp.up_proj")`."""

    def __init__(self, weights: Weights, prefix: str) -> None:
        self.weights, self.prefix = weights, prefix

    def __call__(self, name: str) -> NDArray[Any]:
        return self.weights[f"{self.prefix}{name}.weight"]


def embed(model: Any, weights: Weights, tokens: NDArray[Any], arithmetic: Arithmetic) -> Array:
    """[B, T] -> [B, T, E]; Gemma multiplies by sqrt(E)."""
    x: Array = weights["model.embed_tokens.weight"][tokens].astype(np.float64)
    if model.scaled_embeddings:
        scale = arithmetic.stored(np.sqrt(np.array([float(model.hidden_size)])))
        x = arithmetic.stored(x * scale)
    return x


def project(weight: NDArray[Any], x: Array, arithmetic: Arithmetic) -> Array:
    """[..., inputs] times weight [outputs, inputs] -> [..., outputs]."""
    product = x @ weight.astype(np.float64).T
    return arithmetic.stored(arithmetic.summed(product, weight.shape[1]))


def normalise(model: Any, weight: NDArray[Any], x: Array, arithmetic: Arithmetic) -> Array:
    """RMSNorm over the last axis; Gemma scales by 1 + weight."""
    scale = weight.astype(np.float64) + (1.0 if model.norm_adds_one else 0.0)
    root = np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + model.norm_eps)
    return arithmetic.stored(arithmetic.stored(x / root) * arithmetic.stored(scale))


def attend(
    model: Any,
    named: _Named,
    x: Array,
    rope: tuple[Array, Array],
    mask: NDArray[np.bool_] | None,
    arithmetic: Arithmetic,
    int8_cache_from: int | None = None,
) -> Array:
    """Grouped-query attention of one layer, its norm and projections included: [B, T, E]."""
    h = normalise(model, named("input_layernorm"), x, arithmetic)
    q = split_heads(project(named("self_attn.q_proj"), h, arithmetic), model.heads)
    k = split_heads(project(named("self_attn.k_proj"), h, arithmetic), model.kv_heads)
    v = split_heads(project(named("self_attn.v_proj"), h, arithmetic), model.kv_heads)
    q, k = rotate(q, rope, arithmetic), rotate(k, rope, arithmetic)
    out = q if mask is None else mix(q, k, v, mask, arithmetic)
    if mask is not None and int8_cache_from is not None:
        k, v = int8_levels(k, arithmetic), int8_levels(v, arithmetic)
        cached = mix(q, k, v, mask, arithmetic)
        out = np.where(np.arange(x.shape[1])[:, None] < int8_cache_from, out, cached)
    merged = out.swapaxes(1, 2).reshape(*x.shape[:2], -1)
    return project(named("self_attn.o_proj"), merged, arithmetic)


def mix(q: Array, k: Array, v: Array, mask: NDArray[np.bool_], arithmetic: Arithmetic) -> Array:
    """From q [B, H, T, D] and k, v [B, K, T, D]: [B, H, T, D]; head h reads k and v h // G."""
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    scores = arithmetic.summed(q @ k.swapaxes(2, 3), q.shape[-1]) / np.sqrt(q.shape[-1])
    scores = np.where(mask, scores, -np.inf)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares = arithmetic.stored(powers / powers.sum(axis=-1, keepdims=True))
    return arithmetic.stored(arithmetic.summed(shares @ v, v.shape[2]))


def causal_mask(time: int, window: int | None = None) -> NDArray[np.bool_]:
    """[T, T], True where the row's token may see the column's."""
    query, key = np.arange(time)[:, None], np.arange(time)[None, :]
    return (key <= query) & (key > query - (window or time))


def int8_levels(values: Array, arithmetic: Arithmetic = EXACT) -> Array:
    """Each vector of the last axis at 255 even levels, its largest magnitude at level 127."""
    largest = np.abs(values).max(axis=-1, keepdims=True)
    scale = arithmetic.stored(np.where(largest > 0.0, largest / 127.0, 1.0))
    return np.clip(arithmetic.level(values / scale), -127.0, 127.0) * scale


def int8_weights(weights: Weights) -> dict[str, NDArray[Any]]:
    """Matrices as int8 by output channel holds them, with float32 scales; norms as they are."""
    held: dict[str, NDArray[Any]] = dict(weights)
    for name, array in weights.items():
        if array.ndim == 2:
            wide = array.astype(np.float64)
            largest = np.abs(wide).max(axis=1, keepdims=True)
            scale = np.where(largest > 0.0, largest / 127.0, 1.0).astype(np.float32)
            held[name] = np.clip(np.rint(wide / scale), -127.0, 127.0) * scale
    return held


def split_heads(x: Array, heads: int) -> Array:
    """[B, T, heads * D] -> [B, heads, T, D]."""
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def rotations(
    model: Any, positions: NDArray[Any], arithmetic: Arithmetic = EXACT
) -> tuple[Array, Array]:
    """Both cos and sin [T, D]; entries d and d + D/2 turn together ("rotate half")."""
    angles = positions[:, None] * np.tile(rope_frequencies(model), 2)
    return arithmetic.stored(np.cos(angles)), arithmetic.stored(np.sin(angles))


def rope_frequencies(model: Any) -> Array:
    """[D / 2] radians a token; Llama 3.1 slows the low ones and blends a band between."""
    steps = np.arange(0, model.head_dim, 2) / model.head_dim
    frequencies: Array = float(model.rope_theta) ** -steps
    scaling = model.rope_scaling
    if scaling is None:
        return frequencies
    turns = scaling.original_context * frequencies / (2 * np.pi)  # within the trained context
    band = scaling.high_frequency_factor - scaling.low_frequency_factor
    keep: Array = np.clip((turns - scaling.low_frequency_factor) / band, 0.0, 1.0)
    blended: Array = keep * frequencies + (1.0 - keep) * frequencies / scaling.factor
    return blended


def rotate(x: Array, rope: tuple[Array, Array], arithmetic: Arithmetic) -> Array:
    """[B, heads, T, D] turned by the angle of its position."""
    cos, sin = rope
    first, second = np.split(x, 2, axis=-1)
    turned = np.concatenate([-second, first], axis=-1)
    return arithmetic.stored(arithmetic.stored(x * cos) + arithmetic.stored(turned * sin))


def feed_forward(model: Any, named: _Named, x: Array, arithmetic: Arithmetic) -> Array:
    """The gated MLP of one layer, its norm included: [B, T, E]."""
    h = normalise(model, named("post_attention_layernorm"), x, arithmetic)
    gate = project(named("mlp.gate_proj"), h, arithmetic)
    up = project(named("mlp.up_proj"), h, arithmetic)
    gated = arithmetic.stored(arithmetic.stored(activate(model.activation, gate)) * up)
    return project(named("mlp.down_proj"), gated, arithmetic)


def activate(name: str, x: Array) -> Array:
    """SiLU, or the tanh form of GELU."""
    if name == "silu":
        return x / (1.0 + np.exp(-x))
    if name == "gelu_tanh":
        inner: Array = np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)
        return 0.5 * x * (1.0 + np.tanh(inner))
    raise ValueError(f"got activation {name!r}, expected 'silu' or 'gelu_tanh'")
