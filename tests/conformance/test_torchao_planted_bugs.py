"""What the torchao engine's checks catch: the document's own bugs, planted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from engines.torchao_llama import cache as cache_module  # noqa: E402
from engines.torchao_llama import engine as engine_module  # noqa: E402
from engines.torchao_llama.cache import Int8Cache  # noqa: E402
from engines.torchao_llama.checking import verify  # noqa: E402
from engines.torchao_llama.masks import LinearMask  # noqa: E402
from engines.torchao_llama.offer import TorchaoLlamaOffer  # noqa: E402
from engines.torchao_llama.plan import MODES, NORMAL, Plan  # noqa: E402
from engines.weights import seeded_weights  # noqa: E402
from perfsuite.workloads.workload import Model  # noqa: E402
from tests.conformance.torchao_runs import CACHE, cell, opened, prompts, sampled  # noqa: E402

Patch = pytest.MonkeyPatch


def healthy(patch: Patch) -> None:
    """Nothing planted."""


def mask_not_cleared(patch: Patch) -> None:
    """The original's: a prompt leaves the places of the one before it visible."""

    def start(self: LinearMask, time: int) -> None:
        self.held.narrow(0, 0, time).fill_(True)
        self._shown = time

    patch.setattr(LinearMask, "start", start)


def scale_over_tokens(patch: Patch) -> None:
    """One scale for all tokens of a head: the wrong axis."""

    def wrong(x: Any) -> tuple[Any, Any]:
        scales = x.abs().amax((-1, -2), keepdim=True).expand(*x.shape[:-1], 1) / 400
        return (x / scales).round().clamp(-127, 127).to(torch.int8), scales

    patch.setattr(cache_module, "quantised", wrong)


def scale_over_heads(patch: Patch) -> None:
    """The scale of the first head for all heads."""
    right = cache_module.quantised

    def wrong(x: Any) -> tuple[Any, Any]:
        scales = right(x)[1].narrow(1, 0, 1).expand(*x.shape[:-1], 1)
        return (x / scales).round().clamp(-127, 127).to(torch.int8), scales

    patch.setattr(cache_module, "quantised", wrong)


def a_bit_lost(patch: Patch) -> None:
    """Seven levels of eight are gone: the cache of a lower precision."""
    right = cache_module.quantised

    def wrong(x: Any) -> tuple[Any, Any]:
        levels, scales = right(x)
        return (levels // 16) * 16, scales

    patch.setattr(cache_module, "quantised", wrong)


def tile_forgotten(patch: Patch) -> None:
    """The last tile is left out."""
    tiles = Int8Cache.tiles

    def wrong(self: Int8Cache, span: int) -> Iterator[Any]:
        return iter(list(tiles(self, span))[:-1] or list(tiles(self, span)))

    patch.setattr(Int8Cache, "tiles", wrong)


def small(patch: Patch) -> None:
    patch.setattr(cache_module, "TILE", 8)
    patch.setattr(engine_module, "BLOCK", 4)


BUGS = [mask_not_cleared, scale_over_tokens, scale_over_heads, a_bit_lost, tile_forgotten]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_found(
    tiny: Model, monkeypatch: Patch, bug: Callable[[Patch], None], dtype: str
) -> None:
    small(monkeypatch)
    weights = seeded_weights(tiny, dtype)
    workload = cell(tiny, "kv_quant_linear_mask", dtype=dtype)
    plan = MODES["kv_quant_linear_mask"]
    assert verify(opened(tiny, plan, dtype, batch=1), workload, weights) is None
    bug(monkeypatch)
    reason = verify(opened(tiny, plan, dtype, batch=1), workload, weights)
    assert reason is not None
    assert "the bound is" in reason


def test_a_mask_that_is_not_cleared_shows_from_the_second_sample_on(
    tiny: Model, monkeypatch: Patch
) -> None:
    """At unchanged speed: only outputs tell."""
    mask_not_cleared(monkeypatch)
    engine = opened(tiny, MODES["kv_quant_linear_mask"])
    assert sampled(engine, 9) is None
    assert "the bound is" in (sampled(engine, 4, seed=1) or "")


@pytest.mark.parametrize(
    ("plan", "mode", "words"),
    [
        (NORMAL, "kv_quant", "int8 cache is off: keys are torch.float32"),
        (MODES["kv_quant"], "normal", "int8 cache is on: keys are torch.int8"),
        (MODES["kv_quant"], "kv_quant_linear_mask", "linear mask is off: the mask is [48, 48]"),
        (
            MODES["kv_quant_linear_mask"],
            "int4_kv_quant_linear_mask",
            "int4wo is off: matrices are Tensor",
        ),
    ],
)
def test_a_technique_that_is_silently_off_is_named(
    tiny: Model, plan: Plan, mode: str, words: str
) -> None:
    engine = opened(tiny, plan, batch=1)
    workload = cell(tiny, mode, dtype="float32")
    assert TorchaoLlamaOffer().verify(engine, workload) == words


@pytest.mark.parametrize("scheme", ["int8wo", "int4wo"])
def test_wrongly_quantised_weights_are_found(tiny: Model, monkeypatch: Patch, scheme: str) -> None:
    """Blocks one row off are self-consistent; only the weights that were loaded tell."""
    pytest.importorskip("torchao", reason="needs torchao")
    from engines.torchao_llama import int4_weights, int8_weights

    workload = cell(tiny, "of mine", dtype="float32", options=(("quantization", scheme),))
    weights = seeded_weights(tiny, "float32")
    assert verify(opened(tiny, Plan(scheme=scheme), batch=1), workload, weights) is None
    right = int8_weights.quantised_rows
    for module in (int8_weights, int4_weights):
        monkeypatch.setattr(module, "quantised_rows", lambda m, config: right(m.roll(1, 0), config))
    reason = verify(opened(tiny, Plan(scheme=scheme), batch=1), workload, weights)
    assert reason is not None
    assert f"{scheme} allows" in reason


class Largest(TorchDispatchMode):
    """The largest tensor that an operator made, views left out."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        first = out[0] if isinstance(out, tuple | list) else out
        if not func.is_view and not func.overloadpacket.__name__.endswith("_"):
            self.numbers = max(self.numbers, getattr(first, "numel", lambda: 0)())
        return out


def largest_of_a_step(engine: Any) -> int:
    step = engine.prefill(prompts(1, engine.cache_tokens - 1))
    with Largest() as largest:
        engine.decode(step)
    return largest.numbers


def widened_whole(patch: Patch) -> None:
    """The original's: the whole cache is widened in every step."""

    def tiles(self: Int8Cache, span: int) -> Iterator[Any]:
        yield (
            0,
            (self.keys * self.key_scales).narrow(2, 0, span),
            (self.values * self.value_scales).narrow(2, 0, span),
        )

    patch.setattr(Int8Cache, "tiles", tiles)


def test_no_temporary_is_as_long_as_the_cache(tiny: Model, monkeypatch: Patch) -> None:
    monkeypatch.setattr(cache_module, "TILE", 64)
    engine = opened(tiny, MODES["kv_quant_linear_mask"], batch=1, cache_tokens=2048)
    one = tiny.kv_heads * tiny.head_dim
    assert largest_of_a_step(engine) < 2 * 64 * one
    widened_whole(monkeypatch)
    assert largest_of_a_step(engine) == 2048 * one


def test_the_dense_mask_is_there_only_without_the_linear_one(tiny: Model) -> None:
    """C * C bytes: what the table's third column is about."""
    for name, plan in MODES.items():
        if not plan.scheme:
            held = opened(tiny, plan).mask.held
            assert held.numel() == (CACHE if "linear_mask" in name else CACHE * CACHE)
