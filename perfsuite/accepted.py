"""What was accepted before: the levels of a figure, its best, and how far it went from that. Pure.

A level is the middle of the processes, in the metric's own unit. A gate compares with the last save
alone, so ten losses of 2 % all pass a limit of 5 %. The best that was ever accepted stays in the
file for that: ten times 1.02 is 1.22 times the best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from perfsuite.metrics import METRICS, ratio
from perfsuite.results import Result, Row
from perfsuite.verdict import Verdict

KEPT = 20  # saves of one entry


@dataclass(frozen=True)
class Save:
    """The levels that one save accepted."""

    date: str
    commit: str
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Best:
    """The best level of a figure, and the first save that accepted it."""

    value: float
    date: str
    commit: str


def longer(past: Sequence[Mapping[str, Any]], save: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The history with one save more, oldest first; of too many the oldest go."""
    return [*past, save][-KEPT:]


def better(known: Mapping[str, Mapping[str, Any]], save: Mapping[str, Any]) -> dict[str, Any]:
    """The best of each figure that is judged, as they stand in the file, after one save more."""
    found = dict(known)
    for figure, level in save["figures"].items():
        of = METRICS.get(figure.partition("@")[0])
        if of is None or not of.gated:
            continue
        if figure not in found or ratio(of, level, found[figure]["value"]) < 1:
            found[figure] = {"value": level, "date": save["date"], "commit": save["commit"]}
    return found


def remembered(result: Result, best: Mapping[str, Best], *, accepting: bool) -> Result:
    """The result with the best of each compared figure, and how many times it where that is far.

    accepting: this run's figures become the baseline whatever their verdict.
    """
    rows = tuple(
        _beside(row, best[row.figure], accepting)
        if row.figure in best and row.value is not None and row.limit is not None
        else row
        for row in result.rows
    )
    return replace(result, rows=rows)


def _beside(row: Row, best: Best, accepting: bool) -> Row:
    """The limit is that of one step: what passed it in many small ones is worth a word."""
    passed = accepting or row.verdict in (Verdict.SAME, Verdict.BETTER)
    level = row.value if passed else row.baseline
    assert level is not None
    assert row.limit is not None
    times = ratio(METRICS[row.metric_id], level, best.value)
    return replace(
        row,
        best=best.value,
        best_date=best.date,
        best_commit=best.commit,
        drift=times if times > row.limit else None,
    )
