"""Sharded runs on 8 host devices, in a process of their own: prints one JSON object a case.

Run by test_jetstream_sharded.py, because the number of host devices is fixed when JAX starts.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import replace
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np

from engines.jetstream.checking import expected
from engines.jetstream.engine import JetStream
from engines.tolerance import disagreement
from engines.weights import seeded_weights
from tests.conformance.conftest import TINY
from tests.conformance.jetstream_runs import Seats, continued, opened, prompts

SMALL = replace(TINY, layers=1)
# case: (model, batch, shard_on_batch)
CASES = {
    "heads": (replace(SMALL, heads=16, kv_heads=8), 2, False),
    "heads_batch_1": (replace(SMALL, heads=16, kv_heads=8), 1, False),
    "head_dim": (replace(SMALL, kv_heads=1, tied_embeddings=True), 2, False),
    "batch": (SMALL, 8, True),
}


def facts(name: str, quantize: bool) -> dict[str, Any]:
    """What one case did beside the same engine on one device."""
    model, batch, on_batch = CASES[name]
    options = {"quantize_weights": quantize, "quantize_cache": quantize}
    fields: dict[str, Any] = {"batch": batch, "cache_tokens": 11} | options
    sharded = opened(model, devices=jax.devices(), on_batch=on_batch, **fields)
    alone = opened(model, **fields)
    ids = prompts(sharded, 9)
    tokens, logits = continued(sharded, ids, 5)
    wanted, others = continued(alone, ids, 5)
    weights = seeded_weights(model, "float32")
    exact, bound = expected(sharded.plan, weights, ids, tokens)
    same = (tokens == wanted).cumprod(axis=1).astype(bool)  # from a difference on they part
    apart = np.abs(logits - others).max(axis=-1) / (2 * bound)
    return {
        "case": f"{name} {'int8' if quantize else 'plain'}",
        "devices": sharded.config["devices"],
        "sharding": sharded.config["sharding"],
        "wrong": disagreement(logits, tokens, exact, bound),
        "first_tokens_equal": bool(same[:, 0].all()),
        "apart": float(apart[same].max()),
        "slots": slots_of(sharded) if name == "batch" else None,
    } | programs_of(sharded)


def slots_of(engine: JetStream) -> list[str | None]:
    """Sequences in slots of different devices that start and end apart."""
    seats = Seats(engine)
    first = seats.start(0, 3, seed=1)
    seats.step(2)
    second = seats.start(7, 5, seed=2)
    seats.end(0)
    third = seats.start(3, 4, seed=3)
    seats.step(6)
    return [seats.judge(one) for one in (first, second, third)]


def programs_of(engine: JetStream) -> dict[str, Any]:
    """Bytes that alias against those of a device's caches; collectives as large as a cache."""
    state = engine.emptied()
    prefix = engine.prefill_one([1, 2, 3])
    made = engine.programs
    generate = made.generate.lower(engine.weights, state.caches, state.slots).compile()
    insert = made.insert.lower(state.caches, state.slots, prefix, np.int32(1)).compile()
    leaves = jax.tree.leaves(state.caches)
    return {
        "cache": sum(leaf.nbytes for leaf in leaves) // 8,
        "aliased": generate.memory_analysis().alias_size_in_bytes,
        "aliased_by_insert": insert.memory_analysis().alias_size_in_bytes,
        "whole_caches": sum(gathers(x.as_text(), leaves[0].shape) for x in (generate, insert)),
    }


def gathers(text: str, shape: tuple[int, ...]) -> int:
    """Collectives whose result is a whole cache."""
    sizes = ",".join(map(str, shape))
    return len(re.findall(rf"\[{sizes}\]\S* (?:all-gather|all-to-all|collective-permute)\(", text))


if __name__ == "__main__":
    for case in sys.argv[1:] or CASES:
        for int8 in (False, True):
            print(json.dumps(facts(case, int8)), flush=True)  # noqa: T201
