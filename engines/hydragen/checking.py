"""What is checked beside the outputs of a plain batch: attention alone, and questions.

The attention benchmark's output is held against float64, within a bound on the largest error.
With u the unit roundoff of the numbers' type and v = 2**-24 that of float32, to first order:

- a score is a sum of D products in float32, off by at most D v sum|q k| / sqrt(D) =: e; numerator
  and denominator of a share are exponents of scores, so a share is off by 2 e, and by 4 v for the
  exponents themselves, relative to itself;
- a share is rounded to the numbers' type before its product with a value (u), the products of S
  keys are summed in float32 (S v), and so are the shares below the fraction (S v);
- a part's output is rounded (u), two parts are mixed in float32 (4 v), the whole is rounded (u).

Each is relative to sum(share |value|), so the sum of all, times that, bounds the largest error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.hydragen.microbenchmark import AttentionBenchmark
from engines.reference import forward
from engines.tolerance import disagreement, error_bound
from engines.weights import SIGNIFICAND_BITS

Array = NDArray[np.float64]
FLOAT32_UNIT = 2.0**-24


QUESTIONS = (3, 1, 4, 2)  # tokens of each in turn
PREFIX, DECODES = 8, 3


def verify_answers(engine: Any, workload: Any, weights: Mapping[str, Any]) -> str | None:
    """Why questions of different lengths behind one prefix are answered wrongly, or None.

    Teacher-forced against the reference, the first and the last question; weights as the engine's
    dtype holds them.
    """
    draw = np.random.default_rng(0)
    prefix = draw.integers(0, workload.model.vocab_size, PREFIX).tolist()
    questions = [
        draw.integers(0, workload.model.vocab_size, QUESTIONS[n % len(QUESTIONS)]).tolist()
        for n in range(workload.batch)
    ]
    engine.prefill_shared(prefix, workload.batch)
    steps = [engine.ask(questions)]
    for _ in range(min(DECODES, workload.output_tokens - 1)):
        steps.append(engine.decode(steps[-1]))
    for row in sorted({0, workload.batch - 1}):
        tokens = np.array([[int(step.tokens[row]) for step in steps]])
        logits = np.stack([step.logits()[row] for step in steps])[None]
        asked = prefix + questions[row]
        seen = np.concatenate([[asked], tokens[:, :-1]], axis=1)
        exact = forward(workload.model, weights, seen)
        bound = error_bound(workload.model, weights, seen, workload.dtype, exact)
        first = len(asked) - 1
        wrong = disagreement(logits, tokens, exact[:, first:], bound[:, first:])
        if wrong:
            return f"question {row + 1} of {workload.batch}: {wrong}"
    return None


def verify(engine: AttentionBenchmark) -> str | None:
    """Why the first or the last sequence's output is wrong, or None."""
    found = engine.attention()
    engine.wait(found)
    batch = found.shape[0]
    for row in sorted({0, batch - 1}):
        q = _exact(engine.queries.narrow(0, row, 1))[0, :, 0]
        keys, values = (
            np.concatenate([_exact(shared)[0], _exact(own.narrow(0, row, 1))[0]], axis=1)
            for shared, own in zip(engine.prefix, engine.suffix, strict=True)
        )
        out, bound = attention(q, keys, values, 2.0 ** -SIGNIFICAND_BITS[engine.config["dtype"]])
        wrong = _wrong(_exact(found.narrow(0, row, 1))[0, :, 0], out, bound)
        if wrong:
            return f"sequence {row} of {batch}: {wrong}"
    return None


def attention(q: Array, keys: Array, values: Array, unit: float) -> tuple[Array, Array]:
    """From q [H, D] on keys and values [K, S, D]: [H, D], and its bound [H, D]."""
    group, (_, count, dim) = len(q) // len(keys), keys.shape
    keys, values = np.repeat(keys, group, 0), np.repeat(values, group, 0)
    scores = np.einsum("hd,hsd->hs", q, keys) / np.sqrt(dim)
    sizes = np.einsum("hd,hsd->hs", abs(q), abs(keys)) / np.sqrt(dim)
    shares = np.exp(scores - scores.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    of_scores = dim * FLOAT32_UNIT * sizes.max(1, keepdims=True)
    relative = 2 * of_scores + 3 * unit + (2 * count + 8) * FLOAT32_UNIT
    bound = relative * np.einsum("hs,hsd->hd", shares, abs(values))
    return np.einsum("hs,hsd->hd", shares, values), bound


def _wrong(found: Array, exact: Array, bound: Array) -> str | None:
    """Words about the element that is furthest beyond its bound, or about one that is no number."""
    if not np.isfinite(found).all():
        return "the output is not finite"
    beyond = abs(found - exact) / bound
    head, place = np.unravel_index(np.argmax(beyond), beyond.shape)
    if beyond[head, place] <= 1:
        return None
    error = abs(found - exact)[head, place]
    return f"head {head} is off by {error:.2g}, the bound is {bound[head, place]:.2g}"


def _exact(x: Tensor) -> Array:
    found: Array = x.to(torch.float64).cpu().numpy()
    return found
