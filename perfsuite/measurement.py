"""What one test gave: its processes by session, and what the machine did meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from perfsuite.crew import Crew, ItemRun, Order, is_over
from perfsuite.environment import Disturbance, Surroundings
from perfsuite.errors import WorkerLost
from perfsuite.options import Options
from perfsuite.plan import Plan
from perfsuite.sampling import Measured, merge
from perfsuite.statistics import LOOKS
from perfsuite.turns import measuring, sharing

BENCHMARK = "benchmark_time/per_iteration"


@dataclass
class Measurement:
    """The answers of a test's processes, grouped by session."""

    sessions: list[list[ItemRun]] = field(default_factory=list)
    seconds: float = 0.0
    disturbances: list[Disturbance] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def runs(self) -> list[ItemRun]:
        """All processes in their order."""
        return [run for session in self.sessions for run in session]

    @property
    def has_ended(self) -> bool:
        """Whether the last process failed, skipped or broke the contract: no more of them."""
        return bool(self.sessions) and is_over(self.runs[-1])

    def samples(self) -> dict[str, list[list[float]]]:
        """Samples of each process by figure."""
        return merge([calls(run) for run in self.runs])

    def medians(self) -> list[list[dict[str, float]]]:
        """Of each process of each session the median of every figure."""
        return [[_medians(run) for run in session] for session in self.sessions]

    def counts(self) -> dict[str, list[int]]:
        """How many processes of each session gave a figure."""
        counts: dict[str, list[int]] = {}
        for session in self.sessions:
            for figure, processes in merge([calls(run) for run in session]).items():
                counts.setdefault(figure, []).append(len(processes))
        return counts

    def extend(self, more: Measurement, *, same_session: bool) -> None:
        """Take in another look at the same test, or another session."""
        if same_session and self.sessions:
            self.sessions[-1].extend(more.runs)
        else:
            self.sessions += more.sessions
        self.seconds += more.seconds
        self.disturbances += more.disturbances
        self.state = more.state


def _medians(run: ItemRun) -> dict[str, float]:
    return {figure: median(rows[0]) for figure, rows in merge([calls(run)]).items()}


def calls(run: ItemRun) -> dict[str, Measured]:
    """What a process measured, by the name of the call; pytest-benchmark's has none."""
    found = dict(run.measured)
    if run.benchmark and run.benchmark["data"]:
        found[""] = Measured(blocks=[{BENCHMARK: s} for s in run.benchmark["data"]])
    return found


def take(
    crew: Crew, plan: Plan, following: str | None, options: Options, look: int = 0
) -> Measurement:
    """One look at a test in processes that have not run it before, alone on the device."""
    count = 1 if plan.is_static else plan.options.processes
    numbers = range(look * count, (look + 1) * count)
    with _alone(crew, numbers, plan):
        return _taken(crew, numbers, plan, following, options)


@contextmanager
def _alone(crew: Crew, numbers: Sequence[int], plan: Plan) -> Iterator[None]:
    """New processes, which end with the test, for one that asks for that."""
    for number in numbers if plan.is_alone else ():
        crew.drop(number)
    yield
    for number in numbers if plan.is_alone else ():
        crew.drop(number)


def _taken(
    crew: Crew, numbers: Sequence[int], plan: Plan, following: str | None, options: Options
) -> Measurement:
    with sharing():  # imports are work, which must not fall into another process's measurement
        crew.prepare(numbers, plan.options.timeout_s)
    with sharing() if plan.is_static else measuring(options.device):
        surroundings = None if plan.is_static else Surroundings(options.device)
        start = time.monotonic()
        runs = _runs(crew, numbers, plan, following, options.self_test)
        seconds = time.monotonic() - start
        watched = None if plan.is_served else surroundings  # a server is no disturbance
        disturbance = watched.disturbance() if watched else None
    return Measurement(
        sessions=[runs],
        seconds=seconds,
        disturbances=[disturbance] if disturbance else [],
        state=surroundings.state() if surroundings else {},
    )


def _runs(
    crew: Crew, numbers: Sequence[int], plan: Plan, following: str | None, slow: float | None
) -> list[ItemRun]:
    runs: list[ItemRun] = []
    for number in numbers:
        order = Order(
            nodeid=plan.nodeid,
            following=following,
            first=number == 0,
            budget_s=plan.options.budget_s * LOOKS[0] / len(numbers),
            timeout_s=plan.options.timeout_s,
            slow=slow,
        )
        try:
            runs.append(crew.run(number, order))
        except WorkerLost as lost:
            runs.append(ItemRun(void=str(lost)))
        if is_over(runs[-1]):
            break
    return runs
