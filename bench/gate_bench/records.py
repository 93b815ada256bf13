"""What was run and what is still to run: one JSON line for each, in the order it happened."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .arms import ARMS, Row

ROUND = (0, 0, 0, 2, 5, 10)  # slowdowns of one round, per cent: half of the runs are unchanged


@dataclass(frozen=True)
class Task:
    """One run of one arm on one slowdown, or (slow None) the taking of its baseline."""

    arm: str
    era: int
    round: int
    slow: int | None
    nth: int = 0  # among equal ones of its round

    @property
    def id(self) -> str:
        """Its name in the file."""
        what = "baseline" if self.slow is None else f"{self.round}-slow-{self.slow}-{self.nth}"
        return f"{self.arm}-{self.era}-{what}"


@dataclass(frozen=True)
class Record:
    """What a task gave."""

    id: str
    arm: str
    slow: int | None
    start: str  # ISO date and time
    wall_s: float
    rows: tuple[Row, ...] = field(default=())
    broken: str = ""  # why there are no rows

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Record:
        """The inverse of `asdict`, also after JSON."""
        return Record(**{**values, "rows": tuple(Row(**row) for row in values["rows"])})


class Log:
    """`results.jsonl`: a header with the seed, then records; what a kill cut off is dropped."""

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self._path = path
        if not path.exists():
            path.write_text(json.dumps(header) + "\n")
        whole = path.read_text().rpartition("\n")[0] + "\n"
        path.write_text(whole)
        first, *lines = whole.splitlines()
        self.header: dict[str, Any] = json.loads(first)
        self.records = [Record.from_dict(json.loads(line)) for line in lines]

    def append(self, record: Record) -> None:
        """Remember it, on the disk too."""
        self.records.append(record)
        with self._path.open("a") as file:
            file.write(json.dumps(asdict(record)) + "\n")

    @property
    def done(self) -> set[str]:
        """What need not be run again: everything but a baseline that broke."""
        return {r.id for r in self.records if r.slow is not None or not r.broken}

    @property
    def seconds(self) -> float:
        """Wall time of all that was ever run here."""
        return sum(record.wall_s for record in self.records)

    def longest_s(self, arm: str) -> float:
        """Wall time of the longest run of an arm, 0 before the first."""
        return max((r.wall_s for r in self.records if r.arm == arm), default=0.0)


def tasks(seed: int, arms: Sequence[str], rounds: int, rounds_per_baseline: int) -> Iterator[Task]:
    """Everything in its order: a new baseline at the start of an era, each round shuffled.

    All arms take turns within a round, so that all see the same machine. The order of an arm's
    runs depends on the seed alone, not on which other arms are chosen.
    """
    for number in range(rounds):
        era = number // rounds_per_baseline
        if number % rounds_per_baseline == 0:
            yield from (Task(arm, era, number, None) for arm in arms if ARMS[arm].prepare)
        yield from _round(seed, arms, era, number)


def _round(seed: int, arms: Sequence[str], era: int, number: int) -> list[Task]:
    def place(task: Task) -> float:
        return random.Random(f"{seed} {task.id}").random()

    found = [
        Task(arm, era, number, slow, nth)
        for arm in arms
        for slow in sorted(set(ROUND))
        for nth in range(ROUND.count(slow))
    ]
    return sorted(found, key=place)
