"""The bytes that a program moves at least, counted by hand on tensors without data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from perfsuite.static import facts_of  # noqa: E402

LEAST = "static_traffic/at_least"


class Program:
    name = "decode"

    def __init__(self, make: Callable[[], Callable[[], object]]) -> None:
        self.make = make


def least(call: Callable[..., Any], *shapes: tuple[int, ...]) -> float:
    """Of a call on bytes of these shapes."""

    def make() -> Callable[[], object]:
        tensors = [torch.empty(shape, dtype=torch.int8) for shape in shapes]
        return lambda: call(*tensors)

    return facts_of(Program(make), "torch", "cpu")[LEAST]


def test_what_is_read_twice_counts_once_and_what_is_freed_not_at_all() -> None:
    """Both operands, and of three results the one that is left."""
    assert least(lambda a, b: (a + b) * a - b, (100,), (100,)) == 300


def test_what_is_not_read_does_not_count() -> None:
    """Nor do views of it."""
    assert least(lambda a, b: (a.view(10, 10), b.neg())[0], (100,), (7,)) == 7
    assert least(lambda a: a.view(10, 10), (100,)) == 0


def test_a_view_counts_at_its_own_size() -> None:
    """The live part of a cache, not all that it could hold; an expanded one its elements."""
    assert least(lambda cache: cache.narrow(1, 0, 5).sum(dtype=torch.int8), (4, 50)) == 20 + 1
    assert least(lambda row: row.expand(50, 4).neg()[0, 0].neg(), (1, 4)) == 4 + 1


def test_tiles_add_up() -> None:
    """Read tile by tile along any dimension, all of it was read; what is made of them is freed."""

    def tiles(cache: Any, dim: int) -> Any:
        total = torch.zeros((), dtype=torch.int8)
        for part in cache.split(16, dim):
            total += part.sum(dtype=torch.int8)
        return total

    for dim in range(3):
        assert least(lambda cache, dim=dim: tiles(cache, dim), (32, 48, 64)) == 32 * 48 * 64 + 1


def test_of_views_that_overlap_the_larger_counts() -> None:
    """Their union is not known, and it is at least that."""
    assert least(lambda a: a[:60].neg()[0] + a[40:].neg()[0] + a[:5].neg()[0], (100,)) == 60 + 1
    assert least(lambda a: a[:5].neg()[0] + a[20:30].neg()[0] + a.neg()[0], (100,)) == 100 + 1


def test_what_is_written_in_place_counts_at_the_views_size() -> None:
    """A step writes one place of the cache, and reads what it writes there."""

    def step(cache: Any, new: Any) -> None:
        cache.narrow(1, 7, 1).copy_(new)

    assert least(step, (4, 50), (4, 1)) == 4 + 4
    assert least(lambda c, new: c.index_copy_(1, torch.zeros(1).long(), new), (4, 50), (4, 1)) == 8


def test_a_table_counts_for_the_rows_that_are_taken() -> None:
    """An embedding reads as many bytes as it gives."""

    def make() -> Callable[[], object]:
        table = torch.empty(1000, 8, dtype=torch.int8)
        rows = torch.zeros(2, dtype=torch.int64)
        return lambda: torch.nn.functional.embedding(rows, table)

    assert facts_of(Program(make), "torch", "cpu")[LEAST] == 2 * 8 + 2 * 8 + 2 * 8
