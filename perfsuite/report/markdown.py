"""The table in markdown, appended to a file: what $GITHUB_STEP_SUMMARY wants."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from pathlib import Path

from perfsuite.report.table import HEADER, cells, counts
from perfsuite.results import Result, Row
from perfsuite.verdict import FAILING, Verdict

_LARGEST_BYTES = 900_000  # GitHub cuts a step summary at 1 MiB
# No HTML, table borders, line breaks, code, emphasis, links or escapes: an entity is only a letter.
_SPECIAL = str.maketrans({
    "|": "&#124;", "\\": "&#92;", "*": "&#42;", "[": "&#91;", "`": "'", "\n": " ", "\r": " ",
})  # fmt: skip


def write(
    path: Path,
    results: Sequence[Result],
    gone: Sequence[tuple[str, str]],
    root: Path,  # noqa: ARG001  (the writers are called alike)
) -> None:
    """Append the report; a report too large for a job summary keeps what failed and the counts."""
    text, most = render(results, gone), len(results) + len(gone)
    while len(text.encode()) > _LARGEST_BYTES and most:
        text, most = render(results, gone, most), most // 2
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(text)


def render(
    results: Sequence[Result], gone: Sequence[tuple[str, str]], most: int | None = None
) -> str:
    """The report as text; with `most`, that many of the failing tests and of the gone ones."""
    return "\n".join(_lines(results, gone, most)) + "\n"


def _lines(
    results: Sequence[Result], gone: Sequence[tuple[str, str]], most: int | None
) -> Iterator[str]:
    shown = results
    yield "## perf"
    yield ""
    yield counts(results, len(gone)) or "nothing was measured"
    if most is not None:
        failing = [r for r in results if any(row.verdict in FAILING for row in r.rows)]
        shown = failing[:most]
        yield f"({len(shown)} of {len(failing)} failing tests: the whole table is too large here)"
    yield ""
    if shown:
        yield from _table(shown)
        yield ""
    for key, file in gone[:most]:
        yield f"- {Verdict.GONE}: {_escaped(key)} ({_escaped(file)})"


def _table(results: Sequence[Result]) -> Iterator[str]:
    from tabulate import tabulate

    body = [
        [_escaped(_name(result)), *map(_escaped, _cells(row))]
        for result in results
        for row in result.rows
    ]
    header = ("test", *HEADER)
    align = ("left", "left", *["right"] * (len(HEADER) - 2), "left")
    yield tabulate(body, header, tablefmt="pipe", disable_numparse=True, colalign=align)


def _cells(row: Row) -> list[str]:
    """The table's cells, with the waiver beside its verdict."""
    *figures, verdict = cells(row)
    return [*figures, f"{verdict}, {row.waiver}" if row.waiver else verdict]


def _name(result: Result) -> str:
    return " ".join(part for part in (result.workload, result.engine, result.tier) if part)


def _escaped(text: str) -> str:
    """A test's name as text that markdown has no other meaning for."""
    return html.escape(text).translate(_SPECIAL)
