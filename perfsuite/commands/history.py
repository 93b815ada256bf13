"""What a history has: its workloads, or the trend of one.

PLACE is what --perf-history was given. Without WORKLOAD a line for each workload and engine is
printed; with one, a line for each of its figures; with --metric, or where there is one figure
alone, also the last runs and a plot of all. Files that can not be read are named and counted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from perfsuite.errors import PerfError

if TYPE_CHECKING:
    import pandas

    from perfsuite.history.place import Place
    from perfsuite.history.trend import Series

_COLUMNS = ("run", "time", "commit", "commit_time", "machine", "suite", "workload", "engine",
            "scale", "tier", "metric", "part", "unit", "source", "value", "void",
            "verdict")  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `python -m perfsuite history`."""
    parser.add_argument("place", metavar="PLACE", help="a folder, or a URL like s3://bucket/perf")
    parser.add_argument(
        "workload", nargs="?", metavar="WORKLOAD", help="its name, or a part that no other has"
    )
    parser.add_argument("--metric", help="of the figures: a title like TTFT, or an id")
    parser.add_argument("--engine", help="only that engine's")
    parser.add_argument("--branch", help="only runs of that branch")
    parser.add_argument(
        "--last", type=_count, default=20, metavar="N", help="runs that are listed (default: 20)"
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number above 0")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Print; files that were skipped go to the error stream."""
    from perfsuite.history import require_libraries

    require_libraries("plotille")
    from perfsuite.history.place import Place

    place = Place(arguments.place)
    if arguments.workload is None:
        _print_workloads(place, arguments)
    else:
        _print_trend(place, arguments)
    return 0


def _print_workloads(place: Place, arguments: argparse.Namespace) -> None:
    from perfsuite.history import frame, overview, trend_text

    if arguments.metric:
        raise PerfError("--metric has no effect without a WORKLOAD")
    chosen = {"engine": arguments.engine, "branch": arguments.branch}
    found = frame.read(place, overview.COLUMNS, **chosen)
    _tell_skipped(place, found)
    if found.empty:
        raise PerfError(f"{place.text}: {_nothing(chosen)}")
    _print(trend_text.workloads(overview.workloads(found)))


def _print_trend(place: Place, arguments: argparse.Namespace) -> None:
    from perfsuite.history import frame, overview, trend, trend_text

    chosen = {"engine": arguments.engine, "branch": arguments.branch}
    found = frame.read(place, _COLUMNS, workload=arguments.workload, **chosen)
    if found.empty:
        names = list(frame.read(place, ["workload"])["workload"].unique())
        name = overview.named(arguments.workload, names)
        found = frame.read(place, _COLUMNS, workload=name, **chosen)
    _tell_skipped(place, found)
    many = [one for one in trend.series(found) if _is_asked(one, arguments.metric)]
    if not many:
        asked = {"metric": arguments.metric, **chosen}
        raise PerfError(f"{place.text}: {arguments.workload}: {_nothing(asked)}")
    _print(trend_text.figures(many))
    if arguments.metric is None and len(many) > 1:
        print("\n--metric=FIGURE shows the runs of one, and plots them")
        return
    for one in many:
        verdicts = trend.verdicts(found, one)
        _print(["", *trend_text.points(one, verdicts, arguments.last), "", *trend_text.plot(one)])


def _is_asked(one: Series, metric: str | None) -> bool:
    from perfsuite.history.trend_text import title

    names = (one.metric, one.figure, title(one))
    return metric is None or metric.lower() in map(str.lower, names)


def _nothing(chosen: Mapping[str, str | None]) -> str:
    words = [f"{name} {value!r}" for name, value in chosen.items() if value is not None]
    return f"nothing with a value of {', '.join(words)}" if words else "no figure with a value"


def _tell_skipped(place: Place, found: pandas.DataFrame) -> None:
    from perfsuite.history.frame import skipped_text

    if found.attrs["skipped"]:
        print(skipped_text(place.text, found.attrs["skipped"]), file=sys.stderr)


def _print(lines: Sequence[str]) -> None:
    """Plots are braille: where the terminal has no such letters, question marks."""
    from perfsuite.history.trend_text import printable

    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    print("\n".join(map(printable, lines)))
