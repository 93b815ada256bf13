"""Head and base in turn on one machine: two processes that run the same test side by side.

Both run up to the part that is measured. From there one block of each is taken in a random order,
again and again, and the process whose turn it is not is stopped: its idle threads would take time
from the other. What changes on the machine meets both sides alike, and the ratio of neighbouring
blocks does not hold it. What two processes differ by for their lives (memory layout, thread
placement) is in every block of a pair, so fresh pairs are what an interval is made of.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from statistics import median

from perfsuite.crew import BlockFailed, Crew, ItemRun, NotCollected, Order, Worker, is_over
from perfsuite.errors import WorkerLost
from perfsuite.judging import Pairs, costs
from perfsuite.measurement import calls
from perfsuite.metrics import METRICS
from perfsuite.origins import complaint
from perfsuite.sampling import Block, Measured, merge, take_blocks
from perfsuite.trees import Side

_DOES_NOT_FIT = re.compile(
    r"out of memory|OutOfMemory|RESOURCE_EXHAUSTED|MemoryError|[Cc]annot allocate memory"
    r"|can't allocate memory"
)


@dataclass
class Pair:
    """What the two processes of one pair answered for one test."""

    head: ItemRun
    base: ItemRun
    missing: str = ""  # why base does not have the test
    by_turns: bool = True  # False: the whole processes alternated, both did not fit

    @property
    def is_over(self) -> bool:
        """Whether one of the two ended otherwise than by measuring."""
        return bool(self.missing) or is_over(self.head) or is_over(self.base)


@dataclass
class Duel:
    """All pairs of one test so far."""

    pairs: list[Pair] = field(default_factory=list)
    seconds: float = 0.0

    def gathered(self, base: str) -> Pairs:
        """Log ratios and base's levels by figure, one value a pair."""
        logs: dict[str, list[float]] = {}
        levels: dict[str, list[float]] = {}
        only_base: dict[str, None] = {}
        for pair in self.pairs:
            ours, theirs = (merge([calls(run)]) for run in (pair.head, pair.base))
            for figure in ours.keys() & theirs.keys():
                logs.setdefault(figure, []).append(_log_ratio(figure, ours[figure], theirs[figure]))
                levels.setdefault(figure, []).append(median(theirs[figure][0]))
            only_base |= dict.fromkeys(theirs.keys() - ours.keys())
        return Pairs(base, logs, levels, tuple(only_base))


def _log_ratio(figure: str, ours: Sequence[list[float]], theirs: Sequence[list[float]]) -> float:
    """The middle of the ratios of neighbouring blocks, head's cost over base's."""
    of = METRICS[figure.partition("@")[0]]
    (head,), (base,) = costs(of, ours[:1]), costs(of, theirs[:1])
    if min(*head, *base) <= 0 or len(head) != len(base):
        head, base = [median(head)], [median(base)]
    if min(*head, *base) <= 0:  # a count of 0: equal, or infinitely more or less
        return 0.0 if head == base else math.copysign(math.inf, head[0] - base[0])
    return median(math.log(h / b) for h, b in zip(head, base, strict=True))


class Arena:
    """One pair of fresh processes, used for every test of the run and then ended."""

    def __init__(self, head: tuple[Side, Crew], base: tuple[Side, Crew], random: Random) -> None:
        self._sides, self._random = (head, base), random

    def prepare(self, timeout_s: float) -> None:
        """Start both side by side; returns when both have collected."""
        for _, crew in self._sides:
            crew.worker(0)
        for _, crew in self._sides:
            crew.prepare([0], timeout_s)

    def close(self) -> None:
        """End both."""
        for _, crew in self._sides:
            crew.close()

    def renew(self) -> None:
        """End both; the next test has new ones."""
        for _, crew in self._sides:
            crew.drop(0)

    def run(self, orders: Sequence[Order], *, by_turns: bool) -> Pair:
        """One test in this pair; `orders` are head's and base's."""
        if by_turns:
            pair = self._by_turns(orders)
            if not (_does_not_fit(pair.head) or _does_not_fit(pair.base)):
                return pair
        self.renew()  # what their allocators hold would be in the other's way
        return self._one_after_the_other(orders)

    def _by_turns(self, orders: Sequence[Order]) -> Pair:
        workers = [crew.worker(0) for _, crew in self._sides]
        runs = [ItemRun(), ItemRun()]
        missing = ""
        try:
            self._duel(workers, orders, runs)
        except _SideLost as lost:
            if isinstance(lost.cause, NotCollected) and lost.side == 1:
                missing = str(lost.cause)
            runs[lost.side].void = str(lost.cause)
            self.renew()  # the other is in the middle of its test
            if missing:
                runs[0] = self._alone(0, orders[0])
        head, base = (self._checked(side, run) for side, run in enumerate(runs))
        return Pair(head, base, missing)

    def _duel(
        self, workers: Sequence[Worker], orders: Sequence[Order], runs: list[ItemRun]
    ) -> None:
        parts: list[str | None] = [None, None]
        for side in self._shuffled():
            with _named(side):
                workers[side].resume()
                workers[side].wait_until_ready(orders[side].timeout_s)
                runs[side] = workers[side].begin(orders[side])
                parts[side] = workers[side].until_ready()
            workers[side].pause()
        while any(part is not None for part in parts):
            if parts[0] == parts[1]:
                self._measure(workers, orders, runs, str(parts[0]))
            else:
                runs[0].void = "" if any(map(is_over, runs)) else _unequal(parts)
                for side, part in enumerate(parts):
                    if part is not None:
                        workers[side].stop()
            for side in (side for side in self._shuffled() if parts[side] is not None):
                with _named(side):
                    workers[side].resume()
                    parts[side] = workers[side].until_ready()
                workers[side].pause()

    def _measure(
        self, workers: Sequence[Worker], orders: Sequence[Order], runs: list[ItemRun], part: str
    ) -> None:
        """Blocks of both in turn until the budget of the pair is spent."""
        failed: list[int] = []

        def round_of_both() -> Block:
            figures: dict[int, Block] = {}
            for side in self._shuffled():
                workers[side].resume()
                try:
                    with _named(side):
                        figures[side] = workers[side].block()
                except BlockFailed:
                    failed.append(side)
                    raise
                workers[side].pause()
            for side, run in enumerate(runs):
                run.measured.setdefault(part, Measured()).blocks.append(figures[side])
            return {}

        with suppress(BlockFailed):
            take_blocks(round_of_both, orders[0].budget_s, time.monotonic)
        for side in range(2):
            if side not in failed:
                workers[side].stop()

    def _one_after_the_other(self, orders: Sequence[Order]) -> Pair:
        runs = [ItemRun(), ItemRun()]
        for side in self._shuffled():
            runs[side] = self._alone(side, orders[side])
            self._sides[side][1].drop(0)
        head, base = (self._checked(side, run) for side, run in enumerate(runs))
        return Pair(head, base, by_turns=False)

    def _alone(self, side: int, order: Order) -> ItemRun:
        """The whole test in the process of one side."""
        try:
            return self._sides[side][1].run(0, order)
        except WorkerLost as lost:
            return ItemRun(void=str(lost))

    def _checked(self, side: int, run: ItemRun) -> ItemRun:
        """The run; void where it ran another tree's modules, base's complaints under its name."""
        name = self._sides[side][0].name
        measured = any(call.blocks or call.once for call in calls(run).values())
        if measured and not is_over(run):
            run.void = complaint(name, self._sides[side][0].subject, run.origins) or ""
        elif run.void and side == 1:
            run.void = f"base, {name}: {run.void}"
        return run

    def _shuffled(self) -> list[int]:
        return self._random.sample((0, 1), 2)


class _SideLost(Exception):
    """The worker of one side is lost."""

    def __init__(self, side: int, cause: WorkerLost) -> None:
        super().__init__(str(cause))
        self.side, self.cause = side, cause


@contextmanager
def _named(side: int) -> Iterator[None]:
    """Says whose worker was lost."""
    try:
        yield
    except WorkerLost as lost:
        raise _SideLost(side, lost) from None


def _unequal(parts: Sequence[str | None]) -> str:
    shown = ["nothing more" if part is None else f"perf(..., name={part!r})" for part in parts]
    return f"head measures {shown[0]} where base measures {shown[1]}: they can't be paired"


def _does_not_fit(run: ItemRun) -> bool:
    failure = run.failure["text"] if run.failure else ""
    return bool(_DOES_NOT_FIT.search(run.void) or _DOES_NOT_FIT.search(failure))
