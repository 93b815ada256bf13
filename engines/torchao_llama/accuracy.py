"""How far the techniques move the model: the same tokens through it and through the plain one.

Both read one fixed stream of tokens, a token a step, so that every position but the first is
answered from the cache as it is held. No text is chosen by either, so no difference feeds itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engines.likelihood import Ints, Reals, log_softmax, read
from engines.offers import cache_tokens
from engines.torchao_llama.programs import engine_for

TOKENS = 64
SEED = 0


def plain(workload: Any) -> Any:
    """The workload without its techniques, and with a cache for the stream alone."""
    return workload.sized(options=(), cache_tokens=min(TOKENS, cache_tokens(workload)))


def compare(engine: Any, plain: Any, weights: Any) -> dict[str, float]:
    """KL divergence of the plain workload's distribution from the engine's, nats a token, the mean
    of all positions and sequences; and the largest difference of a logit.
    """
    stream = fixed_stream(plain)
    known = engine_for(plain, engine.device, weights)
    divergences, largest = [], 0.0
    for expected, found in zip(read(known, stream), read(engine, stream), strict=True):
        divergences.append(divergence(expected, found))
        largest = max(largest, float(np.abs(expected - found).max()))
    known.close()
    mean = max(0.0, float(np.mean(divergences)))  # rounding can end a little below
    return {"kl_divergence": mean, "max_logit_error": largest}


def fixed_stream(workload: Any) -> Ints:
    """Tokens [B, C] that fill the cache, always the same for a vocabulary, a batch and a cache."""
    shape = (workload.batch, workload.cache_tokens)
    return np.random.default_rng(SEED).integers(0, workload.model.vocab_size, shape)


def divergence(expected: Reals, found: Reals) -> Reals:
    """Sum of p ln(p / q) over the vocabulary, p and q the softmaxes of logits [B, V]: [B]."""
    p, q = log_softmax(expected), log_softmax(found)
    total: Reals = (np.exp(p) * (p - q)).sum(axis=-1)
    return total
