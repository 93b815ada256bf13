"""What is alive at a peak, as figures by kind and in words that name tensors."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs torch")

from perfsuite.baselines import Entry
from perfsuite.judging import differences
from perfsuite.static.alive import Storage
from perfsuite.static.at_peak import figures, words

MB = 2**20


def held(name: str, size: int, text: str = "bf16[1,2]") -> Storage:
    return Storage(size, text, "empty in mine.build", name, name.partition(".")[0], before=True)


def made(size: int, text: str = "bf16[8]", by: str = "mul in mine.attend") -> Storage:
    return Storage(size, text, by)


def layers(texts: list[str]) -> list[Storage]:
    return [held(f"weights.layers.{n}.down", MB, text) for n, text in enumerate(texts)]


def test_kinds_are_summed_and_those_that_are_not_there_are_zero() -> None:
    """A mask that appears is then a loss; what is named otherwise is in no figure."""
    there = [*layers(["int8[4]"] * 3), held("cache.keys", 10), held("rope.cos", 7), made(5)]
    assert figures(there) == {
        "static_at_peak/weights": 3 * MB,
        "static_at_peak/cache": 10,
        "static_at_peak/mask": 0,
        "static_at_peak/activations": 5,
    }


def test_a_program_that_names_nothing_has_activations_alone() -> None:
    """Zero weights would be a lie, and an infinite loss once they are named."""
    loaded = Storage(100, "bf16[50]", "", kind="loaded", before=True)
    assert figures([loaded, made(5)]) == {"static_at_peak/activations": 5}


def test_the_largest_tensor_and_the_largest_activation_are_named() -> None:
    """One by the program's own name, the other by what made it and where."""
    there = [held("mask", 17_179_869_184, "bool[131072,131072]"), made(3 * MB), made(2 * MB)]
    assert words(there) == {
        "at the peak": "mask bool[131072,131072], 17.18 GB",
        "largest activation": "bf16[8] of mul in mine.attend, 3.146 MB",
        "mask": "bool[131072,131072], 17.18 GB",
    }


def test_layers_share_a_word_that_names_the_odd_one_out() -> None:
    """A weight widened in one layer shows, however many are as they were."""
    usual = words(layers(["int8[4096,14336]"] * 4))
    assert usual["weights.layers.*.down"] == "4 int8[4096,14336], 4.194 MB"
    odd = words(layers(["int8[4]", "int8[4]", "bf16[4]", "int8[4]"]))
    expected = "3 int8[4] and bf16[4] (weights.layers.2.down), 4.194 MB"
    assert odd["weights.layers.*.down"] == expected


def test_what_is_small_is_not_worth_a_word() -> None:
    """Nothing to say of a program below a mebibyte, or of none."""
    assert words([held("mask", MB - 1), made(MB - 1)]) == {}
    assert words([]) == {}


def test_a_message_that_is_cut_names_the_largest_tensor_first() -> None:
    """Against a baseline without words too."""
    there = [held("mask", 4 * MB, "bool[9]"), held("cache.keys", 2 * MB), made(MB)]
    texts = {f"decode: {name}": text for name, text in words(there).items()}
    without_words = Entry(Path("f.json"), "", "", "", "torch 2", {}, {})
    told = differences(without_words, "torch 2", texts)
    assert told.startswith("decode: at the peak absent -> mask bool[9], 4.194 MB; decode: cache")
