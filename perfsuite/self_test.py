"""What --perf-self-test expects of the gate: red where an engine was slowed, green at 0 %. Pure.

A test passes when the gate did what it should on every figure that can be slowed: a time or a
throughput that is judged. Memory has no time; it can only raise a false alarm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from textwrap import shorten

from perfsuite.metrics import METRICS
from perfsuite.results import Result, Row
from perfsuite.verdict import Verdict

SKIPPED = "a compiled fact has no time to slow: it is no part of --perf-self-test"
_WITHOUT_BASELINE = frozenset({Verdict.NEW, Verdict.FOREIGN})
_NOTHING = Row("contract", Verdict.VOID, note="no time or throughput was measured: nothing to slow")
_WIDEST = 200  # characters of a line of a message
_LARGEST = 9.0  # the largest share that --perf-self-test takes


def header(share: float) -> str:
    """The line that says so before anything runs."""
    how = "on purpose; a test passes where its gate turns red"
    if share == 0:
        how = "in the same wrapping; a test passes where its gate stays green"
    return f"perf: self-test: every engine is slowed by {_percent(share)} {how}"


def marked(result: Result, share: float) -> Result:
    """The result with a word in its facts that it is of a self-test."""
    return replace(result, facts={"self_test": {"share": share}, **result.facts})


def misses(rows: Sequence[Row], share: float) -> list[Row]:
    """The figures of one test on which the gate did not do what it should; empty: it passes.

    With a share every time and throughput must be WORSE, by a limit that the share exceeds. With
    0 % none may be; UNSURE passes.
    """
    void = [row for row in rows if row.verdict is Verdict.VOID]
    timed = [row for row in rows if _is_timed(row)]
    if void or not timed:
        return void or [_NOTHING]
    if share == 0:
        unmatched = [row for row in timed if row.verdict in _WITHOUT_BASELINE]
        return [row for row in rows if row.verdict is Verdict.WORSE] + unmatched
    return [row for row in timed if row.verdict is not Verdict.WORSE or _accepts(row, share)]


def failure(rows: Sequence[Row], share: float) -> str | None:
    """Why one test fails its self-test, in at most six lines; None when it passes."""
    missed = misses(rows, share)
    if not missed:
        return None
    first = next((row for row in missed if _accepts(row, share)), missed[0])
    lines = [line for line in _told(first, share) if line]
    if len(missed) > 1:
        lines.append("also " + ", ".join(_named(row) for row in missed if row is not first))
    return "SELF-TEST: " + "\n".join(shorten(line, _WIDEST, placeholder="...") for line in lines)


def summary(tests: Sequence[Sequence[Row]], share: float) -> str:
    """One line about the rows of all tests, with the verdicts of those that failed."""
    missed = [misses(rows, share) for rows in tests]
    failed = Counter(_reason(rows[0], share) for rows in missed if rows)
    right = len(tests) - failed.total()
    as_asked = "turned red" if share else "stayed green"
    text = (
        f"self-test: {_percent(share)} slower: {right} of {len(tests)} tests {as_asked}"
        " as they should"
    )
    if failed:
        reasons = ", ".join(f"{reason} {count}" for reason, count in failed.items())
        text += f"; {failed.total()} did not ({reasons})"
    unsure = sum(any(row.verdict is Verdict.UNSURE for row in rows) for rows in tests)
    return text if share or not unsure else f"{text}; {unsure} with a figure that is UNSURE"


def _is_timed(row: Row) -> bool:
    of = METRICS.get(row.metric_id)  # a broken contract has a row, but no metric
    return of is not None and of.gated and of.kind in ("time", "throughput") and not of.derived


def _accepts(row: Row, share: float) -> bool:
    """Whether this loss is within the figure's limit, so that the gate is right to pass it."""
    return share > 0 and row.limit is not None and 1 + share <= row.limit


def _reason(row: Row, share: float) -> str:
    return "limit" if _accepts(row, share) else row.verdict.value


def _told(row: Row, share: float) -> Iterator[str]:
    if row.verdict in _WITHOUT_BASELINE:
        yield f"{_named(row)}: no baseline to test against"
        yield row.note or "record one first: --perf-save-new in place of --perf-self-test"
    elif row.verdict is Verdict.GONE:
        yield f"{_named(row)}: {row.note}"
        yield "record the test anew first: --perf-save in place of --perf-self-test"
    elif row.verdict is Verdict.VOID:
        yield row.note
    elif share == 0:
        yield from _false_alarm(row)
    elif _accepts(row, share):
        yield from _contradiction(row, share)
    else:
        yield from _unseen(row, share)


def _false_alarm(row: Row) -> Iterator[str]:
    yield f"{_named(row)} though nothing was slowed"
    yield _ratio(row)
    yield row.note
    yield (
        "remedy: run again when the machine is quiet; --perf-calibrate tells the gate how far this"
        " machine moves; if the loss is real, mend or accept it first"
    )


def _contradiction(row: Row, share: float) -> Iterator[str]:
    assert row.limit is not None
    lower = f"a lower limit, like --perf-limit={METRICS[row.metric_id].kind}:{share * 40:.2g}%"
    larger = 2 * (row.limit - 1)
    yield (
        f"{_name(row)} may lose {_percent(row.limit - 1)} (limit {row.limit:.3f}): a slowing by"
        f" {_percent(share)} is none that the gate should see"
    )
    if larger <= _LARGEST:
        lower += f", or a larger share, like --perf-self-test={_percent(larger)}"
    yield f"remedy: {lower}"


def _unseen(row: Row, share: float) -> Iterator[str]:
    asked = _percent(share)
    yield f"{_named(row)} though slowed by {asked}: the gate can not see {asked} here"
    yield _ratio(row)
    yield row.note
    if row.detectable is not None:
        yield f"the smallest change that it can see here is {_percent(row.detectable - 1)}"
    yield (
        "remedy: more measuring (--perf-budget), a known machine (--perf-calibrate), a lower"
        " --perf-limit, or a larger share"
    )


def _ratio(row: Row) -> str:
    return (
        f"ratio {row.ratio:.3f} [{row.ratio_low:.3f}, {row.ratio_high:.3f}],"
        f" limit {row.limit:.3f} (above 1 is worse)"
    )


def _named(row: Row) -> str:
    return f"{_name(row)} is {row.verdict}"


def _name(row: Row) -> str:
    of = METRICS.get(row.metric_id)
    title = of.title if of else row.metric_id
    return f"{title} ({row.part})" if row.part else title


def _percent(share: float) -> str:
    return f"{share * 100:.3g}%"
