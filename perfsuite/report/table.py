"""The rows of the table, shared by the terminal and markdown. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from perfsuite.metrics import METRICS, display
from perfsuite.results import Result, Row
from perfsuite.verdict import Verdict

HEADER = ("metric", "value", "+-", "n", "baseline", "ratio", "+-", "limit", "ceil", "verdict")
ORDER = (
    Verdict.WORSE, Verdict.VOID, Verdict.GONE, Verdict.UNSURE, Verdict.FOREIGN, Verdict.NEW,
    Verdict.BETTER, Verdict.SAME, Verdict.SHOWN,
)  # fmt: skip


def told(result: Result) -> list[Row]:
    """The rows of a test but counts that are 0 as they were: a table of zeros hides the others."""
    same = (Verdict.SAME, Verdict.NEW)
    return [row for row in result.rows if row.value != 0 or row.baseline or row.verdict not in same]


def cells(row: Row) -> tuple[str, ...]:
    """One figure as text; a figure without a value has its reason elsewhere."""
    if row.value is None:
        return (row.figure, "", "", "", "", "", "", "", "", str(row.verdict))
    of = METRICS.get(row.metric_id)
    if of is None:  # a metric of another version of perfsuite
        ratio = "" if row.ratio is None else _ratio(row.ratio)
        return (row.figure, f"{row.value:.4g}", "", "", "", ratio, "", "", "", str(row.verdict))
    title = f"{row.part} {of.title}" if row.part else of.title
    return (
        " ".join(title.split()),  # a table has no place for a line break
        display(of, row.value),
        "" if of.exact else _percent((row.high or 0) / row.value - 1),
        "" if of.exact else f"{len(row.processes)}x{row.samples // max(len(row.processes), 1)}",
        "" if row.baseline is None else display(of, row.baseline),
        "" if row.ratio is None else _ratio(row.ratio),
        _ratio_width(row),
        "" if row.limit is None else _ratio(row.limit),
        _ceiling(row),
        str(row.verdict),
    )


def _ratio(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.4g}"


def _percent(share: float) -> str:
    return f"{share:.1%}" if share < 0.9995 else f"{share:.0%}"


def _ratio_width(row: Row) -> str:
    if row.ratio is None or not row.ratio or row.ratio_low == row.ratio_high:
        return ""
    return _percent((row.ratio_high or 0) / row.ratio - 1)


def _ceiling(row: Row) -> str:
    if row.ceiling is None:
        return ""
    return f"{row.ceiling:.0%}" + ("c" if row.cached else "")


def counts(results: Sequence[Result], gone: int) -> str:
    """`3 WORSE (1 waived), 41 SAME, 2 NEW`: every verdict that occurred, worst first."""
    found = Counter(row.verdict for result in results for row in result.rows)
    found[Verdict.GONE] += gone
    waived = Counter(row.verdict for result in results for row in result.rows if row.waiver)
    return ", ".join(
        f"{found[verdict]} {verdict}" + (f" ({waived[verdict]} waived)" if waived[verdict] else "")
        for verdict in ORDER
        if found[verdict]
    )


MEANINGS = {
    Verdict.WORSE: "beyond the limit, and beyond what noise explains: mend it, or --perf-save",
    Verdict.VOID: "the contract was broken, so there is no figure: the message says how",
    Verdict.GONE: "a baseline that nothing measures any more",
    Verdict.UNSURE: "can not be told from noise; its note says what would settle it",
    Verdict.FOREIGN: "measured before, but elsewhere or by another definition",
    Verdict.NEW: "nothing to compare with yet: --perf-save-new records it",
    Verdict.BETTER: "beyond the limit on the good side",
}


def meanings(results: Sequence[Result], gone: int) -> Iterator[str]:
    """What each verdict means that someone may have to act on."""
    found = {row.verdict for result in results for row in result.rows}
    found |= {Verdict.GONE} if gone else set()
    yield from (f"  {verdict}: {text}" for verdict, text in MEANINGS.items() if verdict in found)
