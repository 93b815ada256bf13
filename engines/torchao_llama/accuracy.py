"""How far the techniques move the model: the same tokens through it and through the plain one.

Both read one fixed stream of tokens, a token a step, so that every position but the first is
answered from the cache as it is held. No text is chosen by either, so no difference feeds itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.torchao_llama.programs import engine_for

TOKENS = 64
SEED = 0

Ints = NDArray[np.int64]


def compare(engine: Any, workload: Any, weights: Any) -> dict[str, float]:
    """KL divergence of the plain model's distribution from the engine's, nats a token, the mean of
    all positions and sequences; and the largest difference of a logit.
    """
    stream = fixed_stream(workload, engine.cache_tokens)
    plain = engine_for(workload.sized(options=()), engine.device, weights)
    divergences, largest = [], 0.0
    for expected, found in zip(read(plain, stream), read(engine, stream), strict=True):
        divergences.append(divergence(expected, found))
        largest = max(largest, float(np.abs(expected - found).max()))
    plain.close()
    mean = max(0.0, float(np.mean(divergences)))  # rounding can end a little below
    return {"kl_divergence": mean, "max_logit_error": largest}


def fixed_stream(workload: Any, room: int) -> Ints:
    """Tokens [B, T], always the same for a vocabulary, a batch and a room."""
    shape = (workload.batch, min(TOKENS, room))
    return np.random.default_rng(SEED).integers(0, workload.model.vocab_size, shape)


def read(engine: Any, stream: Ints) -> Iterator[NDArray[np.float64]]:
    """Logits [B, V] after each token of a stream [B, T]."""
    import torch

    step = engine.prefill(stream[:, :1].tolist())
    yield step.logits().astype(np.float64)
    for column in stream.T[1:]:
        tokens = torch.from_numpy(column.copy()).to(step.tokens.device)
        step = engine.decode(replace(step, tokens=tokens))
        yield step.logits().astype(np.float64)


def divergence(expected: NDArray[np.float64], found: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of p ln(p / q) over the vocabulary, p and q the softmaxes of logits [B, V]: [B]."""
    p, q = log_softmax(expected), log_softmax(found)
    total: NDArray[np.float64] = (np.exp(p) * (p - q)).sum(axis=-1)
    return total


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    scores: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return scores
