"""The highest level of an allocator's changes, and what was alive at it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from perfsuite.peaks import ALIVE, Block, Change, alive, highest, named
from perfsuite.results import Row
from perfsuite.verdict import Verdict

MB = 1_000_000
PEAK = "peak_memory/allocator"
FOUND = {"made": ["mul 4 MB"], "held": ["[8] int8 8 B x 2", "[4] int8 4 B"]}


def test_the_highest_level_and_how_many_changes_lead_there() -> None:
    """Of two equal ones the first; nothing rises above a start from which all only falls."""
    changes = [Change(1, 5), Change(2, 3), Change(2, -3), Change(3, 3), Change(1, -5)]
    assert highest(changes) == (8, 2)
    assert highest([Change(1, -5), Change(2, 3)]) == (0, 0)
    assert highest([]) == (0, 0)


def test_what_is_alive_was_held_or_made_and_not_freed() -> None:
    """An address that was freed may be given again; a free of what is unknown changes nothing."""
    held = {1: Block("weights", 10 * MB), 2: Block("old", 2 * MB)}
    changes = [
        Change(3, 5 * MB, "mul"),
        Change(2, -2 * MB),
        Change(3, -5 * MB),
        Change(3, 4 * MB, "add"),
        Change(9, -1 * MB),
    ]
    assert alive(held, changes) == {"held": ["weights 10 MB"], "made": ["add 4 MB"]}


def test_blocks_that_are_alike_are_told_once_the_largest_sum_first() -> None:
    """Sixty-four caches count more than one larger tensor; more than eight kinds are not kept."""
    held = {n: Block("cache", 2 * MB) for n in range(64)} | {99: Block("table", 100 * MB)}
    assert alive(held, [])["held"] == ["cache 2 MB x 64", "table 100 MB"]
    many = {n: Block(f"t{n}", (n + 1) * MB) for n in range(20)}
    assert alive(many, [])["held"][0] == "t19 20 MB"
    assert len(alive(many, [])["held"]) == 8


def test_what_is_small_beside_the_rest_is_not_told() -> None:
    """Under a hundredth of all that is alive, held and made."""
    changes = [Change(1, 99 * MB, "mul"), Change(2, MB, "add"), Change(3, 999_000, "sum")]
    assert alive({9: Block("scale", 4)}, changes[:2])["made"] == ["mul 99 MB"]
    assert alive({}, changes[:2])["made"] == ["mul 99 MB", "add 1 MB"]
    assert alive({}, changes)["made"] == ["mul 99 MB"]


def test_a_peak_that_rose_is_named(make_row: Callable[..., Row]) -> None:
    """What the call made comes first; the row's own note stays."""
    row = make_row(figure=f"{PEAK}@part", verdict=Verdict.WORSE, note="before")
    told = "before; alive at the peak: made mul 4 MB; held [8] int8 8 B x 2, [4] int8 4 B"
    assert named(row, {ALIVE: FOUND}).note == told
    bare, only_held = make_row(figure=PEAK, verdict=Verdict.WORSE), {**FOUND, "made": []}
    assert named(bare, {ALIVE: only_held}).note.startswith("alive at the peak: held [8]")


@pytest.mark.parametrize(
    ("figure", "verdict", "facts"),
    [
        (PEAK, Verdict.SAME, {ALIVE: FOUND}),
        (PEAK, Verdict.WORSE, {}),
        ("resident_memory/process_peak", Verdict.WORSE, {ALIVE: FOUND}),
    ],
)
def test_other_rows_stay_as_they_are(
    make_row: Callable[..., Row], figure: str, verdict: Verdict, facts: dict[str, object]
) -> None:
    """Another figure, another verdict, or a run that kept no words."""
    row = make_row(figure=figure, verdict=verdict)
    assert named(row, facts) is row
