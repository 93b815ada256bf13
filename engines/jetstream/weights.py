"""The weights as the programs hold them: without data, from numpy, or drawn on the devices.

A matrix keeps the divided axis first and the hidden size last, so that no part of it is padded on
a TPU, whose tiles are 8 to 32 rows of 128 numbers.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from engines.jetstream.plan import Plan
from engines.jetstream.quantize import Int8, quantized, quantized_on_host
from engines.weights import spread


class Layer(NamedTuple):
    """One layer; the letters of each matrix are in MATRICES."""

    attention_norm: Any
    q: Any
    k: Any
    v: Any
    output: Any
    mlp_norm: Any
    gate: Any
    up: Any
    down: Any


class Weights(NamedTuple):
    """`head` is None where it is the embedding; cos and sin [tokens, D / 2] turn by position."""

    embedding: Any
    layers: tuple[Layer, ...]
    norm: Any
    head: Any
    cos: Any
    sin: Any


# field: (Hugging Face name, letters of the shape, those of them that are summed over)
MATRICES = {
    "attention_norm": ("input_layernorm", "E", ""),
    "q": ("self_attn.q_proj", "HDE", "E"),
    "k": ("self_attn.k_proj", "KDE", "E"),
    "v": ("self_attn.v_proj", "KDE", "E"),
    "output": ("self_attn.o_proj", "HDE", "HD"),
    "mlp_norm": ("post_attention_layernorm", "E", ""),
    "gate": ("mlp.gate_proj", "IE", "E"),
    "up": ("mlp.up_proj", "IE", "E"),
    "down": ("mlp.down_proj", "IE", "I"),
}
Make = Callable[[str, str, str], Any]  # (name, letters, letters summed over) -> array or Int8


def abstract_weights(plan: Plan) -> Weights:
    """All of them without data."""

    def make(name: str, letters: str, summed: str) -> Any:  # noqa: ARG001  (one signature)
        if not (summed and plan.quantize_weights):
            return plan.abstract(letters)
        channels = "".join(letter for letter in letters if letter not in summed)
        return Int8(plan.abstract(letters, jnp.int8), plan.abstract(channels, jnp.float32))

    half = jax.ShapeDtypeStruct(
        (plan.tokens, plan.model.head_dim // 2), plan.number, sharding=plan.sharding.place("")
    )
    return _assemble(plan, make, half, half)


def load_weights(plan: Plan, source: Mapping[str, Any] | int) -> Weights:
    """From numpy arrays by Hugging Face name, or drawn on the devices from a seed."""
    if isinstance(source, int):
        make: Make = partial(_draw, plan, source)
    else:
        make = partial(_take, plan, source)
    whole = plan.sharding.place("")
    cos, sin = (jax.device_put(table.astype(plan.number), whole) for table in rope_tables(plan))
    return _assemble(plan, make, cos, sin)


def rope_tables(plan: Plan) -> tuple[Any, Any]:
    """Both cos and sin [tokens, D / 2], in float64: angles in float32 would lose long positions."""
    angles = np.outer(np.arange(plan.tokens), rope_frequencies(plan.model))
    return np.cos(angles), np.sin(angles)


def rope_frequencies(model: Any) -> Any:
    """[D / 2] radians a token; Llama 3.1 slows the slow turns, keeps the quick, blends between."""
    frequencies = model.rope_theta ** -(np.arange(0, model.head_dim, 2) / model.head_dim)
    scaling = model.rope_scaling
    if scaling is None:
        return frequencies
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    wavelengths = 2 * np.pi / frequencies
    keep = np.clip((scaling.original_context / wavelengths - low) / (high - low), 0.0, 1.0)
    return frequencies * (keep + (1.0 - keep) / scaling.factor)


def _assemble(plan: Plan, make: Make, cos: Any, sin: Any) -> Weights:
    def layer(number: int) -> Layer:
        parts = {
            field: make(f"model.layers.{number}.{name}.weight", letters, summed)
            for field, (name, letters, summed) in MATRICES.items()
        }
        return Layer(**parts)

    return Weights(
        embedding=make("model.embed_tokens.weight", "VE", "E"),
        layers=tuple(layer(number) for number in range(plan.model.layers)),
        norm=make("model.norm.weight", "E", ""),
        head=None if plan.model.tied_embeddings else make("lm_head.weight", "VE", "E"),
        cos=cos,
        sin=sin,
    )


def _axes(letters: str, summed: str) -> tuple[int, ...]:
    return tuple(letters.index(letter) for letter in summed)


def _take(plan: Plan, source: Mapping[str, Any], name: str, letters: str, summed: str) -> Any:
    """A Hugging Face matrix is [outputs, inputs]; ours starts with the divided of the two."""
    array = np.asarray(source[name], np.float32) + _added(plan, name)
    if summed and letters.startswith(summed):
        array = array.T
    array = array.reshape(plan.size(letters))
    if not (summed and plan.quantize_weights):
        return jax.device_put(array.astype(plan.number), plan.sharding.place(letters))
    held = quantized_on_host(array, _axes(letters, summed))
    return jax.tree.map(jax.device_put, held, _places(plan, letters, summed))


def _draw(plan: Plan, seed: int, name: str, letters: str, summed: str) -> Any:
    """Random numbers of the usual spread, one matrix at a time."""
    mean, deviation = spread(plan.model, name)
    quantize = bool(summed) and plan.quantize_weights

    def drawn(key: jax.Array) -> Any:
        values = jax.random.normal(key, plan.size(letters), plan.number)
        values = values * deviation + (mean + _added(plan, name))
        axes = _axes(letters, summed)
        return quantized(values, axes, jnp.float32) if quantize else values.astype(plan.number)

    place = _places(plan, letters, summed) if quantize else plan.sharding.place(letters)
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
    return jax.jit(drawn, out_shardings=place)(key)


def _places(plan: Plan, letters: str, summed: str) -> Int8:
    channels = "".join(letter for letter in letters if letter not in summed)
    return Int8(plan.sharding.place(letters), plan.sharding.place(channels))


def _added(plan: Plan, name: str) -> float:
    return float(plan.model.norm_adds_one and name.endswith("norm.weight"))
