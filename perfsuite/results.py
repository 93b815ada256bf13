"""One test's outcome as values that travel: over xdist's reports, into JSON, into the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from perfsuite.verdict import Verdict


@dataclass(frozen=True)
class Row:
    """One figure with its verdict; every number in the metric's own unit."""

    figure: str  # metric id, with @part where a call or program was named
    verdict: Verdict
    value: float | None = None  # the middle of the processes' medians
    low: float | None = None  # bounds of the value, 95 % one-sided each
    high: float | None = None
    processes: tuple[float, ...] = ()
    samples: int = 0
    ratio: float | None = None  # below 1 is better
    ratio_low: float | None = None
    ratio_high: float | None = None
    limit: float | None = None  # the largest ratio that is accepted
    alarm: float | None = None  # the ratio from which this run says WORSE: noise reaches so far
    detectable: float | None = None  # the smallest ratio that it would have seen, in 9 of 10 runs
    may_settle: bool = False  # whether measuring in more processes could decide it
    baseline: float | None = None
    baseline_processes: tuple[float, ...] = ()  # its processes' medians; of a comparison base's
    baseline_file: str = ""
    baseline_date: str = ""
    ceiling: float | None = None  # share of what the machine could do at best
    cached: bool = False  # the working set is near the last-level cache: the ceiling is no bound
    note: str = ""
    sessions: tuple[int, ...] = ()  # how many of the processes belong to each session
    waiver: str = ""  # until when, by whom and why this verdict fails no test
    best: float | None = None  # the best level ever accepted, where and when
    best_date: str = ""
    best_commit: str = ""
    drift: float | None = None  # the present level's ratio to the best, where beyond the limit

    @property
    def metric_id(self) -> str:
        """The figure without its part."""
        return self.figure.partition("@")[0]

    @property
    def part(self) -> str:
        """The named call or program, or nothing."""
        return self.figure.partition("@")[2]


@dataclass(frozen=True)
class Result:
    """What one perf test gave: rows, and what is needed to save and to explain them."""

    nodeid: str
    test: str  # the test's file, relative to the root
    machine: str
    suite: str
    key: str
    workload: str
    engine: str
    tier: str
    scale: str
    date: str
    toolchain: str
    rows: tuple[Row, ...] = ()
    samples: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)  # of the engine, effective
    facts: Mapping[str, Any] = field(default_factory=dict)  # found batches, ceilings
    stands_for: tuple[str, ...] = ()
    disturbance: str = ""
    machine_state: Mapping[str, Any] = field(default_factory=dict)  # of the measurement's two ends
    seconds: float = 0.0
    published: tuple[str, ...] = ()
    # what it was compared with: file, date, commit, toolchain and config, as far as they are known
    baseline: Mapping[str, Any] = field(default_factory=dict)
    waivers: Mapping[str, bool] = field(default_factory=dict)  # those of this test: still needed?
    expired: tuple[str, ...] = ()  # waivers that no longer hold, which fails the test

    def as_dict(self) -> dict[str, Any]:
        """Built-in types only."""
        return asdict(self) | {"rows": [_row_dict(row) for row in self.rows]}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Result:
        """The inverse of `as_dict`, also after JSON."""
        rows = tuple(
            Row(
                **{
                    **row,
                    "verdict": Verdict(row["verdict"]),
                    "processes": tuple(row["processes"]),
                    "baseline_processes": tuple(row.get("baseline_processes", ())),
                    "sessions": tuple(row["sessions"]),
                }
            )
            for row in values["rows"]
        )
        texts = {name: tuple(values[name]) for name in ("stands_for", "published", "expired")}
        return Result(**{**values, **texts, "rows": rows})

    @property
    def is_void(self) -> bool:
        """Whether nothing of it may be used."""
        return any(row.verdict is Verdict.VOID for row in self.rows)


def _row_dict(row: Row) -> dict[str, Any]:
    names = ("processes", "baseline_processes", "sessions")
    lists = {name: list(getattr(row, name)) for name in names}
    return {**asdict(row), "verdict": row.verdict.value, **lists}
