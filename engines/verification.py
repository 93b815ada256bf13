"""An engine's outputs against the reference's: a short prompt and a few decode steps.

Teacher-forced: the reference reads the tokens that the engine itself produced, so one different
choice between two near equals does not make everything after it look wrong. The first and the last
row of the batch are compared; the engine is left as any other prompt leaves it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.reference import forward
from engines.tolerance import disagreement, error_bound

PROMPT_TOKENS = 8
DECODE_STEPS = 3

Ints = NDArray[np.int64]


def verify(engine: Any, workload: Any, weights: Mapping[str, Any]) -> str | None:
    """Why the engine's logits or tokens are wrong, or None; weights as its dtype holds them."""
    room = workload.cache_tokens or workload.sequence_tokens
    decodes = min(DECODE_STEPS, room - 1)
    prompts = draw(workload, min(PROMPT_TOKENS, room - decodes))
    steps = run(engine, workload, prompts, decodes)
    rows = sorted({0, workload.batch - 1})
    tokens = np.stack([asarray(step.tokens)[rows] for step in steps], axis=1)
    logits = np.stack([step.logits()[rows] for step in steps], axis=1)
    seen = np.concatenate([prompts[rows], tokens[:, :-1]], axis=1)
    options = reference_options(workload, prompts.shape[1], decodes)
    exact = forward(workload.model, weights, seen, **options)
    bound = error_bound(workload.model, weights, seen, workload.dtype, exact, **options)
    last = prompts.shape[1] - 1
    return disagreement(logits, tokens, exact[:, last:], bound[:, last:])


def draw(workload: Any, time: int) -> Ints:
    """Prompts [B, time]; equal rows where the workload shares them."""
    rows = 1 if workload.kind == "shared" else workload.batch
    ids = np.random.default_rng(0).integers(0, workload.model.vocab_size, (rows, time))
    return np.broadcast_to(ids, (workload.batch, time))


def run(engine: Any, workload: Any, prompts: Ints, decodes: int) -> list[Any]:
    """The prefill's step and those of the decodes."""
    if workload.kind == "shared":
        steps = [engine.prefill_shared(prompts[0], workload.batch)]
    else:
        steps = [engine.prefill(prompts)]
    for _ in range(decodes):
        steps.append(engine.decode(steps[-1]))
    engine.wait(steps[-1])
    return steps


def reference_options(workload: Any, time: int, decodes: int) -> dict[str, Any]:
    """Without attention nothing is cached, and decoding counts positions from 0 again."""
    if workload.mode != "noattention":
        return {}
    return {"attention": False, "positions": [*range(time), *range(decodes)]}


def asarray(tokens: Any) -> Ints:
    """[B] from any framework's array on any device."""
    return np.asarray(tokens.cpu() if hasattr(tokens, "cpu") else tokens)
