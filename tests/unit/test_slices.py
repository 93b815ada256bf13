"""TPU slices by name: what is known of them without jax, and what is refused."""

from __future__ import annotations

import re

import pytest

from perfsuite import plugin
from perfsuite.errors import OptionError
from perfsuite.static.slices import SLICES, slice_named, slice_of


def test_a_name_counts_what_its_generation_counts() -> None:
    """v5e and v6e count chips, v4 and v5p cores, two a chip."""
    for name, found in SLICES.items():
        generation, number = name.split("-")
        cores = 2 if generation in ("v4", "v5p") else 1
        assert found.devices == int(number) // cores
        sides = re.findall(r"\d+", found.topology.partition(":")[2])
        assert found.devices == eval("*".join(sides))


def test_help_names_every_slice() -> None:
    """The plugin's own text can not import the table."""
    told = next(words["help"] for flag, _, words in plugin._FLAGS if flag == "--perf-slice")
    assert all(name in told for name in SLICES)


@pytest.mark.parametrize("name", ["", "v5e", "v5e-4", "V5E-8", "tpu"])
def test_an_unknown_slice_is_refused(name: str) -> None:
    """With what is known."""
    with pytest.raises(OptionError, match="known: v4-8, v5e-1, v5e-8, v5p-8, v6e-8") as refused:
        slice_named(name)
    assert repr(name) in str(refused.value)


@pytest.mark.parametrize(
    ("hardware", "name"),
    [("TPU v5e-8", "v5e-8"), ("TPU v5e-1", "v5e-1"), ("TPU v9-8", ""), ("A100", ""), ("", "")],
)
def test_a_document_names_its_slice(hardware: str, name: str) -> None:
    """Only one that is known here; a GPU is none."""
    assert slice_of(hardware) == name
