"""One series for each figure of a history, in the order of the commits. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perfsuite.metrics import METRICS

if TYPE_CHECKING:
    from datetime import datetime

    import pandas

# What two points of one series agree in. Toolchain and configuration are no part of it: an upgrade
# that slows everything is a step to be seen, not the start of something new.
KEY = ("machine", "suite", "workload", "engine", "scale", "tier", "metric", "part", "unit",
       "source")  # fmt: skip

_OF_POINT = ("run", "time", "commit", "commit_time", "value")


@dataclass(frozen=True)
class Series:
    """The values of one figure over time; all tuples are of one length, in one order."""

    machine: str
    suite: str
    workload: str
    engine: str
    scale: str
    tier: str
    metric: str  # the definition's id
    part: str
    unit: str  # of the values
    source: str  # "perfsuite", or the tool whose result was imported
    times: tuple[datetime, ...]  # UTC: the commit's where it is known, else the run's; ascending
    commits: tuple[str, ...]  # empty where there was none
    values: tuple[float, ...]
    runs: tuple[str, ...]  # ids, unique

    @property
    def key(self) -> tuple[str, ...]:
        """What no other series of the same frame has."""
        return tuple(getattr(self, name) for name in KEY)

    @property
    def figure(self) -> str:
        """The metric with its part, as verdicts name it."""
        return f"{self.metric}@{self.part}" if self.part else self.metric

    @property
    def larger_is_better(self) -> bool:
        """Whether a rise is a gain."""
        known = METRICS.get(self.metric)
        return known.kind == "throughput" if known else self.unit.endswith("/s")


def series(frame: pandas.DataFrame) -> list[Series]:
    """The series of a frame of `load_history`, sorted by their keys.

    A point stands at its commit's time, since the clocks of many runners disagree; where that is
    unknown, at its run's. Equal times are ordered by the runs' times and ids, and all are kept.
    Rows without a value, and those of tests whose contract was broken (VOID), are no points.
    """
    points = frame[[*KEY, *_OF_POINT]]
    usable = points[frame["value"].notna() & ~frame["void"].astype(bool)]
    if usable.empty:
        return []
    ordered = usable.assign(
        at=usable["commit_time"].fillna(usable["time"]),
        run=usable["run"].astype(str),  # categories would be ordered by when they were met
    ).sort_values(["at", "run"], kind="stable")  # an id begins with the run's time
    groups = ordered.groupby(list(KEY), observed=True, sort=False, dropna=False)
    return sorted((_series(key, rows) for key, rows in groups), key=lambda one: one.key)


def verdicts(frame: pandas.DataFrame, one: Series) -> list[str]:
    """The verdicts of a series' points, in its order."""
    of = frame
    for name in KEY:
        of = of[of[name] == getattr(one, name)]
    by_run = dict(zip(of["run"], of["verdict"], strict=True))
    return [str(by_run[run]) for run in one.runs]


def _series(key: Sequence[Any], rows: pandas.DataFrame) -> Series:
    identity: dict[str, Any] = {name: str(part) for name, part in zip(KEY, key, strict=True)}
    return Series(
        **identity,
        times=tuple(time.to_pydatetime() for time in rows["at"]),
        commits=tuple(rows["commit"].astype(str)),
        values=tuple(float(value) for value in rows["value"]),
        runs=tuple(rows["run"]),
    )
