"""The Hydragen engine decoding by its Triton kernels, interpreted, against the reference.

A process of its own, with TRITON_INTERPRET=1. Prints one JSON object a case: {"case", "wrong"}.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from engines.hydragen import on_device
from engines.hydragen.engine import Hydragen
from engines.weights import seeded_weights
from tests.conformance.conftest import SHAPES, TINY
from tests.conformance.hydragen_kernel_runs import (
    bfloat16_as_a_device,
    quicker,
    scalars_as_numbers,
)
from tests.conformance.test_hydragen import DECODES, TREES, row, verdict, ways


def opened(model: Any, batch: int, dtype: str = "float32", *, share: bool = True) -> Hydragen:
    weights = seeded_weights(model, dtype)
    return Hydragen(
        model, batch=batch, shared_tokens=40, own_tokens=DECODES, weights=weights, dtype=dtype,
        share=share, triton=True,
    )  # fmt: skip


def shared(model: Any, dtype: str = "float32", *, share: bool = True) -> str | None:
    engine, prefix = opened(model, 3, dtype, share=share), row(9, 1)
    return verdict(engine, engine.prefill_shared(prefix, 3), [prefix] * 3)


def tree(name: str) -> str | None:
    engine = opened(TINY, 4)
    return verdict(engine, engine.prefill_tree(TREES[name]), ways(TREES[name], 4))


def one_after_the_other() -> str | None:
    """Prompts of equal and of other lengths, another batch, and an older step decoded again."""
    engine = opened(TINY, 4)
    found = []
    for batch, length in ((4, 9), (4, 9), (4, 5), (2, 5)):
        prefix = row(length, 7 * length)
        first = engine.prefill_shared(prefix, batch)
        engine.decode(engine.decode(first))
        found.append(verdict(engine, first, [prefix] * batch))
    return next(filter(None, found), None)


def planted(name: str, bug: Callable[..., Any]) -> str | None:
    real = getattr(on_device.kernels, name)
    setattr(on_device.kernels, name, lambda *given: bug(real, *given))
    try:
        return shared(TINY)
    finally:
        setattr(on_device.kernels, name, real)


def cases() -> Iterator[tuple[str, str | None]]:
    for name, model in SHAPES.items():
        yield f"shared {name}", shared(model)
    yield "bfloat16", shared(TINY, "bfloat16")
    yield "copied", shared(TINY, share=False)
    for name in ("ragged suffixes", "ragged prefixes", "an empty row"):
        yield name, tree(name)
    yield "one after the other", one_after_the_other()
    yield "planted length", planted(
        "decode_attention", lambda real, q, k, v, lengths: real(q, k, v, lengths - 1)
    )
    yield "planted weight", planted(
        "combine", lambda real, outs, lses: real(outs, lses * 1.1)
    )


if __name__ == "__main__":
    bfloat16_as_a_device()
    quicker()
    scalars_as_numbers()
    for case, wrong in cases():
        print(json.dumps({"case": case, "wrong": wrong}), flush=True)  # noqa: T201
