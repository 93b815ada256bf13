"""Trends in a terminal of 100 columns: tables, and a plot in braille."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from statistics import median

from tabulate import tabulate

from perfsuite.history.overview import Known
from perfsuite.history.trend import Series
from perfsuite.metrics import METRICS, in_unit

_PLOT = (70, 12)  # characters
_NAME = 44  # columns of a name before it is broken


def workloads(known: Sequence[Known]) -> list[str]:
    """A line for each workload, engine and machine class."""
    head = ("workload", "engine", "machine", "figures", "runs", "last run")
    rows = [
        (printable(k.workload), printable(k.engine), printable(k.machine), k.figures, k.runs,
         f"{k.last:%Y-%m-%d}")
        for k in known
    ]  # fmt: skip
    widths = [_NAME, 13, 12, None, None, None]
    text: str = tabulate(rows, head, tablefmt="plain", maxcolwidths=widths, disable_numparse=True)
    return text.splitlines()


def figures(many: Sequence[Series]) -> list[str]:
    """A line for each series, under a line for each engine and machine class."""
    found = []
    for place, group in groupby(many, key=_place):
        rows = [_line(one) for one in group]
        head = ("figure", "points", "first", "median", "last", "since first", "")
        text = tabulate(rows, head, tablefmt="plain", disable_numparse=True,
                        maxcolwidths=[_NAME, *[None] * 6])  # fmt: skip
        found += [*place, *(f"  {line}" for line in text.splitlines())]
    return found


def _place(one: Series) -> tuple[str, str]:
    kind = " ".join(part for part in (one.scale, one.tier) if part)
    words = [kind, f"on {one.machine}" if one.machine else "", f"from {one.source}"]
    about = ", ".join(word for word in words if word)
    return printable(" on ".join(filter(None, (one.workload, one.engine)))), printable(about)


def _line(one: Series) -> tuple[object, ...]:
    first, last = one.values[0], one.values[-1]
    shown = [in_unit(one.unit, value) for value in (first, median(one.values), last)]
    return title(one), len(one.values), *shown, *_change(one, first, last)


def _change(one: Series, first: float, last: float) -> tuple[str, str]:
    """The share by which the last value is above the first, and what that means."""
    if first == 0 or first == last:
        return "", ""
    word = "better" if (last > first) == one.larger_is_better else "worse"
    return f"{last / first - 1:+.1%}", word


def title(one: Series) -> str:
    """The metric's title, or the id where it is not ours, with the part."""
    known = METRICS.get(one.metric)
    name = known.title if known else printable(one.metric)
    return f"{name} {printable(one.part)}" if one.part else name


def points(one: Series, verdicts: Sequence[str], most: int) -> list[str]:
    """The last runs of a series, the newest at the end."""
    rows = [
        (f"{time:%Y-%m-%d %H:%M}", printable(commit), in_unit(one.unit, value), verdict)
        for time, commit, value, verdict in zip(
            one.times, one.commits, one.values, verdicts, strict=True
        )
    ][-most:]
    head = ("time (UTC)", "commit", title(one), "verdict")
    text: str = tabulate(rows, head, tablefmt="plain", disable_numparse=True)
    return text.splitlines()


def plot(one: Series) -> list[str]:
    """The values one after the other, each as far from the next, with their dates below."""
    import plotille

    places = [float(place) for place in range(len(one.values))]
    last = len(places) - 1
    figure = plotille.Figure()
    figure.width, figure.height = _PLOT
    figure.with_colors = figure.origin = False
    figure.x_label, figure.y_label = "run", "value"
    figure.set_x_limits(0, max(last, 1))
    figure.x_ticks_fkt = lambda place, _: f"{one.times[min(round(place), last)]:%y-%m-%d}"
    figure.y_ticks_fkt = lambda value, _: in_unit(one.unit, value)
    figure.plot(places, list(one.values))
    return [line.rstrip("\u2800 ") for line in figure.show().splitlines()]


def printable(text: str) -> str:
    """The text without characters that a terminal would obey, as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
