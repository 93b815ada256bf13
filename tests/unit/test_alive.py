"""Storages: who holds which bytes, who is there at the peak, and what it is called."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from perfsuite.static.alive import Alive, described, plain  # noqa: E402


class Scaled(torch.Tensor):
    """A matrix of bytes with a scale, which torch sees as one tensor of floats."""

    @staticmethod
    def __new__(cls, data: Any, scale: Any) -> Any:
        return torch.Tensor._make_wrapper_subclass(cls, data.shape, dtype=torch.float32)

    def __init__(self, data: Any, scale: Any) -> None:
        self.data_, self.scale_ = data, scale

    def __tensor_flatten__(self) -> Any:
        return ["data_", "scale_"], None

    @classmethod
    def __tensor_unflatten__(cls, inner: Any, *_: Any) -> Any:
        return cls(inner["data_"], inner["scale_"])

    @classmethod
    def __torch_dispatch__(cls, *_: Any) -> Any:
        raise AssertionError("nothing is computed with it")


def alive(place: str = "") -> Alive:
    return Alive(lambda: place)


def test_views_share_a_storage_and_the_last_one_frees_it() -> None:
    """Bytes count once, from the first to the last of them."""
    found, whole = alive(), torch.empty(100)
    part = whole[10:20]
    found.follow(whole)
    found.follow(part)
    assert found.bytes == 400
    del whole
    assert found.bytes == 400
    del part
    assert (found.bytes, found.peak_bytes) == (0, 400)


def test_those_at_the_peak_are_remembered_when_they_are_gone() -> None:
    """Neither those of before nor those of after, and no later peak that is as high."""
    found = alive()
    first = torch.empty(100)
    found.follow(first, "first")
    second = torch.empty(50, dtype=torch.int8)
    found.follow(second, "second")
    del first
    third = torch.empty(100)
    found.follow(third, "third")
    assert {s.text for s in found.at_peak()} == {"f32[100]", "int8[50]"}
    assert found.at_peak()[0].bytes + found.at_peak()[1].bytes == found.peak_bytes == 450


def test_a_peak_that_is_still_there_is_told_too() -> None:
    """Nothing was freed since."""
    found, kept = alive(), torch.empty(100)
    found.follow(kept)
    assert [s.text for s in found.at_peak()] == ["f32[100]"]


def test_a_name_gives_kind_and_text_and_the_first_one_stays() -> None:
    """Tied weights are one storage."""
    found, tied = alive(), torch.empty(4, 2)
    found.named({"weights.embedding": tied, "weights.head": tied.t(), "mask": torch.empty(3)})
    first = found.at_peak()[0]
    assert (first.name, first.kind, first.text) == ("weights.embedding", "weights", "f32[4,2]")
    assert found.bytes == 32  # the mask was made for the mapping alone


def test_a_subclass_is_its_inner_tensors() -> None:
    """However deep; the wrapper itself has no bytes."""
    found = alive()
    inner = Scaled(torch.empty(4, 2, dtype=torch.int8), torch.empty(4))
    outer = Scaled(inner, torch.empty(1))
    found.named({"weights.head": outer})
    assert found.bytes == 8 + 16 + 4
    assert [s.name for s in found.at_peak()] == [
        "weights.head.data_.data_", "weights.head.data_.scale_", "weights.head.scale_",
    ]  # fmt: skip
    assert {s.kind for s in found.at_peak()} == {"weights"}
    assert [name for name, _ in plain(torch.empty(1))] == [""]


def test_what_made_a_tensor_is_known_from_a_mebibyte_on() -> None:
    """Looking it up for every scalar would cost more than the rest."""
    found = alive("mine.attend")
    large, small = torch.empty(2**20, dtype=torch.int8), torch.empty(2**20 - 1, dtype=torch.int8)
    assert found.follow(large, "mul").made_by == "mul in mine.attend"
    assert found.follow(small, "mul").made_by == ""


@pytest.mark.parametrize(
    ("dtype", "text"),
    [("bfloat16", "bf16[2,3]"), ("float8_e4m3fn", "f8_e4m3fn[2,3]"), ("bool", "bool[2,3]")],
)
def test_types_are_short(dtype: str, text: str) -> None:
    """As in a compiled program's words."""
    assert described(torch.empty(2, 3, dtype=getattr(torch, dtype))) == text
