"""Token ids to feed an engine: seeded, cheap for any batch, the same in every process."""

from __future__ import annotations

import random
from array import array

SEED = 20240424


def prompts(vocab_size: int, batch: int, length: int) -> list[array[int]]:
    """`batch` different rows of `length` ids below `vocab_size`.

    A random row gives `length` rows by rotation before the next one is drawn, so that a large
    batch costs copies and not a million draws.
    """
    source = random.Random(SEED)
    rows: list[array[int]] = []
    while len(rows) < batch:
        row = array("i", source.choices(range(vocab_size), k=length))
        turns = range(min(max(length, 1), batch - len(rows)))
        rows += [row[turn:] + row[:turn] for turn in turns]
    return rows
