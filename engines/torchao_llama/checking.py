"""The engine's outputs against the reference's, with what is quantised taken into account.

Three things are compared, so that a technique can neither be off nor wrong:

1. What is held is what the plan says: types of the cache and of the matrices, shape of the mask.
2. Quantised weights are near those that were loaded. int8 takes the nearest of levels `s` apart,
   s = largest / 127.5, the last level at 127; int4 the nearest of 16 levels `s` apart between the
   group's extremes, s = (largest - smallest) / 15: both are off by s / 2 at most. Scales and zero
   points are rounded to the model's type: 128 levels, or 16 and a zero point of 8 levels and the
   smallest, each by the unit u; and int4 levels are found in that type, from three operations.
   So the bound is s (1/2 + 128 u) for int8 and s (1/2 + 64 u) + 2 u (|smallest| + |largest|).
3. Logits agree with the reference on the weights as they are held and on a cache of int8 levels,
   within the derived bound (engines.tolerance): the weights are then no part of it.

Two prompts in a row, a long one first: what it leaves behind must not be seen by the second.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import int8

from engines.reference import Array, forward
from engines.tolerance import disagreement, error_bound
from engines.torchao_llama.plan import plan_of
from engines.torchao_llama.schemes import group_for
from engines.verification import DECODE_STEPS, draw, run
from engines.weights import SIGNIFICAND_BITS

PROMPTS = (12, 5)


def verify(engine: Any, workload: Any, weights: Mapping[str, Any]) -> str | None:
    """Why the engine is wrong, or None; `weights` before they are quantised."""
    held = dict(weights)
    if wrong := switched_off(engine, workload):
        return wrong
    if engine.plan.scheme:
        quantised = dict(engine.weights.numbers())
        held |= quantised
        if wrong := far_from(weights, quantised, engine):
            return wrong
    for time in PROMPTS:
        if wrong := judged(engine, workload, held, time):
            return f"prompt of {time}: {wrong}"
    return None


def switched_off(engine: Any, workload: Any) -> str | None:
    """A technique of the workload that the held tensors do not show, or one that they should not
    show, or None.
    """
    plan = plan_of(workload)
    keys, mask, matrix = engine.caches[0].keys, engine.mask.held, engine.weights.layers[0].qkv
    shown = {
        "int8 cache": (plan.int8_cache, keys.dtype == int8, f"keys are {keys.dtype}"),
        "linear mask": (plan.linear_mask, mask.ndim == 1, f"the mask is {list(mask.shape)}"),
        plan.scheme or "quantisation": (
            bool(plan.scheme),
            hasattr(matrix, "__tensor_flatten__"),
            f"matrices are {type(matrix).__name__}",
        ),
    }
    for name, (wanted, found, words) in shown.items():
        if wanted != found:
            return f"{name} is {'on' if found else 'off'}: {words}"
    return None


def far_from(weights: Mapping[str, Any], held: Mapping[str, Any], engine: Any) -> str | None:
    """A matrix whose held numbers are further from its own than quantising explains, or None."""
    unit = 2.0 ** -SIGNIFICAND_BITS[engine.config["dtype"]]
    for name, found in held.items():
        exact = weights[name].astype(np.float64)
        bound = _step_bound(exact, engine.plan.scheme, group_for(engine.model), unit)
        beyond = np.abs(found - exact) / bound
        if not np.isfinite(found).all() or beyond.max() > 1.0:
            row, column = np.unravel_index(np.argmax(beyond), beyond.shape)
            return (
                f"{name}[{row}, {column}] is held as {found[row, column]:.4g}, it is "
                f"{exact[row, column]:.4g} and {engine.plan.scheme} allows {bound[row, column]:.2g}"
            )
    return None


def _step_bound(exact: Array, scheme: str, group: int, unit: float) -> Array:
    if scheme == "int8wo":
        step = np.abs(exact).max(axis=1, keepdims=True) / 127.5
        return np.broadcast_to(step * (0.5 + 128 * unit), exact.shape)
    grouped = exact.reshape(len(exact), -1, group)
    low, high = grouped.min(axis=2), grouped.max(axis=2)
    bound: Array = (high - low) / 15 * (0.5 + 64 * unit) + 2 * unit * (np.abs(low) + np.abs(high))
    return bound.repeat(group, axis=1)


def judged(engine: Any, workload: Any, held: Mapping[str, Any], time: int) -> str | None:
    """Why the outputs of a prompt of `time` tokens and a few steps are wrong, or None."""
    decodes = min(DECODE_STEPS, engine.cache_tokens - 1)
    prompts = draw(workload, min(time, engine.cache_tokens - decodes))
    steps = run(engine, workload, prompts, decodes)
    rows, last = sorted({0, engine.batch - 1}), prompts.shape[1] - 1
    tokens = np.stack([step.tokens.cpu().numpy()[rows] for step in steps], axis=1)
    logits = np.stack([step.logits()[rows] for step in steps], axis=1)
    seen = np.concatenate([prompts[rows], tokens[:, :-1]], axis=1)
    options = {"int8_cache_from": prompts.shape[1]} if engine.plan.int8_cache else {}
    exact = forward(engine.model, held, seen, **options)
    bound = error_bound(engine.model, held, seen, engine.config["dtype"], exact, **options)
    return disagreement(logits, tokens, exact[:, last:], bound[:, last:])
