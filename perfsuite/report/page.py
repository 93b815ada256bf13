"""One self-contained page for people: --perf-html, and `python -m perfsuite report`.

The table is in the page as HTML; what opening a test shows and what is plotted is data, compressed
and in base64, which no text in it can leave. A Content-Security-Policy allows the page's own two
scripts and its style by their hashes, and no connection at all.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfsuite.environment import commit
from perfsuite.errors import OptionError
from perfsuite.report import page_data
from perfsuite.report.page_data import Test, one_line
from perfsuite.report.pictures import Picture, pictures
from perfsuite.report.stored import Run
from perfsuite.report.table import MEANINGS, ORDER, cells
from perfsuite.results import Result
from perfsuite.verdict import Verdict

if TYPE_CHECKING:
    from jinja2 import Environment

_SCRIPTS = ("page", "table", "plots", "ratios", "test", "start")  # browser/*.js, as one script

# Beside its colour every verdict has a sign of its own, in the table and in the plots.
SIGNS = {
    Verdict.WORSE: ("▲", "triangle-up"),
    Verdict.VOID: ("✕", "x"),
    Verdict.GONE: ("○", "circle-open"),
    Verdict.UNSURE: ("◆", "diamond"),
    Verdict.FOREIGN: ("◇", "diamond-open"),
    Verdict.NEW: ("+", "cross"),
    Verdict.BETTER: ("▼", "triangle-down"),
    Verdict.SAME: ("●", "circle"),
    Verdict.SHOWN: ("·", "circle-open"),
}


def require_libraries() -> None:
    """OptionError where the page can not be made, before anything is measured for it."""
    missing = [name for name in ("jinja2", "plotly") if find_spec(name) is None]
    if missing:
        raise OptionError(
            f"the report page needs {' and '.join(missing)}: pip install 'perfsuite[html]'"
        )


def write(
    path: Path, results: Sequence[Result], gone: Sequence[tuple[str, str]], root: Path
) -> None:
    """Replace the file by this run's page."""
    write_page(path, [Run(results, gone, commit(root))])


def write_page(path: Path, runs: Sequence[Run]) -> None:
    """Replace the file by the page of several runs; the old one or the new one is there."""
    text = render(runs)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", errors="replace")  # names of files may be torn
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def render(runs: Sequence[Run]) -> str:
    """The page as text, of equal results always the same."""
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    shown = page_data.tests(runs)
    drawn = pictures(test.result for test in shown)
    gone = list(dict.fromkeys(one for run in runs for one in run.gone))
    style, plotly = _packaged("page.css"), get_plotlyjs()
    script = "\n".join(_packaged(f"{name}.js") for name in _SCRIPTS)
    return environment().get_template("page.html.j2").render(
        policy=_policy([plotly, script]),
        style=Markup(style),  # noqa: S704  (this package's own)
        script=Markup(script),  # noqa: S704
        plotly=Markup(plotly),  # noqa: S704
        data=_packed(_data(shown, drawn)),
        tests=shown,
        failures=[(place, test) for place, test in enumerate(shown) if test.is_red or test.failing],
        gone=gone,
        pictures=drawn,
        counts=_counts(shown, len(gone)),
        held={verdict for test in shown for verdict in test.verdicts},
        ratios=len(page_data.ratios(shown)),
        figures=sum(len(test.result.rows) for test in shown),
        facts=_facts(shown),
        meanings=MEANINGS,
        signs={verdict: sign for verdict, (sign, _) in SIGNS.items()},
        several_machines=len({test.result.machine for test in shown}) > 1,
        several_dates=_has_repeats(shown),
        headline=_headline(shown, len(gone)),
    )  # fmt: skip


def environment() -> Environment:
    """The templates; whatever they print is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("perfsuite", "report/browser"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"one_line": one_line, "cells": cells, "number": _number}
    return made


def _number(value: float | None) -> str:
    """What the browser sorts by, in its own words; empty where there is none."""
    return "" if value is None else "Infinity" if value == math.inf else repr(value)


def _packaged(name: str) -> str:
    return resources.files("perfsuite.report").joinpath("browser", name).read_text(encoding="utf-8")


def _policy(scripts: Sequence[str]) -> str:
    """Nothing may be loaded; only these scripts run. Plotly adds styles of its own as it starts."""
    allowed = " ".join(_hash(text) for text in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _data(shown: Sequence[Test], drawn: Sequence[Picture]) -> dict[str, Any]:
    return {
        "tests": [page_data.as_data(test) for test in shown],
        "ratios": page_data.ratios(shown),
        "metrics": page_data.metrics(shown),
        "pictures": [spec for picture in drawn for _, spec in picture.panels],
        "signs": {verdict.value: list(sign) for verdict, sign in SIGNS.items()},
        "order": [verdict.value for verdict in ORDER],
    }


def _packed(data: Mapping[str, Any]) -> str:
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode(), 6)).decode()


def _counts(shown: Sequence[Test], gone: int) -> list[tuple[Verdict, int]]:
    """Figures of every verdict that occurs, the worst first."""
    found = Counter(row.verdict for test in shown for row in test.result.rows)
    found[Verdict.GONE] += gone
    return [(verdict, found[verdict]) for verdict in ORDER if found[verdict]]


def _headline(shown: Sequence[Test], gone: int) -> str:
    """What the page says first."""
    failing = [test for test in shown if test.is_red]
    if not shown and not gone:
        return "Nothing was measured"
    if failing:
        return f"{_plural(len(failing), 'test')} of {len(shown)} failed"
    if not page_data.ratios(shown):
        return "Nothing was compared: no figure has a baseline"
    return f"No figure of {_plural(len(shown), 'test')} got worse"


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _facts(shown: Sequence[Test]) -> list[tuple[str, str]]:
    """Machine, toolchain, commit and time of all tests together."""
    results = [test.result for test in shown]
    days = sorted({result.date[:16].replace("T", " ") for result in results})
    span = " to ".join(dict.fromkeys((days[0], days[-1]))) if days else ""
    values = {
        "machine": {result.machine for result in results},
        "toolchain": {result.toolchain for result in results},
        "commit": {test.commit for test in shown},
        "measured": {f"{span} UTC"} if span else set(),
    }
    told = {name: " · ".join(sorted(texts - {""})) for name, texts in values.items()}
    return [(name, text) for name, text in told.items() if text]


def _has_repeats(shown: Sequence[Test]) -> bool:
    """Whether one test was measured several times on one machine."""
    keys = Counter((t.result.machine, t.result.key, t.result.nodeid) for t in shown)
    return any(number > 1 for number in keys.values())


