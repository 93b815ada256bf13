"""Token ids: seeded, in range, different for every sequence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import perfsuite
from perfsuite.prompts import prompts


@pytest.mark.parametrize(("batch", "length"), [(1, 1), (3, 5), (64, 16), (2, 0), (0, 5)])
def test_there_are_as_many_ids_as_asked(batch: int, length: int) -> None:
    """`batch` rows of `length` ids below the vocabulary."""
    rows = prompts(100, batch, length)
    assert [len(row) for row in rows] == [length] * batch
    assert all(0 <= token < 100 for row in rows for token in row)


@pytest.mark.parametrize(("batch", "length"), [(16, 16), (1024, 16), (512, 128)])
def test_no_two_sequences_are_alike(batch: int, length: int) -> None:
    """Also where the batch is larger than a row: equal prompts could share a prefix cache."""
    assert len({tuple(row) for row in prompts(1000, batch, length)}) == batch


def test_a_larger_batch_begins_like_a_smaller_one() -> None:
    """The same sequences in every size of a search over batches."""
    assert prompts(1000, 40, 8)[:5] == prompts(1000, 5, 8)


def test_another_process_has_the_same_ids() -> None:
    """Seeded, whatever the hash seed of the process."""
    code = "from perfsuite.prompts import prompts; print([list(r) for r in prompts(1000, 3, 4)])"
    folder = Path(perfsuite.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str([list(row) for row in prompts(1000, 3, 4)])
