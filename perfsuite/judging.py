"""Figures of one test against its baseline: rows with verdicts, and the message of a failure.

Knows baselines, but no clock and no process: what was measured comes in, what to say goes out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from perfsuite.baselines import Baselines, Entry, Key, as_stored, shown
from perfsuite.environment import changed, versions
from perfsuite.limits import Limit, limit_of
from perfsuite.metrics import METRICS, Metric, display, ratio, refusal
from perfsuite.results import Row
from perfsuite.statistics import (
    ALARMS,
    Sessions,
    Spread,
    compare,
    compare_pairs,
    exact,
    level_interval,
    process_medians,
)
from perfsuite.verdict import Judgement, Verdict, judge, judge_exact

Samples = Mapping[str, Sequence[Sequence[float]]]  # figure -> samples of each process
PACE = "machine_pace/"
_PACES = (f"{PACE}matrix_products", f"{PACE}interpreter_loop")
_WIDEST = 200  # characters of a line of a message
_VOID_END = "nothing of this test was used or saved"


@dataclass(frozen=True)
class Bench:
    """Where a test's figures are looked up, and under which limits and risks."""

    baselines: Baselines
    machine: str
    suite: str
    key: Key
    limits: Sequence[Mapping[str, Limit]]
    toolchain: str
    spreads: Mapping[str, Spread] = field(default_factory=dict)  # figure or metric -> of sessions
    alarms: float = ALARMS  # this test's part of the run's accepted false alarms
    look: int = 0
    excuse: float = 1.0  # the factor that other users of the machine explain
    slower: float = 1.0  # the factor by which the machine's own pace was lower than the baseline's

    def spread_of(self, figure: str) -> Spread | None:
        """What is known of a figure's spread between sessions: its own, else its metric's."""
        return self.spreads.get(figure) or self.spreads.get(figure.partition("@")[0])


@dataclass(frozen=True)
class Pairs:
    """What pairs of processes in turn gave for one test: figure -> one value a pair."""

    base: str  # the name of the other side
    log_ratios: Mapping[str, Sequence[float]]  # of head / base, cost by cost
    levels: Mapping[str, Sequence[float]]  # of base
    only_base: Sequence[str] = ()


def rows(
    bench: Bench, samples: Samples, sessions: Mapping[str, Sequence[int]] | None = None
) -> list[Row]:
    """One row for each figure, in the order in which they were measured.

    `sessions` says how many of a figure's processes belong to each session (all to one). A figure
    that the baseline holds and this run did not give is GONE: it must not pass unseen.
    """
    entry = bench.baselines.find(bench.machine, bench.suite, bench.key)
    judged = [f for f in samples if entry and f in entry.figures and _is_noisy(f)]
    one = replace(bench, alarms=bench.alarms / max(len(judged), 1))
    paces = {f: process_medians(p) for f, p in samples.items() if f.startswith(PACE)}
    found = []
    for figure, processes in samples.items():
        counts = tuple((sessions or {}).get(figure, ()))
        medians = process_medians(processes)
        judgement = _judgement(one, figure, medians, counts, entry, paces)
        found.append(_row(figure, processes, counts, judgement, entry))
    return found + _missing(entry, samples)


def pair_rows(bench: Bench, samples: Samples, pairs: Pairs) -> list[Row]:
    """One row for each figure of head, compared with base's in the same run."""
    judged = [f for f in pairs.log_ratios if _is_noisy(f)]
    part = bench.alarms / max(len(judged), 1)
    found = []
    for figure, processes in samples.items():
        judgement = _pair_judgement(bench, figure, pairs, part)
        base = pairs.levels.get(figure)
        row = _row(figure, processes, (), judgement, None)
        if base:
            row = replace(
                row,
                baseline=median(base),
                baseline_processes=tuple(base),
                baseline_file=pairs.base,
            )
        found.append(row)
    note = f"{pairs.base} has this figure, this tree did not measure it"
    return found + [Row(f, Verdict.GONE, note=note) for f in pairs.only_base]


def _pair_judgement(bench: Bench, figure: str, pairs: Pairs, part: float) -> Judgement:
    of = _metric(figure)
    if not of.gated:
        return Judgement(Verdict.SHOWN)
    logs, base = pairs.log_ratios.get(figure), pairs.levels.get(figure)
    if not logs or not base:
        return Judgement(Verdict.NEW, reason=f"{pairs.base} does not give this figure")
    limit = limit_of(of, *bench.limits).ratio(of, median(base))
    if of.exact:
        return judge_exact(exact(math.exp(median(logs))), limit)
    return judge(compare_pairs(logs, part, bench.look), limit, bench.excuse)


def _is_noisy(figure: str) -> bool:
    of = METRICS.get(figure.partition("@")[0])
    return of is not None and of.gated and not of.exact


def _metric(figure: str) -> Metric:
    return METRICS[figure.partition("@")[0]]


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
    figure: str,
    processes: Sequence[Sequence[float]],
    counts: Sequence[int],
    judgement: Judgement,
    entry: Entry | None,
) -> Row:
    of = _metric(figure)
    unusable = _unusable(of, processes)
    if unusable:
        return Row(figure=figure, verdict=Verdict.VOID, note=unusable)
    medians = process_medians(processes)
    level = exact(median(medians)) if of.exact else level_interval(medians)
    base = entry.figures.get(figure) if entry else None
    return Row(
        figure=figure,
        verdict=judgement.verdict,
        value=level.estimate,
        low=level.low,
        high=level.high,
        processes=tuple(medians),
        sessions=tuple(counts),
        samples=sum(len(row) for row in processes),
        ratio=judgement.ratio.estimate if judgement.ratio else None,
        ratio_low=judgement.ratio.low if judgement.ratio else None,
        ratio_high=judgement.ratio.high if judgement.ratio else None,
        limit=judgement.limit,
        alarm=judgement.alarm,
        detectable=judgement.detectable,
        may_settle=judgement.may_settle,
        baseline=median(base) if base else None,
        baseline_processes=tuple(base or ()),
        baseline_file=shown(entry.file) if entry and base else "",
        baseline_date=entry.date if entry and base else "",
        note=judgement.reason,
    )


def _unusable(of: Metric, processes: Sequence[Sequence[float]]) -> str | None:
    # every sample counts: a median may hide an infinity, and one of NaN depends on the order
    reasons = (refusal(of, sample) for row in processes for sample in row)
    return next((reason for reason in reasons if reason), None)


def _judgement(
    bench: Bench,
    figure: str,
    medians: Sequence[float],
    counts: Sequence[int],
    entry: Entry | None,
    paces: Mapping[str, Sequence[float]],
) -> Judgement:
    of = _metric(figure)
    if not of.gated or _unusable(of, [medians]):
        return Judgement(Verdict.SHOWN)
    base = entry.figures.get(figure) if entry else None
    if entry is None or base is None:
        return _unmatched(bench, entry, figure)
    if of.within_toolchain and entry.toolchain != bench.toolchain:
        reason = f"only comparable within one toolchain; the baseline's is {entry.toolchain}"
        return Judgement(Verdict.FOREIGN, reason=reason)
    limit = limit_of(of, *bench.limits)
    accepted = limit.ratio(of, median(base))
    if of.exact:
        judgement = judge_exact(exact(ratio(of, median(medians), median(base))), accepted)
        if median(base) == 0 and limit.accepts_from_zero(median(medians)):
            return replace(judgement, verdict=Verdict.SAME)
        return judgement
    return _compared(bench, figure, split(medians, counts), entry, paces, accepted)


def _compared(
    bench: Bench,
    figure: str,
    target: Sessions,
    entry: Entry,
    paces: Mapping[str, Sequence[float]],
    limit: float,
) -> Judgement:
    of, spread = _metric(figure), bench.spread_of(figure)
    base = split(entry.figures[figure], entry.sessions.get(figure, ()))
    if spread is None or not spread.probe:
        found = compare(costs(of, target), costs(of, base), spread, bench.alarms, bench.look)
        return judge(found, limit, bench.excuse * bench.slower)
    pace, then = paces.get(spread.probe, ()), entry.figures.get(spread.probe, ())
    now, before = corrected(costs(of, target), pace), corrected(costs(of, base), then)
    if not now or not before:
        found = compare(costs(of, target), costs(of, base), None, bench.alarms, bench.look)
        return judge(found, limit, bench.excuse * bench.slower)
    judgement = judge(compare(now, before, spread, bench.alarms, bench.look), limit, bench.excuse)
    words = f"corrected by {_metric(spread.probe).title}"
    return replace(judgement, reason="; ".join(w for w in (words, judgement.reason) if w))


def split(values: Sequence[float], counts: Sequence[int]) -> list[Sequence[float]]:
    """The processes of each session; without counts all are of one."""
    found, start = [], 0
    for count in counts or (len(values),):
        found.append(values[start : start + count])
        start += count
    return found


def costs(of: Metric, sessions: Sessions) -> list[list[float]]:
    """What rises when things get worse: times as they are, throughputs as their reciprocals."""
    inverse = of.kind == "throughput"
    return [[1 / v if inverse else v for v in session] for session in sessions]


def corrected(sessions: Sessions, paces: Sequence[float]) -> list[list[float]]:
    """Costs at the machine's pace of each process; empty where their numbers differ."""
    if len(paces) != sum(map(len, sessions)):
        return []
    rest = iter(paces)
    return [[cost * next(rest) for cost in session] for session in sessions]


def slower_machine(bench: Bench, samples: Samples) -> float:
    """The factor by which the machine's pace fell behind the baseline's, 1 at least.

    By the matrix products where a framework can make them, else by the interpreter: what a memory
    probe loses, others use, and they are seen in another way.
    """
    entry = bench.baselines.find(bench.machine, bench.suite, bench.key)
    then = entry.figures if entry else {}
    both = [figure for figure in samples if figure in then]
    probes = (f for probe in _PACES for f in both if f.partition("@")[0] == probe)
    figure = next(probes, None)
    if figure is None:
        return 1.0
    return max(1.0, median(then[figure]) / median(process_medians(samples[figure])))


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


def told(entry: Entry | None) -> dict[str, Any]:
    """What a report says of the baseline that a test was compared with."""
    if entry is None:
        return {}
    known = {name: getattr(entry, name) for name in ("date", "commit", "toolchain", "config")}
    return {"file": shown(entry.file), **known}


def differences(entry: Entry | None, toolchain: str, config: Mapping[str, object]) -> str:
    """What differs between a baseline's surroundings and these, for the message."""
    if entry is None:
        return ""
    parts = changed(versions(entry.toolchain), versions(toolchain)) if entry.toolchain else []
    # floats were shortened when they were stored
    return "; ".join(parts + changed(as_stored(entry.config), as_stored(config)))


def failure_message(
    row: Row, *, more: Sequence[Row], differs: str, disturbed: str, remedy: str
) -> str:
    """At most six lines: measured, baseline, ratio and limit, ceiling, differences, the remedy.

    Each is cut to 200 characters, but for the command, which is there to be copied.
    """
    if row.verdict is Verdict.GONE:
        return f"GONE: {row.figure}: {row.note}\n{remedy}"
    if row.verdict is Verdict.VOID or row.value is None:
        return "\n".join([f"VOID: {_void_text(row.note)}", _VOID_END])
    of = METRICS[row.metric_id]
    lines = [f"{row.verdict}: {_name(row)} {_measured(row, of)}"]
    if row.baseline is not None:
        where = [row.baseline_date[:10], row.baseline_file]
        lines.append(", ".join([f"baseline {display(of, row.baseline)}", *filter(None, where)]))
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
    return "\n".join([*map(_cut, lines), f"{remedy}"])


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
    beyond = ""
    if row.alarm is not None and row.alarm > row.limit:
        beyond = f", noise reaches {row.alarm:.3f}"
    return f"ratio {row.ratio:.3f}{span}, limit {row.limit:.3f}{beyond} (above 1 is worse)"


def _ceiling(row: Row) -> str:
    if row.ceiling is None:
        return "ceiling unknown" if METRICS[row.metric_id].kind in ("time", "throughput") else ""
    return f"{row.ceiling:.0%} of this machine's ceiling" + (" (in cache)" if row.cached else "")
