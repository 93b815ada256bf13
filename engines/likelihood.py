"""What an engine says of tokens that it is given one by one: every answer comes from its cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Reals = NDArray[np.float64]


def read(engine: Any, stream: Ints) -> Iterator[Reals]:
    """Logits [B, V] after each token of a stream [B, T]; the first is a prompt, the others steps.

    For engines in torch: the next token takes the place of the one that the engine chose.
    """
    import torch

    step = engine.prefill(stream[:, :1].tolist())
    yield step.logits().astype(np.float64)
    for column in stream.T[1:]:
        tokens = torch.from_numpy(column.copy()).to(step.tokens.device)
        step = engine.decode(replace(step, tokens=tokens))
        yield step.logits().astype(np.float64)


def mean_loss(engine: Any, token_ids: Sequence[Sequence[int]]) -> float:
    """Negative log-likelihood of tokens [B, T], nats a token: the mean over all but the first of
    each row, each given all before it.
    """
    stream = np.asarray(token_ids, dtype=np.int64)
    losses = []
    for logits, following in zip(read(engine, stream[:, :-1]), stream.T[1:], strict=True):
        losses.append(-log_softmax(logits)[np.arange(len(following)), following])
    return float(np.mean(losses))


def log_softmax(logits: Reals) -> Reals:
    """Over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    scores: Reals = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return scores
