"""The next token from the scores of all: the best one, or drawn from what is left of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Sampling:
    """temperature 0 takes the best token; top_k 0 and top_p 1 leave all tokens in.

    top_k keeps the k best tokens, top_p the fewest best whose probabilities reach p; of both, what
    top_k left is what top_p sums. Tokens as good as the last one kept are kept as well.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                f"got {self}, expected temperature and top_k of at least 0, 0 < top_p <= 1"
            )
        if self.temperature == 0 and (self.top_k or self.top_p < 1 or self.seed):
            raise ValueError(
                f"got {self}: at temperature 0 the best token is taken, "
                "and top_k, top_p and seed have no effect; leave them out"
            )


GREEDY = Sampling()


def choose(sampling: Sampling, scores: Any, draw: Any) -> Any:
    """Scores [B, V] -> tokens [B] int32; `draw` numbers the draws of an engine's life."""
    if sampling.temperature == 0:
        return jnp.argmax(scores, axis=-1).astype(jnp.int32)
    key = jax.random.fold_in(jax.random.key(sampling.seed), draw)
    left = restricted(scores.astype(jnp.float32) / sampling.temperature, sampling)
    return jax.random.categorical(key, left).astype(jnp.int32)


def restricted(scores: Any, sampling: Sampling) -> Any:
    """Scores [B, V] with minus infinity where top_k and top_p leave a token out."""
    if not sampling.top_k and sampling.top_p == 1:
        return scores
    ranked = jnp.sort(scores, axis=-1, descending=True)
    if sampling.top_k:
        ranked = ranked[:, : sampling.top_k]
    shares = jax.nn.softmax(ranked, axis=-1)
    before = jnp.cumsum(shares, axis=-1) - shares  # of the better ones; the best is always kept
    kept = jnp.where(before < sampling.top_p, ranked, jnp.inf)
    return jnp.where(scores >= kept.min(-1, keepdims=True), scores, -jnp.inf)
