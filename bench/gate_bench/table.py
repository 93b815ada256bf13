"""From records to the tables of docs/gate-bench.md. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, stdev

from scipy.stats import binomtest

from .arms import ARMS, Row
from .records import Record

RED = ("WORSE", "VOID")
QUIET = 0.03  # sessions' spread up to which +10 % has to be caught
_SILENT = ("SAME", "BETTER")


@dataclass(frozen=True)
class Share:
    """How often something happened, with the exact (Clopper-Pearson) 95 % interval; at least one
    run. As text in per cent.
    """

    hits: int
    runs: int

    @property
    def value(self) -> float:
        """From 0 to 1."""
        return self.hits / self.runs

    @property
    def interval(self) -> tuple[float, float]:
        """Two-sided, 95 %."""
        found = binomtest(self.hits, self.runs).proportion_ci(0.95, method="exact")
        return float(found.low), float(found.high)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.value:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def rows_of(
    records: Iterable[Record], arm: str, slow: int, rule: str = "", kinds: Sequence[str] = ()
) -> list[Row]:
    """The verdicts of one arm's rule on one slowdown; of some kinds of work, or of all."""
    return [
        row
        for record in records if record.arm == arm and record.slow == slow
        for row in record.rows if row.rule == rule and (not kinds or row.kind in kinds)
    ]  # fmt: skip


def share(rows: Sequence[Row], *verdicts: str) -> Share:
    """The share of rows with one of these verdicts."""
    return Share(sum(row.verdict in verdicts for row in rows), len(rows))


def spread(values: Sequence[float]) -> float:
    """Standard deviation of the logarithm, NaN below two values."""
    return stdev(math.log(value) for value in values) if len(values) > 1 else math.nan


def spreads(records: Sequence[Record], arm: str, rule: str = "") -> dict[str, float]:
    """By kind of work, how far the level moved between unchanged runs.

    Where both sides of a ratio are measured in one run, that is the ratio's.
    """
    rows = rows_of(records, arm, 0, rule)
    paired = ARMS[arm].prepare is None
    return {
        kind: spread([row.ratio if paired else row.value for row in rows if row.kind == kind])
        for kind in _kinds(rows)
    }


def _kinds(rows: Iterable[Row]) -> list[str]:
    return sorted({row.kind for row in rows})


def of_arms(records: Sequence[Record]) -> str:
    """A line for each rule and slowdown; all but runs and seconds in per cent."""
    lines = [
        _line(title, slow, rows, _seconds(records, arm, slow))
        for arm, of in ARMS.items()
        for rule, title in of.rules.items()
        for slow in sorted({r.slow for r in records if r.arm == arm and r.slow is not None})
        if (rows := rows_of(records, arm, slow, rule))
    ]
    return _table(["gate", "+%", "runs", "alarms (95 %)", "UNSURE", "SAME", "BETTER", "s"], lines)


def _line(title: str, slow: int, rows: Sequence[Row], seconds: float) -> list[str]:
    others = [f"{100 * share(rows, verdict).value:.1f}" for verdict in ("UNSURE", *_SILENT)]
    return [title, str(slow), str(len(rows)), str(share(rows, *RED)), *others, f"{seconds:.1f}"]


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Markdown; tabulate's own pads every column by two more."""
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    rule = ["-" * width for width in widths]
    rows = [
        " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in (head, rule, *lines)
    ]
    return "\n".join(f"| {row} |" for row in rows)


def _seconds(records: Sequence[Record], arm: str, slow: int | None = None) -> float:
    """Median wall seconds of a workload run: of a whole run by its kinds of work."""
    each = _all_seconds(records, arm, slow)
    return median(each) if each else math.nan


def _all_seconds(records: Sequence[Record], arm: str, slow: int | None = None) -> list[float]:
    return [
        r.wall_s / len(_kinds(r.rows))
        for r in records if r.arm == arm and r.rows and slow in (None, r.slow)
    ]  # fmt: skip


_SPREAD_OF = (("stored", ""), ("benchmark", "median"), ("asv", ""), ("against", ""))
_CAUGHT_AT = (("stored", 10), ("against", 2))


def of_kinds(records: Sequence[Record]) -> str:
    """A line for each kind of work: every gate's spread between unchanged runs in per cent, and
    what was caught.
    """
    found = [spreads(records, arm, rule) for arm, rule in _SPREAD_OF]
    lines = [
        [
            kind,
            *(_percent(of_gate.get(kind, math.nan)) for of_gate in found),
            *(_caught(rows_of(records, arm, slow, kinds=[kind])) for arm, slow in _CAUGHT_AT),
        ]
        for kind in _kinds(row for record in records for row in record.rows)
    ]
    caught = [f"{arm}: +{slow} % caught" for arm, slow in _CAUGHT_AT]
    return _table(["work", *(arm for arm, _ in _SPREAD_OF), *caught], lines)


def _caught(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    red, unsure = share(rows, *RED), share(rows, "UNSURE")
    return f"{red.hits}/{red.runs}" + (f", {unsure.hits} UNSURE" if unsure.hits else "")


def _percent(value: float) -> str:
    return "" if math.isnan(value) else f"{100 * value:.1f}"


@dataclass(frozen=True)
class Target:
    """One thing that is wanted, what was found, and the word for it."""

    wanted: str
    found: str
    word: str


def targets(records: Sequence[Record], overhead: Sequence[Target] = ()) -> str:
    """What is wanted beside what was found."""
    found = [*_of_stored(records), *_of_against(records), *_of_runs(records), *overhead]
    return _table(["wanted", "found", ""], [(t.wanted, t.found, t.word) for t in found])


def of_overhead(costs: Mapping[str, float]) -> list[Target]:
    """From what `overhead.measured` gave."""
    share_of_ms = max(abs(costs["figure"]), 1e-3 * costs["call_1ms_us"])
    figure = f"{100 * costs['figure']:.3f} %, {0.1 * costs['call_1ms_us']:.3f} % beside"
    calls = f"{1e3 * costs['figure']:.2f} us in it, {costs['call_1ms_us']:.2f} us beside"
    return [
        Target("sampler: at most 1 % of a workload of 1 ms", figure, _word(share_of_ms <= 0.01)),
        Target("sampler: at most 1 us a timed call", calls, _word(costs["call_1ms_us"] <= 1)),
    ]


def _of_stored(records: Sequence[Record]) -> list[Target]:
    quiet = [kind for kind, moved in spreads(records, "stored").items() if moved <= QUIET]
    changed = rows_of(records, "stored", 10)
    caught = [row for row in changed if row.kind in quiet]
    wanted = f"stored: +10 % caught in 90 % (spread <= {100 * QUIET:.0f} %)"
    return [
        _at_most("stored: false alarms at most 1 %", rows_of(records, "stored", 0), 0.01, *RED),
        _at_least(wanted, caught, 0.90, *RED),
        _at_most("stored: +10 % silently green in none", changed, 0.0, *_SILENT),
        Target("stored: +10 % UNSURE", _full(share(changed, "UNSURE")), "shown"),
    ]


def _of_against(records: Sequence[Record]) -> list[Target]:
    each = _all_seconds(records, "against")
    unchanged, changed = (rows_of(records, "against", slow) for slow in (0, 2))
    spent = f"median {median(each):.0f} s, longest {max(each):.0f} s" if each else "none run"
    within = _word(max(each) <= 60 if each else None)
    return [
        _at_most("against: false alarms at most 1 %", unchanged, 0.01, *RED),
        _at_least("against: +2 % caught in 95 %", changed, 0.95, *RED),
        Target("against: within 60 s a workload, aim 30 s", spent, within),
    ]


def _of_runs(records: Sequence[Record]) -> list[Target]:
    """The fewest over the gates, for unchanged code and for each slowdown; the patient is extra."""
    rules = {arm: next(iter(of.rules)) for arm, of in ARMS.items() if arm != "patient"}
    fewest = {
        slow: min(len(rows_of(records, arm, slow, rule)) for arm, rule in rules.items())
        for slow in (0, 2, 5, 10)
    }
    kinds = len(_kinds(row for record in records for row in record.rows))
    broken = sum(bool(record.broken) for record in records)
    changed = min(fewest[slow] for slow in (2, 5, 10))
    return [
        Target("at least 300 unchanged workload runs a gate", str(fewest[0]),
               _word(fewest[0] >= 300)),
        Target("at least 100 a gate at each of +2, +5, +10 %", str(changed), _word(changed >= 100)),
        Target("at least 6 kinds of work", str(kinds), _word(kinds >= 6)),
        Target("runs that broke: none", str(broken), _word(broken == 0)),
    ]  # fmt: skip


def _at_most(wanted: str, rows: Sequence[Row], limit: float, *verdicts: str) -> Target:
    found = share(rows, *verdicts)
    return Target(wanted, _full(found), _word(found.value <= limit if rows else None))


def _at_least(wanted: str, rows: Sequence[Row], limit: float, *verdicts: str) -> Target:
    found = share(rows, *verdicts)
    return Target(wanted, _full(found), _word(found.value >= limit if rows else None))


def _full(found: Share) -> str:
    return f"{found} % of {found.runs}" if found.runs else "none run"


def _word(reached: bool | None) -> str:
    return {True: "reached", False: "NOT REACHED", None: "not measured"}[reached]
