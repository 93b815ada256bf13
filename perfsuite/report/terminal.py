"""The table in the terminal: a heading per test, a line per figure, 100 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import wrap

from perfsuite.report.table import HEADER, cells, counts, meanings, told
from perfsuite.results import Result

_WIDEST = 100
_NOTE_LINES = 2  # the failure itself tells the rest


def lines(
    results: Sequence[Result], gone: Sequence[tuple[str, str]], notes: Sequence[str]
) -> Iterator[str]:
    """Everything the summary says, line by line."""
    if results:
        yield from _table(results)
    for key, file in gone:
        yield f"GONE: {key} ({file}) has no test any more"
    yield from notes
    if results or gone:
        yield counts(results, len(gone))
        yield from meanings(results, len(gone))
    if any(row.cached for result in results for row in result.rows):
        yield "c: the working set is near the cache, so the memory ceiling is no bound"


def _table(results: Sequence[Result]) -> Iterator[str]:
    rows = [cells(row) for result in results for row in told(result)]
    header, *printed = _aligned([HEADER, *rows])
    yield header
    remaining = iter(printed)
    for result in results:
        yield _heading(result)
        if result.disturbance:
            yield f"      disturbed: {result.disturbance}"
        for row in told(result):
            yield next(remaining)
            yield from _note(row.note)
            if row.waiver:
                yield f"      {row.waiver}"
        yield from (f"      published: {text}" for text in result.published)


def _note(text: str) -> Iterator[str]:
    for line in text.splitlines()[:_NOTE_LINES]:
        yield from (f"      {part}" for part in wrap(line, _WIDEST - 6))


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Names and verdicts to the left, figures to the right."""
    from tabulate import DataRow, TableFormat, tabulate

    # "plain" puts two blanks between columns, and ten columns then exceed 100
    narrow = TableFormat(
        lineabove=None,
        linebelowheader=None,
        linebetweenrows=None,
        linebelow=None,
        headerrow=DataRow("  ", " ", ""),
        datarow=DataRow("  ", " ", ""),
        padding=0,
        with_header_hide=None,
    )
    align = ("left", *["right"] * (len(HEADER) - 2), "left")
    text = tabulate(table, (), tablefmt=narrow, disable_numparse=True, colalign=align)
    return [line.rstrip() for line in text.splitlines()]


def _heading(result: Result) -> str:
    engine = f" on {result.engine}" if result.engine else ""
    tier = ", compiled" if result.tier == "static" else ""
    return f"{result.workload}{engine}{tier}"
