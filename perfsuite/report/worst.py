"""Which failures a reader should see first. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from perfsuite.results import Result, Row
from perfsuite.verdict import FAILING, Verdict


def failing_rows(result: Result) -> list[Row]:
    """The figures that fail a test, the worst first; a waived one fails none."""
    found = [row for row in result.rows if row.verdict in FAILING and not row.waiver]
    return sorted(found, key=_gravity, reverse=True)


def failing(results: Sequence[Result]) -> list[Result]:
    """The tests that have such a figure, the one with the worst first."""
    return sorted(filter(failing_rows, results), key=gravity, reverse=True)


def gravity(result: Result) -> tuple[int, float]:
    """How bad a test is: no figure at all is worse than any, a figure in doubt less than either."""
    return max((_gravity(row) for row in result.rows if not row.waiver), default=(0, 0.0))


def excess(row: Row) -> float:
    """How many times its limit a ratio is; infinite where it has none: nothing became something."""
    return math.inf if row.ratio is None else row.ratio / (row.limit or 1)


def _gravity(row: Row) -> tuple[int, float]:
    return {Verdict.VOID: 2, Verdict.WORSE: 1}.get(row.verdict, 0), excess(row)
