"""How many blocks fit a budget, and what the processes brought together."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from perfsuite import sampling
from perfsuite.sampling import Measured, merge, take_blocks


class Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def blocks(clock: Clock, durations: Iterator[float]) -> Callable[[], dict[str, float]]:
    """A block that takes the next of these durations."""

    def block() -> dict[str, float]:
        seconds = next(durations)
        clock.now += seconds
        return {"time": seconds}

    return block


@pytest.mark.parametrize(
    ("durations", "budget", "count"),
    [
        ([1.0] * 20, 5.0, 5),
        ([1.0] * 20, 5.5, 5),
        ([9.0] * 20, 5.0, 1),  # one at least
        ([3.0, 0.5, 0.5, 0.5], 5.0, 1),  # another may take as long as the longest did
        ([1.0, 2.0, 1.0, 1.0, 1.0], 6.0, 4),
    ],
)
def test_blocks_are_taken_until_the_next_would_pass_the_budget(
    durations: list[float], budget: float, count: int
) -> None:
    """The longest so far is what the next may take."""
    clock = Clock()
    taken = take_blocks(blocks(clock, iter(durations)), budget, clock)
    assert [block["time"] for block in taken] == durations[:count]


def test_the_count_of_blocks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of nothing would never use up a budget."""
    monkeypatch.setattr(sampling, "LARGEST_COUNT", 50)
    clock = Clock()
    assert len(take_blocks(blocks(clock, iter([0.0] * 99)), 1.0, clock)) == 50


def test_processes_are_merged_by_figure() -> None:
    """A list of samples for each process, parts named, figures of one process only included."""
    first = {
        "": Measured(blocks=[{"a": 1.0, "b": 10.0}, {"a": 2.0}], once={"peak": 7.0}),
        "load": Measured(blocks=[{"a": 5.0}]),
    }
    second = {"": Measured(blocks=[{"a": 3.0, "late": 4.0}])}
    assert merge([first, second]) == {
        "a": [[1.0, 2.0], [3.0]],
        "b": [[10.0]],
        "peak": [[7.0]],
        "a@load": [[5.0]],
        "late": [[4.0]],
    }


def test_nothing_measured_merges_to_nothing() -> None:
    """Without processes, without calls, without blocks."""
    assert merge([]) == merge([{}]) == merge([{"": Measured()}]) == {}
