"""The bound is tight enough: engines with a planted bug are outside it.

In bfloat16 it cannot catch a head scaled by 1.01: that is less than the rounding of bfloat16
(2**-8, at some ten places in each layer) does by itself. float32 runs of the same code catch it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from engines.verification import verify
from engines.weights import seeded_weights
from perfsuite.workloads.workload import Workload

if TYPE_CHECKING:
    from engines.torch_llama import TorchLlama
else:
    TorchLlama = pytest.importorskip("engines.torch_llama", reason="needs torch").TorchLlama


def healthy(engine: TorchLlama) -> None:
    """Nothing planted."""


def head_scaled(engine: TorchLlama) -> None:
    """What head 1 of layer 1 contributes is 1 % too large."""
    engine.weights.layers[1].output.narrow(1, 16, 16).mul_(1.01)


def head_scaled_by_half(engine: TorchLlama) -> None:
    engine.weights.layers[1].output.narrow(1, 16, 16).mul_(1.5)


def mask_missing(engine: TorchLlama) -> None:
    """The prompt's tokens see the future."""
    flash = engine._flash
    engine._flash = lambda q, k, v, dropout, causal: flash(q, k, v, dropout, False)


def mask_off_by_one(engine: TorchLlama) -> None:
    """A decoded token does not see itself."""
    whole = engine._attend_one

    def shorter(q: Any, keys: Any, values: Any) -> Any:
        time = keys.shape[2] - 1
        return whole(q, keys.narrow(2, 0, time), values.narrow(2, 0, time))

    engine._attend_one = shorter  # type: ignore[method-assign]


def rope_off_by_one(engine: TorchLlama) -> None:
    """Decoded tokens sit one position further on than they should."""
    decode = engine.decode

    def turned(step: Any) -> Any:
        engine.cos, engine.sin = engine.cos.roll(-1, 0), engine.sin.roll(-1, 0)
        try:
            return decode(step)
        finally:
            engine.cos, engine.sin = engine.cos.roll(1, 0), engine.sin.roll(1, 0)

    engine.decode = turned  # type: ignore[method-assign]


def epsilon_wrong(engine: TorchLlama) -> None:
    """The norm's epsilon is 0.5 instead of 1e-5."""
    engine.decoder.model = replace(engine.model, norm_eps=0.5)


def stale_cache(engine: TorchLlama) -> None:
    """The second prompt goes on where a slot of the first is left over."""
    engine.prefill(np.full((engine.batch, 16), 3).tolist())
    engine._next = lambda time: time + 1  # type: ignore[method-assign]


def group_mistaken(engine: TorchLlama) -> None:
    """Query heads read the wrong key/value head: 0 1 0 1 instead of 0 0 1 1."""
    for layer in engine.weights.layers:
        query = layer.qkv.narrow(0, 0, 64)
        query.copy_(query.view(2, 2, 16, 64).transpose(0, 1).reshape(64, 64))


GROSS = [mask_missing, mask_off_by_one, rope_off_by_one, stale_cache, group_mistaken]
GROSS += [epsilon_wrong, head_scaled_by_half]


def verdict(workload: Workload, plant: Callable[[TorchLlama], None]) -> str | None:
    weights = seeded_weights(workload.model, workload.dtype)
    engine = TorchLlama(
        workload.model,
        batch=workload.batch,
        cache_tokens=workload.cache_tokens,
        weights=weights,
        dtype=workload.dtype,
    )
    plant(engine)
    return verify(engine, workload, weights)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("bug", GROSS)
def test_gross_bugs_are_caught_in_every_type(
    workload: Callable[..., Workload], bug: Callable[[TorchLlama], None], dtype: str
) -> None:
    reason = verdict(workload(dtype=dtype), bug)
    assert reason is not None
    assert "the bound is" in reason


def test_a_head_scaled_by_one_percent_is_caught_in_float32(
    workload: Callable[..., Workload],
) -> None:
    assert "are off by" in (verdict(workload(dtype="float32"), head_scaled) or "")


def test_bfloat16_hides_one_percent_of_a_head(workload: Callable[..., Workload]) -> None:
    assert verdict(workload(dtype="bfloat16"), head_scaled) is None


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_without_a_bug_nothing_is_found(workload: Callable[..., Workload], dtype: str) -> None:
    assert verdict(workload(dtype=dtype), healthy) is None


def test_not_a_number_is_found(workload: Callable[..., Workload]) -> None:
    def poisoned(engine: TorchLlama) -> None:
        engine.weights.norm.fill_(float("nan"))

    assert verdict(workload(dtype="float32"), poisoned) == "logits are not finite"


def test_a_wrong_choice_with_right_logits_is_found(workload: Callable[..., Workload]) -> None:
    """Sampling broken: the second best token is taken."""

    def second(engine: TorchLlama) -> None:
        chosen = engine._step
        engine._step = lambda scores, position: replace(  # type: ignore[method-assign]
            chosen(scores, position), tokens=scores.topk(2).indices.select(1, 1)
        )

    reason = verdict(workload(dtype="float32"), second)
    assert reason is not None
    assert reason.startswith("token of row")
