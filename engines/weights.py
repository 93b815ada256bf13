"""Seeded random weights of a Llama-family model, under the names of the Hugging Face layout.

A `model` here and elsewhere in `engines` is any object with the attributes of the shape (layers,
hidden_size, heads, kv_heads, head_dim, intermediate_size, vocab_size, ...).

The rule for random weights, which `engine.config["weights"]` reports:

- up to SEEDED_LIMIT parameters they come from numpy, by this file, so every engine and the
  reference hold the same numbers and the engine's outputs can be verified;
- above it an engine fills them on its own device with the same spread, and nothing is verified.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEEDED_LIMIT = 2**28  # parameters: a few seconds of numpy, 2 GiB in the reference's float64

# Bits of the significand, the hidden one included: the unit roundoff is 2**-bits.
SIGNIFICAND_BITS = {"bfloat16": 8, "float16": 11, "float32": 24}


def tensor_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Every weight of the model: name -> shape, matrices as [outputs, inputs]."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (model.vocab_size, model.hidden_size)
    }
    for layer in range(model.layers):
        for name, shape in _layer_shapes(model).items():
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
    shapes["model.norm.weight"] = (model.hidden_size,)
    if not model.tied_embeddings:
        shapes["lm_head.weight"] = (model.vocab_size, model.hidden_size)
    return shapes


def _layer_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    hidden, inner = model.hidden_size, model.intermediate_size
    query, key = model.heads * model.head_dim, model.kv_heads * model.head_dim
    return {
        "input_layernorm": (hidden,),
        "self_attn.q_proj": (query, hidden),
        "self_attn.k_proj": (key, hidden),
        "self_attn.v_proj": (key, hidden),
        "self_attn.o_proj": (hidden, query),
        "post_attention_layernorm": (hidden,),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }


def is_small(model: Any) -> bool:
    """At most SEEDED_LIMIT parameters: an engine can be verified against the reference."""
    return sum(int(np.prod(shape)) for shape in tensor_shapes(model).values()) <= SEEDED_LIMIT


def spread(model: Any, name: str) -> tuple[float, float]:
    """(mean, standard deviation) of a random tensor; activations stay of order one."""
    if name.endswith("norm.weight"):
        return (0.0 if model.norm_adds_one else 1.0), 0.1  # not constant, or it would hide bugs
    if name == "model.embed_tokens.weight" and not model.tied_embeddings:
        return 0.0, 1.0
    inputs = tensor_shapes(model)[name][1]
    return 0.0, 1.0 / sqrt(inputs)


class SeededWeights(Mapping[str, NDArray[np.float32]]):
    """name -> float32 array, made when asked for, every number representable in `dtype`.

    A tensor depends on its name, its shape and the seed alone, not on the order of asking.
    """

    def __init__(self, model: Any, dtype: str = "float32", seed: int = 0) -> None:
        self.model, self.dtype, self.seed = model, dtype, seed
        self.shapes = tensor_shapes(model)

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        shape = self.shapes[name]
        generator = np.random.default_rng([self.seed, zlib.crc32(name.encode()), *shape])
        mean, deviation = spread(self.model, name)
        array = generator.standard_normal(shape, dtype=np.float32)
        array *= np.float32(deviation)
        array += np.float32(mean)
        return rounded(array, self.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def seeded_weights(model: Any, dtype: str = "float32", seed: int = 0) -> dict[str, Any]:
    """All weights at once, for the reference: name -> float32 array."""
    return dict(SeededWeights(model, dtype, seed))


def rounded(array: NDArray[np.float32], dtype: str) -> NDArray[np.float32]:
    """The float32 numbers nearest to `array` that `dtype` can hold, ties to even."""
    if dtype == "float32":
        return array
    if dtype == "float16":
        return array.astype(np.float16).astype(np.float32)
    if dtype == "bfloat16":
        return _rounded_to_bfloat16(array)
    raise ValueError(f"got dtype {dtype!r}, expected one of {', '.join(SIGNIFICAND_BITS)}")


def _rounded_to_bfloat16(array: NDArray[np.float32]) -> NDArray[np.float32]:
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    half = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))  # ties go to the even one
    return ((bits + half) & np.uint32(0xFFFF0000)).view(np.float32)
