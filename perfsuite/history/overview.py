"""Which workloads a history has, on which engines and since when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perfsuite.errors import PerfError

if TYPE_CHECKING:
    from datetime import datetime

    import pandas

COLUMNS = ("workload", "engine", "machine", "metric", "part", "run", "time")


@dataclass(frozen=True)
class Known:
    """One workload on one engine and machine class."""

    workload: str
    engine: str
    machine: str
    figures: int  # different ones
    runs: int
    last: datetime  # of its runs, UTC


def workloads(frame: pandas.DataFrame) -> list[Known]:
    """Of a frame with at least COLUMNS, sorted by name."""
    by = ["workload", "engine", "machine"]
    groups = frame.groupby(by, observed=True, sort=False)
    facts = groups.agg(runs=("run", "nunique"), last=("time", "max"))
    different = frame[[*by, "metric", "part"]].drop_duplicates()
    facts["figures"] = different.groupby(by, observed=True, sort=False).size()
    records = facts.reset_index().to_dict("records")
    known = [Known(**{str(name): value for name, value in row.items()}) for row in records]
    return sorted(known, key=lambda one: (one.workload, one.engine, one.machine))


def named(asked: str, names: Sequence[str]) -> str:
    """The workload that was asked for by its name, or by a part that it alone has.

    Raises PerfError naming those that it might be.
    """
    every = sorted(set(names))
    if asked in every:
        return asked
    found = [name for name in every if asked in name]
    if len(found) == 1:
        return found[0]
    if not every:
        raise PerfError(f"no workload has {asked!r} in its name: the history is empty")
    near = found or every
    more = f"\n  and {len(near) - 10} more" if len(near) > 10 else ""
    what = f"{len(found)} workloads have" if found else "no workload has"
    listed = "".join(f"\n  {name}" for name in near[:10])
    raise PerfError(f"{what} {asked!r} in the name; known:{listed}{more}")
