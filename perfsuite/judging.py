"""Figures of one test against its baseline: rows with verdicts, and the message of a failure.

Knows baselines, but no clock and no process: what was measured comes in, what to say goes out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from perfsuite.baselines import Baselines, Entry, Key, as_stored, shown
from perfsuite.limits import Limit, limit_of
from perfsuite.metrics import METRICS, Metric, display, ratio, refusal
from perfsuite.results import Row
from perfsuite.statistics import (
    Interval,
    exact,
    median_interval,
    process_medians,
    ratio_interval,
)
from perfsuite.verdict import Judgement, Verdict, judge

Samples = Mapping[str, Sequence[Sequence[float]]]  # figure -> samples of each process
_WIDEST = 200  # characters of a line of a message
_VOID_END = "nothing of this test was used or saved"


@dataclass(frozen=True)
class Bench:
    """Where a test's figures are looked up, and under which limits."""

    baselines: Baselines
    machine: str
    suite: str
    key: Key
    limits: Sequence[Mapping[str, Limit]]
    toolchain: str


def rows(bench: Bench, samples: Samples) -> list[Row]:
    """One row for each figure, in the order in which they were measured.

    A figure that the baseline holds and this run did not give is GONE: it must not pass unseen.
    """
    entry = bench.baselines.find(bench.machine, bench.suite, bench.key)
    found = [_row(bench, entry, figure, processes) for figure, processes in samples.items()]
    return found + _missing(entry, samples)


def _missing(entry: Entry | None, samples: Samples) -> list[Row]:
    note = "the baseline has this figure, this run did not measure it"
    return [
        Row(figure=figure, verdict=Verdict.GONE, note=note)
        for figure in (entry.figures if entry else ())
        if figure not in samples and (of := METRICS.get(figure.partition("@")[0])) and of.gated
    ]


def void(reason: str) -> Row:
    """The row of a test whose contract was broken."""
    return Row(figure="contract", verdict=Verdict.VOID, note=reason)


def _row(
    bench: Bench, entry: Entry | None, figure: str, processes: Sequence[Sequence[float]]
) -> Row:
    of = METRICS[figure.partition("@")[0]]
    medians = process_medians(processes)
    # every sample counts: a median may hide an infinity, and one of NaN depends on the order
    reasons = (refusal(of, sample) for row in processes for sample in row)
    unusable = next((reason for reason in reasons if reason), None)
    if unusable:
        return Row(figure=figure, verdict=Verdict.VOID, note=unusable)
    level = exact(median(medians)) if of.exact else median_interval(medians)
    base = entry.figures.get(figure) if entry else None
    judgement = _judgement(bench, of, figure, medians, entry)
    return Row(
        figure=figure,
        verdict=judgement.verdict,
        value=level.estimate,
        low=level.low,
        high=level.high,
        processes=tuple(medians),
        samples=sum(len(row) for row in processes),
        ratio=judgement.ratio.estimate if judgement.ratio else None,
        ratio_low=judgement.ratio.low if judgement.ratio else None,
        ratio_high=judgement.ratio.high if judgement.ratio else None,
        limit=judgement.limit,
        baseline=median(base) if base else None,
        baseline_file=shown(entry.file) if entry and base else "",
        baseline_date=entry.date if entry and base else "",
        note=judgement.reason,
    )


def _judgement(
    bench: Bench, of: Metric, figure: str, medians: Sequence[float], entry: Entry | None
) -> Judgement:
    if not of.gated:
        return Judgement(Verdict.SHOWN)
    base = entry.figures.get(figure) if entry else None
    if entry is None or base is None:
        return _unmatched(bench, entry, figure)
    if of.within_toolchain and entry.toolchain != bench.toolchain:
        reason = f"only comparable within one toolchain; the baseline's is {entry.toolchain}"
        return Judgement(Verdict.FOREIGN, reason=reason)
    limit = limit_of(of, *bench.limits)
    judgement = judge(_ratio(of, medians, base), limit.ratio(of, median(base)))
    if median(base) == 0 and limit.accepts_from_zero(median(medians)):
        return replace(judgement, verdict=Verdict.SAME)
    return judgement


def _ratio(of: Metric, medians: Sequence[float], base: Sequence[float]) -> Interval:
    if of.exact:
        return exact(ratio(of, median(medians), median(base)))
    if of.kind == "throughput":
        return ratio_interval(base, medians)
    return ratio_interval(medians, base)


def _unmatched(bench: Bench, entry: Entry | None, figure: str) -> Judgement:
    """NEW, or FOREIGN where another definition or another machine class has it."""
    if entry is not None:
        other = next((name for name in entry.figures if _is_redefined(name, figure)), None)
        if other is None:
            return Judgement(Verdict.NEW)
        reason = f"the baseline holds {other}, another definition"
        return Judgement(Verdict.FOREIGN, reason=reason)
    classes = bench.baselines.elsewhere(bench.machine, bench.suite, bench.key)
    if classes:
        reason = f"there are baselines for this test, but only of {', '.join(classes)}"
        return Judgement(Verdict.FOREIGN, reason=reason)
    return Judgement(Verdict.NEW)


def _is_redefined(stored: str, figure: str) -> bool:
    """Whether a stored figure has this one's name and part under a definition no longer known."""
    stored_id, _, stored_part = stored.partition("@")
    name, _, part = figure.partition("@")
    same = (stored_id.split("/")[0], stored_part) == (name.split("/")[0], part)
    return same and stored_id not in METRICS


def differences(entry: Entry | None, toolchain: str, config: Mapping[str, object]) -> str:
    """What differs between a baseline's surroundings and these, for the message."""
    if entry is None:
        return ""
    parts = _changes(_versions(entry.toolchain), _versions(toolchain)) if entry.toolchain else []
    # floats were shortened when they were stored
    return "; ".join(parts + _changes(as_stored(entry.config), as_stored(config)))


def _versions(toolchain: str) -> dict[str, str]:
    """`python 3.11.7, torch 2.13.0` by package."""
    split = (part.partition(" ") for part in toolchain.split(", "))
    return {package: version for package, _, version in split}


def _changes(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    return [
        f"{name} {before.get(name, 'absent')} -> {now.get(name, 'absent')}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


def failure_message(
    row: Row, *, more: Sequence[Row], differs: str, disturbed: str, accept: str
) -> str:
    """At most six lines: measured, baseline, ratio and limit, ceiling, differences, how to accept.

    Each is cut to 200 characters, but for the command, which is there to be copied.
    """
    if row.verdict is Verdict.GONE:
        return f"GONE: {row.figure}: {row.note}\nto accept: {accept}"
    if row.verdict is Verdict.VOID or row.value is None:
        return "\n".join([f"VOID: {_void_text(row.note)}", _VOID_END])
    of = METRICS[row.metric_id]
    lines = [f"{row.verdict}: {_name(row)} {_measured(row, of)}"]
    if row.baseline is not None:
        lines.append(
            f"baseline {display(of, row.baseline)}, {row.baseline_date[:10]}, {row.baseline_file}"
        )
    if row.ratio is not None and row.limit is not None:
        lines.append(_ratio_line(row))
    context = [
        _ceiling(row),
        f"changed since: {differs}" if differs else "",
        f"disturbed: {disturbed}" if disturbed else "",
        row.note,
    ]
    if any(context):
        lines.append("; ".join(part for part in context if part))
    if more:
        lines.append("also " + ", ".join(f"{_name(m)} {m.verdict}" for m in more))
    return "\n".join([*map(_cut, lines), f"to accept: {accept}"])


def _void_text(note: str) -> str:
    """Five lines: what happened comes first, what a lost process printed at last comes last."""
    lines = [_cut(line) for line in note.splitlines()]
    return "\n".join(lines if len(lines) <= 5 else lines[:2] + lines[-3:])


def _cut(line: str) -> str:
    plain = " ".join(line.split())
    return plain if len(plain) <= _WIDEST else plain[: _WIDEST - 3] + "..."


def _name(row: Row) -> str:
    of = METRICS.get(row.metric_id)
    title = of.title if of else row.metric_id
    return f"{title} ({row.part})" if row.part else title


def _measured(row: Row, of: Metric) -> str:
    assert row.value is not None
    assert row.low is not None
    assert row.high is not None
    value = display(of, row.value)
    if of.exact:
        return value
    return (
        f"{value} [{display(of, row.low)}, {display(of, row.high)}],"
        f" {row.samples} samples in {len(row.processes)} processes"
    )


def _ratio_line(row: Row) -> str:
    assert row.ratio is not None
    assert row.limit is not None
    span = ""
    if row.ratio_low != row.ratio_high:
        span = f" [{row.ratio_low:.3f}, {row.ratio_high:.3f}]"
    return f"ratio {row.ratio:.3f}{span}, limit {row.limit:.3f} (above 1 is worse)"


def _ceiling(row: Row) -> str:
    if row.ceiling is None:
        return "ceiling unknown" if METRICS[row.metric_id].kind in ("time", "throughput") else ""
    return f"{row.ceiling:.0%} of this machine's ceiling" + (" (in cache)" if row.cached else "")
