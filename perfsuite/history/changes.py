"""What changed in a history: steps and drifts of its series, with commits and direction.

A series is of one machine class, engine and metric definition, so that nothing else is mixed. What
is no measurement of the code is left out, and counted: figures of broken contracts, of disturbed
runs, those that are no finite number, and of figures that compare within one toolchain those of
older toolchains.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from perfsuite.history import change_points, trend
from perfsuite.history.trend import Series
from perfsuite.metrics import METRICS, in_unit

if TYPE_CHECKING:
    import pandas

    from perfsuite.history.place import Place

COLUMNS = ("run", "time", "commit", "commit_time", "branch", "machine", "suite", "workload",
           "engine", "scale", "tier", "metric", "part", "unit", "source", "value", "void",
           "disturbance", "toolchain")  # fmt: skip
RECENT = 10  # points within which a step of three deviations is found: those that are news
_NOTED = 300  # newest runs that a run's summary looks at; the command looks at all
_LISTED = 5  # in a run's summary


@dataclass(frozen=True)
class Change:
    """A step, or a drift over the whole of a series; levels in the unit of the series."""

    series: Series
    kind: Literal["step", "drift"]
    index: int  # of a step's first point on the new level; of a drift the last point
    before: float
    after: float
    p_value: float

    @property
    def ratio(self) -> float:
        """Above 1 is worse, as in verdicts; infinite from or to 0."""
        better = self.series.larger_is_better
        over, under = (self.before, self.after) if better else (self.after, self.before)
        return over / under if under > 0 else math.inf

    @property
    def is_worse(self) -> bool:
        """By the direction of the metric."""
        return self.before != self.after and (self.after > self.before) != (
            self.series.larger_is_better
        )

    @property
    def is_gated(self) -> bool:
        """Whether verdicts are made of the figure; paces of the machine, say, are only shown."""
        known = METRICS.get(self.series.metric)
        return known is None or known.gated

    @property
    def commits(self) -> tuple[str, str]:
        """Of the last point before and of the first after it; of a drift the first and the last."""
        of, first = self.series.commits, 0 if self.kind == "drift" else self.index - 1
        return of[first], of[self.index]

    @property
    def since(self) -> datetime:
        """When its first point after it was committed, or run; of a drift the first of all."""
        return self.series.times[0 if self.kind == "drift" else self.index]

    @property
    def runs(self) -> int:
        """Points on the new level, or under the drift."""
        return len(self.series.values) - (0 if self.kind == "drift" else self.index)

    def as_dict(self) -> dict[str, Any]:
        """Built-in types only; a ratio that is infinite is None."""
        before, after = self.commits
        return {
            **dict(zip(trend.KEY, self.series.key, strict=True)),
            "kind": self.kind,
            "since": self.since.isoformat(),
            "commit_before": before,
            "commit": after,
            "run": self.series.runs[self.index],
            "runs": self.runs,
            "before": self.before,
            "after": self.after,
            "ratio": self.ratio if math.isfinite(self.ratio) else None,
            "worse": self.is_worse,
            "gated": self.is_gated,
            "p_value": self.p_value,
        }


@dataclass(frozen=True)
class Survey:
    """What was looked at, what was found, what was left out."""

    changes: Sequence[Change]
    series: int
    points: int
    short: int  # series of too few points to show anything
    left_out: dict[str, int] = field(default_factory=dict)  # rows, by the reason


def survey(frame: pandas.DataFrame) -> Survey:
    """The changes of a frame with at least COLUMNS, in the order of its series.

    Raises PerfError where Otava is not installed.
    """
    usable, left_out = _usable(frame)
    many = trend.series(usable)
    points = [len(one.values) for one in many]
    short = sum(n < change_points.FEWEST for n in points)
    found = [change for one in many for change in of_series(one)]
    return Survey(found, len(many), sum(points), short, left_out)


def of_series(one: Series) -> list[Change]:
    """The steps and the drift of one series, steps by time."""
    known = METRICS.get(one.metric)
    found = change_points.find(one.values, exact=known is not None and known.exact)
    steps = [Change(one, "step", p.index, p.before, p.after, p.p_value) for p in found.points]
    if found.drift is None:
        return steps
    slow = found.drift
    last = len(one.values) - 1
    return [*steps, Change(one, "drift", last, slow.before, slow.after, slow.p_value)]


def _usable(frame: pandas.DataFrame) -> tuple[pandas.DataFrame, dict[str, int]]:
    left_out: dict[str, int] = {}
    frame = frame[frame["value"].notna()]  # a row without a value was no figure
    reasons: dict[str, Callable[[pandas.DataFrame], pandas.Series[bool]]] = {
        "of broken contracts (VOID)": lambda rows: rows["void"].astype(bool),
        "of disturbed runs": lambda rows: rows["disturbance"].astype(str).isin(["", "nan"]).eq(0),
        "not finite": lambda rows: rows["value"].abs() == math.inf,
        "of older toolchains": _of_older_toolchains,
    }
    for reason, is_meant in reasons.items():
        out = is_meant(frame)
        if out.any():
            left_out[reason] = int(out.sum())
        frame = frame[~out]
    return frame, left_out


def _of_older_toolchains(rows: pandas.DataFrame) -> pandas.Series[bool]:
    """Of figures that compare only within a toolchain: whether theirs is not the newest one."""
    bound = {metric.id for metric in METRICS.values() if metric.within_toolchain}
    told = rows["toolchain"].astype(str)
    keys = [rows[name].astype(str) for name in trend.KEY]
    newest = told[rows.sort_values(["time", "run"]).index].groupby(keys).transform("last")
    return rows["metric"].astype(str).isin(bound) & (told != newest)


def notes(place: Place, run: str) -> list[str]:
    """For the summary of a run that was appended: the steps on whose new level it is since lately.

    The newest `_NOTED` runs of its branch are looked at; without Otava a note says that none was.
    Raises what a storage, pandas or Otava raise: the run is over, and its figures are appended.
    """
    if not change_points.is_installed():
        return [
            "change points were not looked for: Apache Otava is not installed;"
            " pip install 'perfsuite[changes]', or `python -m perfsuite changes` from an"
            " environment that has it"
        ]
    from perfsuite.history import frame

    rows = _newest(frame.read(place, COLUMNS), run)
    many = [one for one in trend.series(_usable(rows)[0]) if run in one.runs[-RECENT:]]
    news = [c for one in many for c in of_series(one) if c.kind == "step" and c.runs <= RECENT]
    return _told([c for c in news if run in c.series.runs[c.index :]], place)


def _newest(rows: pandas.DataFrame, run: str) -> pandas.DataFrame:
    """The newest runs of the branch of a run; ids are sorted by time."""
    runs, branches = rows["run"].astype(str), rows["branch"].astype(str)
    own = branches.isin(branches[runs == run])
    newest = sorted(runs[own].unique())[-_NOTED:]
    return rows[own & runs.isin(newest)]


def _told(news: Sequence[Change], place: Place) -> list[str]:
    if not news:
        return []
    worst = sorted(news, key=lambda change: -change.ratio)
    more = [f"  and {len(news) - _LISTED} more"] if len(news) > _LISTED else []
    points = "a change point" if len(news) == 1 else f"{len(news)} change points"
    head = f"this run is on the new level of {points}: python -m perfsuite changes {place.text}"
    return ["\n".join([head, *(f"  {sentence(change)}" for change in worst[:_LISTED]), *more])]


def sentence(change: Change) -> str:
    """One change in words, for a summary."""
    from perfsuite.history.trend_text import printable, title

    one, (before, after) = change.series, change.commits
    where = " on ".join(filter(None, (one.workload, one.engine)))
    levels = f"{in_unit(one.unit, change.before)} -> {in_unit(one.unit, change.after)}"
    word = "worse" if change.is_worse else "better"
    runs = "this run" if change.runs == 1 else f"{change.runs} runs"
    since = f"since {after[:7] or 'an unknown commit'} ({runs}; {before[:7] or 'unknown'} before)"
    return printable(f"{title(one)} {word} {since}: {levels}, {where}")
