"""What an allocator held at its highest, and the words by which a failure names it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, NamedTuple

from perfsuite.metrics import in_unit
from perfsuite.results import Row
from perfsuite.verdict import Verdict

ALIVE = "alive_at_peak"  # the fact that keeps the words beside a result
PEAK = "peak_memory/allocator"
_KEPT, _TOLD = 8, 3  # kinds of blocks: with the result, in a failure
_SMALL = 0.01  # of all that is alive: what takes less is not told


class Block(NamedTuple):
    """A piece of memory."""

    what: str  # "[1, 8, 4096, 128] bfloat16", or what made it: "aten::linear", "mine/cache.py:88"
    bytes: int


class Change(NamedTuple):
    """Memory that an allocator gave, or took back."""

    address: int
    bytes: int  # below 0: taken back
    what: str = ""  # what asked for it


@dataclass(frozen=True)
class Peak:
    """The highest level of a call; sizes in bytes."""

    allocated: int  # of live tensors, what lived before the call included
    reserved: int | None = None  # taken from the device, where an allocator keeps more than it uses
    alive: Mapping[str, list[str]] = field(default_factory=dict)  # {"held": [...], "made": [...]}


def highest(changes: Sequence[Change]) -> tuple[int, int]:
    """The highest level above that before the changes, and how many of them lead there."""
    levels = [0, *accumulate(change.bytes for change in changes)]
    top = max(levels)
    return top, levels.index(top)


def alive(held: Mapping[int, Block], changes: Iterable[Change]) -> dict[str, list[str]]:
    """What lives after the changes, the largest first: held before them, or made by them.

    held: by address what lived before.
    """
    before, made = dict(held), dict[int, Block]()
    for change in changes:
        if change.bytes > 0:
            made[change.address] = Block(change.what, change.bytes)
        elif made.pop(change.address, None) is None:
            before.pop(change.address, None)
    least = _SMALL * sum(block.bytes for block in [*before.values(), *made.values()])
    return {"held": _largest(before.values(), least), "made": _largest(made.values(), least)}


def _largest(blocks: Iterable[Block], least: float) -> list[str]:
    """Words for blocks that are alike and take so much together, the largest sum first."""
    alike = sorted(Counter(blocks).items(), key=lambda pair: (-pair[0].bytes * pair[1], pair[0]))
    return [_words(b, count) for b, count in alike[:_KEPT] if b.bytes * count >= least]


def _words(block: Block, count: int) -> str:
    """`[4096, 14336] bfloat16 117.4 MB x 32`."""
    times = f" x {count}" if count > 1 else ""
    return f"{block.what} {in_unit('bytes', block.bytes)}{times}"


def named(row: Row, facts: Mapping[str, Any]) -> Row:
    """The row; of a peak that rose beyond its limit with the largest that were alive."""
    found = facts.get(ALIVE)
    if not found or row.metric_id != PEAK or row.verdict is not Verdict.WORSE:
        return row
    kinds = [kind for kind in ("made", "held") if found[kind]]
    groups = "; ".join(f"{kind} {', '.join(found[kind][:_TOLD])}" for kind in kinds)
    note = f"alive at the peak: {groups}"
    return replace(row, note="; ".join(filter(None, (row.note, note))))
