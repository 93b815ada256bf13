"""A tree of prompts: every row of a level continues one row of the level before.

Equally many rows, in order, continue each row; those of the last level are the sequences, or are
continued by equally many of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.prompts import Ids, check_ids

Rows = Sequence[Sequence[int]]


def checked(tree: Sequence[Rows], batch: int, vocab_size: int, room: int) -> list[list[Ids]]:
    """The levels as arrays; ValueError for what no engine could run, naming it.

    Rows may be of different lengths and, above the last level, empty. `room` is the longest way
    through the tree that is allowed.
    """
    levels = [arrays(rows) for rows in tree]
    counts = [len(rows) for rows in levels]
    if not counts or 0 in counts or any(b % a for a, b in pairwise([*counts, batch])):
        raise ValueError(
            f"got levels of {counts} rows for {batch} sequences, expected that each number divides "
            "the next: equally many rows continue every row"
        )
    check_last(levels[-1], longest(levels), room)
    check_ids([row for rows in levels for row in rows], vocab_size)
    return levels


def arrays(rows: Rows) -> list[Ids]:
    """Each row as an array of ids."""
    return [np.asarray(row, np.int64) for row in rows]


def check_last(rows: list[Ids], way: int, room: int) -> None:
    """ValueError where a row of the last level is empty, or the longest way to its end too long."""
    if any(len(row) == 0 for row in rows):
        raise ValueError("a row of the last level is empty, expected at least 1 token each")
    if way > room:
        raise ValueError(
            f"a way through the tree is {way} tokens long, the engine was opened for {room}: "
            "open it for more"
        )


def longest(levels: list[list[Ids]]) -> int:
    """Tokens of the longest way from the first level to the end of the last."""
    ways = [0] * len(levels[0])
    for rows in levels:
        each = len(rows) // len(ways)
        ways = [ways[number // each] + len(row) for number, row in enumerate(rows)]
    return max(ways)


def padded(rows: list[Ids]) -> NDArray[Any]:
    """[rows, longest] with id 0 behind the shorter ones."""
    whole = np.zeros((len(rows), max(len(row) for row in rows)), np.int64)
    for number, row in enumerate(rows):
        whole[number, : len(row)] = row
    return whole
