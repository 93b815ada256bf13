"""Prompts as arrays, checked: what no engine could run is named before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


def of_one_length(token_ids: Any, rows: int, longest: int, vocab_size: int) -> Ids:
    """As [rows, T]; ValueError unless there are `rows` of one length from 1 to `longest`."""
    lengths = {len(row) for row in token_ids}
    if len(token_ids) != rows or len(lengths) != 1 or lengths == {0}:
        raise ValueError(
            f"got {len(token_ids)} prompts of {sorted(lengths)} tokens, expected {rows} "
            "of one length, at least 1"
        )
    ids = np.array([np.asarray(row) for row in token_ids], dtype=np.int64)
    if ids.shape[1] > longest:
        raise ValueError(f"a prompt of {ids.shape[1]} tokens exceeds {longest}")
    check_ids([ids], vocab_size)
    return ids


def check_ids(rows: Sequence[NDArray[Any]], vocab_size: int) -> None:
    """ValueError where an id is no word of the vocabulary; of several rows, one may be empty."""
    full = [row for row in rows if len(row)]
    low, high = min(row.min() for row in full), max(row.max() for row in full)
    if low < 0 or high >= vocab_size:
        raise ValueError(f"got token ids from {low} to {high}, expected 0 to {vocab_size - 1}")
