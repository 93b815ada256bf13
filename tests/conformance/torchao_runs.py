"""Runs of the torchao engine that its tests share."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np

from engines.reference import forward
from engines.tolerance import disagreement, error_bound
from engines.torchao_llama.engine import TorchaoLlama
from engines.torchao_llama.plan import MODES, Plan
from engines.weights import SeededWeights
from perfsuite.workloads.workload import Model, Workload

CACHE, DECODES = 48, 4
PLANS = {
    "normal": MODES["normal"],
    "linear_mask": Plan(linear_mask=True),
    "kv_quant": MODES["kv_quant"],
    "kv_quant_linear_mask": MODES["kv_quant_linear_mask"],
}
OPTIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "normal": (),
    "kv_quant": (("kv_cache_quantization", "true"),),
    "kv_quant_linear_mask": (("kv_cache_quantization", "true"), ("linear_causal_mask", "true")),
    "int4_kv_quant_linear_mask": (
        ("quantization", "int4wo"),
        ("kv_cache_quantization", "true"),
        ("linear_causal_mask", "true"),
    ),
}


def opened(model: Model, plan: Plan, dtype: str = "float32", batch: int = 2, **options: Any) -> Any:
    fields = {"cache_tokens": CACHE, "weights": SeededWeights(model, dtype), "dtype": dtype}
    return TorchaoLlama(model, batch=batch, plan=plan, **(fields | options))


def prompts(batch: int, time: int, seed: int = 0) -> list[array[int]]:
    ids = np.random.default_rng(seed).integers(0, 256, (batch, time))
    return [array("i", row.tolist()) for row in ids]


def continued(engine: Any, step: Any, decodes: int = DECODES) -> tuple[Any, Any]:
    """Tokens [B, steps] and logits [B, steps, V] of the step and `decodes` more."""
    steps = [step]
    for _ in range(decodes):
        steps.append(engine.decode(steps[-1]))
    engine.wait(steps[-1])
    tokens = np.stack([step.tokens.numpy() for step in steps], axis=1)
    return tokens, np.stack([step.logits() for step in steps], axis=1)


def judged(engine: Any, ids: Any, tokens: Any, logits: Any) -> str | None:
    """Why tokens and logits after prompts [B, T] are wrong, or None."""
    dtype, time = engine.config["dtype"], len(ids[0])
    held = dict(SeededWeights(engine.model, dtype))
    if engine.plan.scheme:
        held |= dict(engine.weights.numbers())
    options = {"int8_cache_from": time} if engine.plan.int8_cache else {}
    seen = np.concatenate([np.array([list(row) for row in ids]), tokens[:, :-1]], axis=1)
    exact = forward(engine.model, held, seen, **options)
    bound = error_bound(engine.model, held, seen, dtype, exact, **options)
    return disagreement(logits, tokens, exact[:, time - 1 :], bound[:, time - 1 :])


def sampled(engine: Any, time: int, seed: int = 0, decodes: int = DECODES) -> str | None:
    """A prompt and its continuation, judged."""
    ids = prompts(engine.batch, time, seed)
    return judged(engine, ids, *continued(engine, engine.prefill(ids), decodes))


def cell(model: Model, mode: str = "normal", **changes: Any) -> Workload:
    """A torchao cell of a mode at a tiny size."""
    fields: dict[str, Any] = {
        "id": "cell",
        "document": "torchao",
        "place": "context length 48",
        "kind": "generate",
        "mode": mode,
        "model": model,
        "device": "A100",
        "batch": 1,
        "input_tokens": 6,
        "output_tokens": 8,
        "cache_tokens": CACHE,
        "options": OPTIONS.get(mode, ()),
    }
    return Workload(**(fields | changes))
