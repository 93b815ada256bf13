"""A run as one comment on a pull request: the verdict first, what is worse, the rest folded. Pure.

GitHub takes 65,536 characters. A suite of any size fits: tables are cut, and say by how much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from perfsuite.metrics import METRICS, display
from perfsuite.report import surroundings
from perfsuite.report.foreign_text import code, fenced, toml_string
from perfsuite.report.table import counts
from perfsuite.report.worst import excess, failing, failing_rows
from perfsuite.results import Result, Row
from perfsuite.verdict import COMPARED, Verdict

LARGEST = 65_536  # what GitHub takes; it is kept in bytes, of which no character has less than one
_MOST_SHOWN = 20  # failing tests in the open
_MOST_FOLDED = 100  # figures in a part that is folded
_MOST_ALSO = 3  # further figures of one test
_LONGEST_ID = 1_000  # of a test that a waiver can be shown for: it has to be whole
_ENDS = {2: "it was interrupted", 3: "pytest itself failed", 4: "its command line or setup was"
         " refused", 5: "no test was selected", 124: "its time was over", 137: "it was killed",
         143: "it was ended"}  # fmt: skip
Item = TypeVar("Item")
_BAD, _GOOD = "\N{CROSS MARK}", "\N{WHITE HEAVY CHECK MARK}"


@dataclass(frozen=True)
class About:
    """What the results do not say themselves."""

    base: str = ""  # what is shown as the name of the base; without it, the results' own
    page: str = ""  # URLs: of the report page, and of the job whose log has the rest
    job: str = ""
    status: int | None = None  # exit status of the run, where it is known
    name: str = "perf"  # tells the comments of several jobs on one pull request apart


def marker(name: str) -> str:
    """The first line of the comment, which nobody sees, and by which it is found again."""
    return f"<!-- perfsuite: {name} -->"


def render(
    results: Sequence[Result], gone: Sequence[tuple[str, str]], about: About | None = None
) -> str:
    """The comment, at most `LARGEST` bytes long."""
    about = about or About()
    about = replace(about, base=about.base or _base(results))
    most = _MOST_FOLDED
    text = _joined(results, gone, about, most)
    while len(text.encode()) > LARGEST and most:
        most //= 2
        text = _joined(results, gone, about, most)
    return text


def _base(results: Sequence[Result]) -> str:
    return next((str(r.facts["against"]) for r in results if "against" in r.facts), "")


def _joined(
    results: Sequence[Result], gone: Sequence[tuple[str, str]], about: About, most: int
) -> str:
    return "\n".join(_lines(results, gone, about, most)) + "\n"


def _lines(
    results: Sequence[Result], gone: Sequence[tuple[str, str]], about: About, most: int
) -> Iterator[str]:
    yield marker(about.name)
    yield f"### {_headline(results, about)}{_counted(results, gone)}"
    yield ""
    yield from _worse(results, about, min(most, _MOST_SHOWN))
    yield from _without_figure(results, about, min(most, _MOST_SHOWN))
    for title, verdicts in _FOLDED.items():
        found = _rows(results, verdicts)
        yield from _folded(f"{len(found)} {title}", list(_table(found, about, most)))
    yield from _folded(f"{len(gone)} GONE", _listed(gone, _lost, about, most))
    waived = [(result, row) for result in results for row in result.rows if row.waiver]
    yield from _folded(f"{len(waived)} waived", _listed(waived, _waived, about, most))
    where = list(surroundings.lines(results, code))
    yield from _folded("machine and environment", _listed(where, str, about, most))
    yield from _folded("to accept a loss", list(_acceptance(results)))
    yield from _links(about)


def _headline(results: Sequence[Result], about: About) -> str:
    base = code(about.base) or "its baseline"
    parts = [*_losses(results, base), *_ended(results, about.status)]
    if about.status == 0 and parts and results:
        return f"{_GOOD} perf: {'; '.join(parts)}: accepted"
    if parts:
        return f"{_BAD} perf: {'; '.join(parts)}"
    none = "no test" if len(results) == 1 else f"none of {len(results)} tests"
    unsure = sum(any(row.verdict is Verdict.UNSURE for row in r.rows) for r in results)
    doubt = f", {unsure} can not be told from noise" if unsure else ""
    return f"{_GOOD} perf: {none} is worse than {base}{doubt}"


def _losses(results: Sequence[Result], base: str) -> Iterator[str]:
    """Why tests are red, as far as results say it; a run without a comparison is not green."""
    failed, of = failing(results), "test" if len(results) == 1 else f"of {len(results)} tests"
    worse = sum(any(row.verdict is Verdict.WORSE for row in failing_rows(r)) for r in failed)
    void = sum(result.is_void for result in failed)
    over = sum(bool(result.expired) for result in results)
    if worse:
        yield f"{worse} {of} {'is' if worse == 1 else 'are'} worse than {base}"
    if void:
        yield f"{void} {of} gave no figure that counts"
    if over:
        yield f"{over} {of} had a waiver that is over"
    if not void and not any(row.verdict in COMPARED for r in results for row in r.rows):
        yield "nothing was compared" if results else "nothing was measured"


def _ended(results: Sequence[Result], status: int | None) -> Iterator[str]:
    """What an exit status says that the figures do not."""
    if status == 1 and results and not any(failing_rows(r) or r.expired for r in results):
        yield "the run failed, but not because a figure is worse: see its log"
    elif status not in (None, 0, 1):
        known = f", {_ENDS[status]}" if status in _ENDS else ""
        yield f"the run ended with exit status {status}{known}"


def _counted(results: Sequence[Result], gone: Sequence[tuple[str, str]]) -> str:
    """Of what is judged: what is only shown would be the largest number."""
    judged = [
        replace(result, rows=tuple(r for r in result.rows if r.verdict is not Verdict.SHOWN))
        for result in results
    ]
    found = counts(judged, len(gone))
    return f" ({found})" if found else ""


def _worse(results: Sequence[Result], about: About, most: int) -> Iterator[str]:
    """A line for each test with its worst figure; its others beside it."""
    found = [result for result in failing(results) if not result.is_void]
    if not found:
        return
    yield from _header("worse", about, "")
    for result in found[:most]:
        worst, *others = failing_rows(result)
        yield _line(_name(result), f"**{_title(worst)}**{_also(others)}", *_numbers(worst))
    yield ""
    yield from _more(len(found) - most, about)


def _also(others: Sequence[Row]) -> str:
    if not others:
        return ""
    named = [f"{_title(row)} {_times(row.ratio)}" for row in others[:_MOST_ALSO]]
    left = len(others) - _MOST_ALSO
    return "<br>also " + ", ".join(named) + (f" and {left} more" if left > 0 else "")


def _without_figure(results: Sequence[Result], about: About, most: int) -> Iterator[str]:
    """Tests without a figure that counts, and those whose waiver is over, with the reason."""
    found = [
        (result, row.note) for result in failing(results) if result.is_void
        for row in failing_rows(result) if row.verdict is Verdict.VOID
    ]  # fmt: skip
    found += [(result, text) for result in results for text in result.expired]
    yield from _listed(found, _reason, about, most)


def _reason(one: tuple[Result, str]) -> str:
    result, text = one
    return f"{_name(result)}: {code(_first_line(text))}"


_FOLDED: Mapping[str, frozenset[Verdict]] = {
    "UNSURE: can not be told from noise": frozenset({Verdict.UNSURE}),
    "BETTER": frozenset({Verdict.BETTER}),
    "without a comparison": frozenset({Verdict.NEW, Verdict.FOREIGN, Verdict.GONE}),
}


def _rows(results: Sequence[Result], verdicts: frozenset[Verdict]) -> list[tuple[Result, Row]]:
    """The figures of these verdicts, those farthest from where they were first."""
    found = [(r, row) for r in results for row in r.rows if row.verdict in verdicts]
    best = verdicts == {Verdict.BETTER}
    return sorted(found, key=lambda one: excess(one[1]), reverse=not best)


def _table(found: Sequence[tuple[Result, Row]], about: About, most: int) -> Iterator[str]:
    if not found:
        return
    yield from _header("test", about, "why")
    for result, row in found[:most]:
        why = code(_first_line(row.note)) or str(row.verdict)
        yield _line(_name(result), _title(row), *_numbers(row), why)
    yield ""
    yield from _more(len(found) - most, about)


def _header(first: str, about: About, last: str) -> tuple[str, str]:
    names = (first, "figure", "now", code(about.base) or "baseline", "ratio, 95 % bounds", "limit")
    align = ("---", "---", "---:", "---:", "---:", "---:")
    return _line(*names, *([last] if last else ())), _line(*align, *(["---"] if last else ()))


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _numbers(row: Row) -> tuple[str, str, str, str]:
    """Now, baseline, ratio and limit."""
    return _value(row, row.value), _value(row, row.baseline), _ratio(row), _times(row.limit)


def _folded(title: str, lines: Sequence[str]) -> Iterator[str]:
    """A part that a click opens; nothing where there is nothing."""
    if lines:
        yield from (f"<details><summary>{title}</summary>", "", *lines, "</details>", "")


def _listed(
    items: Sequence[Item], said: Callable[[Item], str], about: About, most: int
) -> list[str]:
    """An item a line; what is cut is never put into words, of which there may be very many."""
    told = [f"- {said(item)}" for item in items[:most]]
    return [*told, "", *_more(len(items) - most, about)] if items else []


def _lost(one: tuple[str, str]) -> str:
    key, file = one
    return f"{code(key)} ({code(file)})"


def _waived(one: tuple[Result, Row]) -> str:
    result, row = one
    what = f"{_title(row)} {row.verdict} {_times(row.ratio)}"
    return f"{_name(result)}: {what}, {code(row.waiver)}"


def _acceptance(results: Sequence[Result]) -> Iterator[str]:
    """What makes the job green where the loss is wanted; there is none for a broken contract."""
    worst = next((result for result in failing(results) if not result.is_void), None)
    if worst is None or len(worst.nodeid) > _LONGEST_ID:
        return
    yield "Say who accepts it, why and until when, in <code>waivers.toml</code> of the baselines:"
    yield ""
    lines = ("[[waiver]]", f"test = {toml_string(worst.nodeid)}", 'reason = "..."',
             'owner = "..."', "until = YYYY-MM-DD  # its last day")  # fmt: skip
    yield fenced("\n".join(lines), "toml")
    yield ""
    if "against" in worst.facts:
        yield "Two trees were compared, no baseline is written: merged, the loss is in the base."
    else:
        yield "Or store the new figures, with the options of this run and <code>--perf-save</code>."
    yield ""


def _links(about: About) -> Iterator[str]:
    named = (("report page", about.page), ("log", about.job))
    found = [f"[{title}]({url})" for title, url in named if url]
    if found:
        yield " \N{MIDDLE DOT} ".join(found)


def _more(left: int, about: About) -> Iterator[str]:
    if left > 0:
        where = f"[the page]({about.page})" if about.page else "the job's log"
        yield f"and {left} more, see {where}"
        yield ""


def _name(result: Result) -> str:
    tier = ", compiled" if result.tier == "static" else ""
    return code(result.workload) + (f" {code(result.engine)}" if result.engine else "") + tier


def _title(row: Row) -> str:
    of = METRICS.get(row.metric_id)
    title = of.title if of else code(row.metric_id)
    return f"{title} {code(row.part)}" if row.part else title


def _value(row: Row, value: float | None) -> str:
    of = METRICS.get(row.metric_id)
    if value is None:
        return ""
    return display(of, value) if of else f"{value:.4g}"


def _ratio(row: Row) -> str:
    if row.ratio is None:
        return ""
    if row.ratio_low == row.ratio_high:
        return f"**{_times(row.ratio)}**"
    return f"**{_times(row.ratio)}** [{_times(row.ratio_low)}, {_times(row.ratio_high)}]"


def _times(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if value < 10 else f"{value:.4g}"


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
