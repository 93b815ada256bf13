"""Intervals: forward, or the measurement is void."""

from __future__ import annotations

import pytest

from perfsuite.errors import Void
from perfsuite.intervals import elapsed


def test_a_clock_that_goes_forward_gives_its_difference() -> None:
    """In the clock's own unit."""
    assert elapsed(10.0, 10.5) == 0.5


@pytest.mark.parametrize(
    ("end", "words"), [(10.0, "the clock stood still"), (7.5, "the clock went back by 2.5 s")]
)
def test_a_clock_that_does_not_voids_the_measurement(end: float, words: str) -> None:
    """Neither a negative time nor an endless throughput becomes a figure."""
    with pytest.raises(Void, match=words):
        elapsed(10.0, end)
