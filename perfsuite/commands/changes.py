"""Since which commit a history is slower or faster: change points and drifts, by Apache Otava.

PLACE is what --perf-history was given. Each figure's values in the order of the commits are one
series; a line is printed for each step of its level, and for a slow drift that no step shows.
It reads the history only: no engine, no measurement. So it runs in an environment of its own, which
Otava needs, because it asks for an older numpy than most engines do:

    python -m venv changes && changes/bin/pip install 'perfsuite[history,changes]'
    changes/bin/python -m perfsuite changes perf-history
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from perfsuite.errors import PerfError

if TYPE_CHECKING:
    import pandas

    from perfsuite.history.changes import Change, Survey
    from perfsuite.history.place import Place

FORMAT = 1  # of --json
_NAME = 20  # columns of a figure's name before it is broken


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `python -m perfsuite changes`."""
    parser.add_argument("place", metavar="PLACE", help="a folder, or a URL like s3://bucket/perf")
    parser.add_argument(
        "workload", nargs="?", metavar="WORKLOAD", help="its name, or a part that no other has"
    )
    parser.add_argument("--branch", help="only runs of that branch")
    parser.add_argument(
        "--last", type=int, metavar="N", help="only steps within the last N points of a series"
    )
    parser.add_argument(
        "--fail-on-worse", action="store_true",
        help="exit with 1 if a gated figure that is listed got worse",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")


def run(arguments: argparse.Namespace) -> int:
    """Print; files that were skipped go to the error stream."""
    from perfsuite.history import require_libraries
    from perfsuite.history.change_points import MAX_P, require_otava

    if arguments.last is not None and arguments.last < 1:
        raise PerfError(f"--last={arguments.last}: expected a number of points, 1 or more")
    require_libraries()
    require_otava()
    from perfsuite.history.changes import survey
    from perfsuite.history.place import Place

    found = survey(_read(Place(arguments.place), arguments))
    listed = [c for c in found.changes if _is_asked(c, arguments.last)]
    if arguments.json:
        head = {"perfsuite_changes_format": FORMAT, "max_p_value": MAX_P}
        counts = {"series": found.series, "points": found.points, "left_out": found.left_out}
        print(json.dumps({**head, **counts, "changes": [c.as_dict() for c in listed]}, indent=1))
    else:
        print("\n".join(lines(listed, found)))
    failed = any(change.is_worse and change.is_gated for change in listed)
    return int(arguments.fail_on_worse and failed)


def _read(place: Place, arguments: argparse.Namespace) -> pandas.DataFrame:
    from perfsuite.history import frame, overview
    from perfsuite.history.changes import COLUMNS

    chosen = {"branch": arguments.branch}
    if arguments.workload is not None:
        names = frame.read(place, ["workload"])["workload"].unique()
        chosen["workload"] = overview.named(arguments.workload, list(names))
    rows = frame.read(place, COLUMNS, **chosen)
    if rows.attrs["skipped"]:
        print(frame.skipped_text(place.text, rows.attrs["skipped"]), file=sys.stderr)
    if rows.empty:
        words = f" of branch {arguments.branch!r}" if arguments.branch else ""
        raise PerfError(f"{place.text}: no run{words} in this history")
    return rows


def _is_asked(change: Change, last: int | None) -> bool:
    return last is None or change.kind == "drift" or change.runs <= last


def lines(listed: Sequence[Change], found: Survey) -> list[str]:
    """Tables of at most 100 columns, one for each workload, engine and machine; then counts."""
    from tabulate import tabulate

    text: list[str] = []
    head = ("figure", "since", "commits", "levels", "change", "", "p")
    for place, group in groupby(listed, key=_place):
        table = tabulate(
            [_cells(change) for change in group], head, tablefmt="plain", disable_numparse=True,
            maxcolwidths=[_NAME, None, None, 26, None, None, None],
        )  # fmt: skip
        text += [*place, *(f"  {line.rstrip()}" for line in table.splitlines()), ""]
    return [*text, *_summary(listed, found)]


def _place(change: Change) -> tuple[str, ...]:
    """The head of a table, broken where it is longer than a line."""
    from textwrap import wrap

    from perfsuite.history.trend_text import printable

    one = change.series
    kind = " ".join(part for part in (one.scale, one.tier) if part)
    about = (kind, f"on {one.machine}" if one.machine else "", f"from {one.source}")
    words = " on ".join(filter(None, (one.workload, one.engine)))
    both = (words, ", ".join(word for word in about if word))
    return tuple(line for text in both for line in wrap(printable(text), 100))


def _cells(change: Change) -> tuple[str, ...]:
    from perfsuite.history.trend_text import printable, title

    share = f"{change.after / change.before - 1:+.1%}" if change.before else ""
    return (
        printable(title(change.series)),
        f"{change.since:%Y-%m-%d}" if change.kind == "step" else "drift",
        printable("..".join(commit[:7] or "unknown" for commit in change.commits)),
        _levels(change),
        share,
        "worse" if change.is_worse else "better",
        f"{change.p_value:.0e}" if change.p_value else "",
    )


def _levels(change: Change) -> str:
    from perfsuite.history.trend_text import printable
    from perfsuite.metrics import in_unit

    before, after = (in_unit(change.series.unit, v) for v in (change.before, change.after))
    number, _, unit = before.partition(" ")
    return printable(f"{number if after.endswith(f' {unit}') else before} -> {after}")


def _summary(listed: Sequence[Change], found: Survey) -> list[str]:
    steps = [change for change in listed if change.kind == "step"]
    drifts = [change for change in listed if change.kind == "drift"]
    counts = [f"{_of(steps, 'change point')}, {_of(drifts, 'drift')}",
              f"in {found.series} series of {found.points} points"]  # fmt: skip
    text = [" ".join(counts)]
    if found.short:
        text.append(f"{found.short} series have too few points to show any")
    if found.left_out:
        reasons = ", ".join(f"{count} {reason}" for reason, count in found.left_out.items())
        text.append(f"figures left out: {reasons}")
    return text


def _of(some: Sequence[Change], word: str) -> str:
    worse = f" ({sum(change.is_worse for change in some)} worse)" if some else ""
    return f"{len(some)} {word}{'' if len(some) == 1 else 's'}{worse}"
