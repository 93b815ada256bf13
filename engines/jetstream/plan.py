"""What an engine is opened as: the sizes and options that its programs are compiled for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from engines.jetstream.sampling import GREEDY, Sampling
from engines.jetstream.sharding import Sharding

SMALLEST_BUCKET = 16
LANES = 128  # numbers of a row of a TPU's tile


@dataclass(frozen=True)
class Plan:
    """`tokens` is the longest that one sequence may become; the cache may be shorter and rolls."""

    model: Any
    sharding: Sharding
    batch: int
    cache_tokens: int
    tokens: int
    dtype: str = "bfloat16"
    quantize_weights: bool = False
    quantize_cache: bool = False
    sampling: Sampling = field(default=GREEDY)

    def __post_init__(self) -> None:
        sizes = {"batch": self.batch, "cache_tokens": self.cache_tokens, "tokens": self.tokens}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"got {name} {size}, expected at least 1")

    @property
    def number(self) -> Any:
        """The type of activations, and of weights and cache that are not quantised."""
        return jnp.dtype(self.dtype)

    @property
    def part(self) -> int:
        """Numbers of a head that lie beside each other in the cache: P."""
        return LANES if self.model.head_dim % LANES == 0 else int(self.model.head_dim)

    def size(self, letters: str) -> tuple[int, ...]:
        """The shape that these letters stand for; T has no fixed size."""
        m = self.model
        known = {"B": self.batch, "C": self.cache_tokens, "E": m.hidden_size, "H": m.heads}
        known |= {"K": m.kv_heads, "D": m.head_dim, "I": m.intermediate_size, "V": m.vocab_size}
        known |= {"N": m.head_dim // self.part, "P": self.part}
        return tuple(known[letter] for letter in letters)

    def abstract(self, letters: str, dtype: Any = None) -> jax.ShapeDtypeStruct:
        """An array without data, where it would lie."""
        number = self.number if dtype is None else dtype
        place = self.sharding.place(letters)
        return jax.ShapeDtypeStruct(self.size(letters), number, sharding=place)

    def bucket(self, length: int) -> int:
        """The power of two, at least 16, that a prompt of this length is padded to."""
        return max(SMALLEST_BUCKET, 1 << (length - 1).bit_length())


def bytes_a_chip(tree: Any) -> int:
    """Bytes of a device's part of these arrays, abstract or real."""
    return sum(
        int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )
