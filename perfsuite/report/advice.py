"""What the summary advises below its table: figures that drifted, that got better, waivers that are
over. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from perfsuite.metrics import METRICS, display
from perfsuite.results import Result, Row
from perfsuite.verdict import Verdict

_MOST = 5  # named one by one; of the others their number is told


def lines(results: Sequence[Result], *, accepted: bool) -> Iterator[str]:
    """Every advice, a line each; `accepted` where what got better needs no word about saving."""
    yield from _drifted(results)
    if not accepted:
        yield from _better(results)
    yield from _unneeded(results)


def _drifted(results: Sequence[Result]) -> Iterator[str]:
    """The farthest first. It is a report: each step was within its limit."""
    found = [(row.drift, result, row) for result in results for row in result.rows if row.drift]
    found.sort(key=lambda one: -one[0])
    for drift, result, row in found[:_MOST]:
        yield (
            f"drifted: {_name(result, row)} is {drift:.2f} times its best ({_best(row)}):"
            " small losses that added up, or a baseline that should be restored"
        )
    if len(found) > _MOST:
        yield f"drifted: and {len(found) - _MOST} more"


def _best(row: Row) -> str:
    """`10 ms, 2026-05-01, commit 1a2b`."""
    assert row.best is not None
    commit = f"commit {row.best_commit}" if row.best_commit else ""
    parts = (display(METRICS[row.metric_id], row.best), row.best_date[:10], commit)
    return ", ".join(part for part in parts if part)


def _better(results: Sequence[Result]) -> Iterator[str]:
    names = [
        _name(result, row)
        for result in results for row in result.rows if row.verdict is Verdict.BETTER
    ]  # fmt: skip
    if not names:
        return
    count = "1 figure is BETTER beyond its limit: accept it"
    loss = "it"
    if len(names) > 1:
        count, loss = f"{len(names)} figures are BETTER beyond their limits: accept them", "them"
    yield f"{count} with --perf-save, or a later loss of {loss} will not be seen:"
    yield from (f"  {name}" for name in names[:_MOST])
    if len(names) > _MOST:
        yield f"  and {len(names) - _MOST} more"


def _unneeded(results: Sequence[Result]) -> Iterator[str]:
    """Waivers whose figures all are good again; one test that still needs it is enough."""
    needed: dict[str, bool] = {}
    for result in results:
        for waiver, needs in result.waivers.items():
            needed[waiver] = needed.get(waiver, False) or needs
    for waiver in (waiver for waiver, needs in needed.items() if not needs):
        yield f"{waiver} is no longer needed: all it covers here is SAME or BETTER; remove it"


def _name(result: Result, row: Row) -> str:
    of = METRICS[row.metric_id]
    title = f"{of.title} ({row.part})" if row.part else of.title
    return " ".join(part for part in (result.workload, result.engine, title) if part)
