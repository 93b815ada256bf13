"""How many blocks one process measures, and what a whole item brought together. Pure but for the
clock that is passed in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Block = dict[str, float]  # metric id -> value
LARGEST_COUNT = 10_000


@dataclass
class Measured:
    """What one `perf(...)` call gave in one process."""

    blocks: list[Block] = field(default_factory=list)
    once: Block = field(default_factory=dict)  # figures that are taken once, not in blocks
    facts: dict[str, Any] = field(default_factory=dict)


def take_blocks(
    block: Callable[[], Block], budget_s: float, clock: Callable[[], float]
) -> list[Block]:
    """Blocks until the next one would pass the budget; one at least."""
    start = clock()
    taken: list[Block] = []
    longest = 0.0
    while len(taken) < LARGEST_COUNT:
        before = clock()
        taken.append(block())
        now = clock()
        longest = max(longest, now - before)
        if now - start + longest > budget_s:
            break
    return taken


def merge(processes: list[dict[str, Measured]]) -> dict[str, list[list[float]]]:
    """Figures by name, one list of samples for each process.

    A figure's name is its metric id, with `@part` where the test named the call.
    """
    figures: dict[str, list[list[float]]] = {}
    for number, calls in enumerate(processes):
        for part, measured in calls.items():
            for metric_id, samples in _samples(measured).items():
                name = f"{metric_id}@{part}" if part else metric_id
                rows = figures.setdefault(name, [])
                rows.extend([] for _ in range(number + 1 - len(rows)))
                rows[number].extend(samples)
    return {name: [row for row in rows if row] for name, rows in figures.items()}


def _samples(measured: Measured) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {}
    for block in [*measured.blocks, measured.once]:
        for metric_id, value in block.items():
            samples.setdefault(metric_id, []).append(value)
    return samples
