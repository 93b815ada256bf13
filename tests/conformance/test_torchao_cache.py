"""The int8 cache, its tiles and the masks by themselves."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from engines.reference import int8_levels  # noqa: E402
from engines.torchao_llama import cache as cache_module  # noqa: E402
from engines.torchao_llama.attention import Masked, attend, bias_of  # noqa: E402
from engines.torchao_llama.cache import Int8Cache, PlainCache, quantised  # noqa: E402
from engines.torchao_llama.masks import DenseMask, LinearMask  # noqa: E402


def drawn(*shape: int, dtype: str = "float32") -> torch.Tensor:
    generator = torch.Generator().manual_seed(len(shape) + shape[-1])
    return torch.randn(shape, generator=generator).to(getattr(torch, dtype))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_levels_and_scales_are_the_references(dtype: str) -> None:
    """To half a level: the reference rounds no scale, and the scale's rounding moves no further."""
    x = drawn(2, 3, 5, 16, dtype=dtype)
    levels, scales = quantised(x)
    assert levels.dtype == torch.int8
    assert scales.dtype == x.dtype
    assert scales.shape == (2, 3, 5, 1)
    assert levels.abs().amax(-1).eq(127).all()
    exact = x.double().numpy()
    found = (levels.double() * scales.double()).numpy()
    step = abs(exact).max(-1, keepdims=True) / 127
    assert (abs(found - exact) <= step * 0.52 + abs(exact) * 2.0**-8).all()
    if dtype == "float32":
        np.testing.assert_allclose(found, int8_levels(exact), atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_vector_of_zeros_stays_zeros(dtype: str) -> None:
    levels, scales = quantised(torch.zeros(1, 1, 2, 8, dtype=getattr(torch, dtype)))
    assert not (levels * scales).any()
    assert scales.isfinite().all()


@pytest.mark.parametrize("tile", [5, 16, 64])
def test_tiles_are_what_was_put(monkeypatch: pytest.MonkeyPatch, tile: int) -> None:
    """Whatever the tile, at its borders too."""
    monkeypatch.setattr(cache_module, "TILE", tile)
    keys, values = drawn(2, 3, 16, 8), drawn(2, 3, 16, 8) + 1
    held = Int8Cache((2, 3, 20, 8), torch.float32, "cpu")
    held.put(keys, values, torch.arange(16))
    tiles = list(held.tiles(16))
    assert [start for start, _, _ in tiles] == list(range(0, 16, tile))
    for number, exact in ((1, keys), (2, values)):
        found = torch.cat([tile[number] for tile in tiles], 2).numpy()
        np.testing.assert_allclose(found, int8_levels(exact.double().numpy()), atol=1e-6)


@pytest.mark.parametrize("heads", [2, 6], ids=["a query for each head", "three queries"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("seen", [1, 7, 8, 9, 20])
def test_attention_over_tiles_is_attention(
    monkeypatch: pytest.MonkeyPatch, seen: int, dtype: str, heads: int
) -> None:
    """Against float64 over what is seen; tiles of which nothing is seen count for nothing."""
    monkeypatch.setattr(cache_module, "TILE", 8)
    held = Int8Cache((2, 2, 24, 16), getattr(torch, dtype), "cpu")
    held.put(drawn(2, 2, 24, 16, dtype=dtype), drawn(2, 2, 24, 16, dtype=dtype), torch.arange(24))
    q = drawn(2, heads, 1, 16, dtype=dtype)
    row = torch.arange(24) < seen
    found = attend(Masked("cpu", q.dtype), q, held.tiles(24), bias_of(row, q.dtype))
    keys, values = (
        torch.cat([tile[n] for tile in held.tiles(24)], 2).double().narrow(2, 0, seen)
        for n in (1, 2)
    )
    repeated = [x.repeat_interleave(heads // 2, 1) for x in (keys, values)]
    scores = q.double() @ repeated[0].transpose(2, 3) / 4
    exact = scores.softmax(-1) @ repeated[1]
    tolerance = 1e-5 if dtype == "float32" else 0.03
    np.testing.assert_allclose(found.double().numpy(), exact.numpy(), atol=tolerance)


def test_a_plain_cache_is_one_tile_and_no_copy() -> None:
    held = PlainCache((1, 2, 16, 8), torch.float32, "cpu")
    held.put(drawn(1, 2, 4, 8), drawn(1, 2, 4, 8), torch.arange(4))
    ((start, keys, values),) = held.tiles(10)
    assert start == 0
    assert keys.shape == values.shape == (1, 2, 10, 8)
    assert keys.untyped_storage().data_ptr() == held.keys.untyped_storage().data_ptr()


def test_both_masks_show_the_same() -> None:
    """After prompts, steps, and a step that is decoded again."""
    dense, linear = DenseMask(12, "cpu"), LinearMask(12, "cpu")
    for prompt, positions in ((8, (8, 9, 10, 9, 8)), (3, (3, 4)), (12, ()), (1, (1,))):
        for mask in (dense, linear):
            mask.start(prompt)
        for position in positions:
            for mask in (dense, linear):
                mask.rewind(position)
            place = torch.tensor([position])
            assert dense.row(place).tolist() == linear.row(place).tolist()
            assert dense.row(place).sum() == position + 1


def test_what_masks_hold() -> None:
    assert DenseMask(12, "cpu").held.shape == (12, 12)
    assert LinearMask(12, "cpu").held.shape == (12,)
    assert DenseMask(12, "cpu").held.dtype == torch.bool
