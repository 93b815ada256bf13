"""The engine's outputs against the reference's, teacher-forced and within the derived bound.

The prompt of a rolling workload is as long as the ring, so that the steps after it roll; any prompt
ends at the ring's position 0, so that every one wraps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from engines.jetstream.plan import Plan
from engines.reference import Array, forward, int8_weights
from engines.tolerance import disagreement, error_bound
from engines.verification import DECODE_STEPS, PROMPT_TOKENS, draw, run


def verify(engine: Any, workload: Any, weights: Mapping[str, Any]) -> str | None:
    """Why the engine's logits or tokens are wrong, or None; weights before they are quantised."""
    plan = engine.plan
    decodes = min(DECODE_STEPS, plan.tokens - 1)
    wanted = plan.cache_tokens if plan.cache_tokens < plan.tokens else PROMPT_TOKENS
    prompts = draw(workload, min(wanted, plan.tokens - decodes))
    steps = run(engine, workload, prompts, decodes)
    rows = sorted({0, plan.batch - 1})
    tokens = np.stack([np.asarray(step.tokens)[rows] for step in steps], axis=1)
    logits = np.stack([step.logits()[rows] for step in steps], axis=1)
    return judged(plan, weights, prompts[rows], tokens, logits)


def judged(
    plan: Plan, weights: Mapping[str, Any], prompts: Any, tokens: Any, logits: Any
) -> str | None:
    """Of tokens [B, steps] and logits [B, steps, V] after prompts [B, T]; None where right."""
    exact, bound = expected(plan, weights, prompts, tokens)
    return disagreement(logits, tokens, exact, bound)


def expected(
    plan: Plan, weights: Mapping[str, Any], prompts: Any, tokens: Any
) -> tuple[Array, Array]:
    """The reference's logits [B, steps, V] and their bound [B, steps] for what the engine read."""
    time = prompts.shape[1]
    options = {"window": plan.cache_tokens}
    if plan.quantize_weights:
        weights = int8_weights(weights)
    if plan.quantize_cache:
        options["int8_cache_from"] = time
    seen = np.concatenate([prompts, tokens[:, :-1]], axis=1)
    exact = forward(plan.model, weights, seen, **options)
    bound = error_bound(plan.model, weights, seen, plan.dtype, exact, **options)
    return exact[:, time - 1 :], bound[:, time - 1 :]
