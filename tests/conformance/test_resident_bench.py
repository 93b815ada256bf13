"""The bench that puts the process's peak beside the allocator's, at a size that takes seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.resident import Peaks, told

ROOT = Path(__file__).parents[2]
GB, MIB = 10**9, 2**20


@pytest.mark.parametrize(
    ("process", "agree"),
    [
        (2 * GB, True),
        (2 * GB + 60_000_000 + 32 * MIB, True),
        (2 * GB + 60_000_001 + 32 * MIB, False),
        (2 * GB - 60_000_001 - 32 * MIB, False),
    ],
)
def test_the_bound_is_a_share_and_a_room(process: int, *, agree: bool) -> None:
    """3 % of the allocator's and 32 MiB, on either side."""
    peaks = Peaks(2 * GB, process, 2 * GB, 2 * GB)
    assert peaks.agree is agree
    assert ("NOT within" in told(peaks)) is not agree


def test_both_peaks_of_an_engine_that_is_run() -> None:
    """A cache of 67 MB and a layer of weights: the allocator's peak is their sum and little more.

    The process's is only looked at roughly: what else happens in it is no small part of this size.
    """
    command = [sys.executable, "-m", "bench.resident", "--layers=1", "--cache=32768", "--json"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    peaks = Peaks(**json.loads(run.stdout))
    weights = (2 * 2048 * 2048 + 2 * 2048 * 512 + 3 * 2048 * 5632 + 2 * 32_000 * 2048) * 2
    held = weights + 2 * 4 * 128 * 32_768 * 2
    assert held < peaks.allocator < 1.1 * held
    assert held <= peaks.loading_allocator
    assert 0.5 * held < peaks.process < 2 * held
