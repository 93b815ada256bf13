"""Items from cases, and the catalogue that --perf-list prints."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import pytest
from _pytest.unittest import TestCaseFunction  # not public, and the only name of that kind of item

from perfsuite.cases import Case
from perfsuite.errors import PerfError
from perfsuite.perplexity import has_perplexity
from perfsuite.plan import CASE, case_of, is_perf, marker_of
from perfsuite.workloads import Workload

if TYPE_CHECKING:
    from perfsuite.run import Run

REFUSAL = "perfsuite_refusal"  # where a process of pytest-xdist tells why the run must end


def parametrize(metafunc: pytest.Metafunc, run: Run | None) -> None:
    """One item for each case that the test's marker selects; without --perf a single one.

    What is refused is told once all is collected: an error in a collector would come with a
    traceback and without the exit status of wrong usage.
    """
    if run is None:
        metafunc.parametrize(CASE, [pytest.param(None, id="without --perf")], indirect=True)
        return
    pattern = _pattern(metafunc)
    found: list[Case] = []
    try:
        found = run.cases(pattern)
    except PerfError as problem:
        run.refusal = str(problem)
    if not found and not run.refusal:
        run.refusal = (
            f"{metafunc.definition.nodeid}: no workload matches {pattern!r};"
            " see pytest --perf --perf-list"
        )
    params = [pytest.param(case, id=case.id) for case in found]
    metafunc.parametrize(CASE, params or [pytest.param(None, id="refused")], indirect=True)


def refuse_unusable(run: Run, items: list[pytest.Item]) -> None:
    """End the run before anything is measured when one of its tests can not be gated."""
    reason = run.refusal or next(filter(None, map(_unusable, items)), "")
    reason = reason or _without_effect(run, items)
    if not reason:
        return
    output = getattr(run.config, "workeroutput", None)
    if output is None:
        raise pytest.UsageError(reason)
    output[REFUSAL] = reason  # pytest-xdist's controller ends the run: here it would be a crash
    items.clear()


def _without_effect(run: Run, items: list[pytest.Item]) -> str:
    """A text that no test of the suite reads; one of a user's own may, whatever it is."""
    cases = [case_of(item) for item in items if is_perf(item)]
    options = run.options
    if options.haystack is not None and not any(c is None or _asks_needles(c) for c in cases):
        return "--perf-haystack has no effect: no test of this run asks about needles"
    if options.text is not None and not any(c is None or _has_perplexity(c) for c in cases):
        return "--perf-text has no effect: no engine of this run says how likely a text is"
    if options.load.flags and not any(c is not None and _is_served(c) for c in cases):
        return f"{', '.join(options.load.flags)} has no effect: no test of this run asks a server"
    return ""


def _is_served(case: Case) -> bool:
    return case.workload.kind == "serving" and case.offer is not None


def _asks_needles(case: Case) -> bool:
    return case.workload.kind == "needles"


def _has_perplexity(case: Case) -> bool:
    return case.tier == "measured" and has_perplexity(case.offer, case.workload)


def _unusable(item: pytest.Item) -> str:
    if not is_perf(item):
        return ""
    try:
        marker_of(item)
    except PerfError as problem:
        return str(problem)
    if item.get_closest_marker("xfail"):
        return f"{item.nodeid}: xfail would turn a regression green; remove it from perf tests"
    if not isinstance(item, pytest.Function) or isinstance(item, TestCaseFunction):
        return f"{item.nodeid}: only test functions and methods of plain classes can be measured"
    return ""


def _pattern(metafunc: pytest.Metafunc) -> str | None:
    marker = metafunc.definition.get_closest_marker("perf")
    pattern = marker.kwargs.get("workloads") if marker else None
    return None if pattern is None else str(pattern)


class Lister:
    """Prints the workloads of the selected tests in place of running them."""

    def __init__(self, run: Run) -> None:
        self._run, self._config = run, run.config
        self._as_csv = run.config.getoption("perf_list_csv")

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Refuse what a measuring run would refuse."""
        refuse_unusable(self._run, items)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Print; nothing runs."""
        found: dict[str, Workload] = {}
        for item in session.items:
            case = case_of(item) if is_perf(item) else None
            if case is not None:
                found.setdefault(case.workload.id, case.workload)
        text = as_csv(list(found.values())) if self._as_csv else as_table(list(found.values()))
        capture = self._config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():
            print(f"\n{text}")
        return True


_COLUMNS = (
    "id", "document", "place", "kind", "mode", "model", "device", "dtype", "batch", "input_tokens",
    "shared_tokens", "output_tokens", "cache_tokens", "iterations", "warmup_iterations", "options",
    "scale", "stands_for",
)  # fmt: skip


def as_csv(workloads: list[Workload]) -> str:
    """All fields, a line per workload, a header line first."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for workload in workloads:
        writer.writerow([_cell(workload, name) for name in _COLUMNS])
    return stream.getvalue().rstrip("\n")


def _cell(workload: Workload, name: str) -> object:
    value = getattr(workload, name)
    if name == "model":
        return value.name
    if name == "options":
        return " ".join(f"{key}={text}" for key, text in value)
    return " ".join(value) if name == "stands_for" else value


def as_table(workloads: list[Workload]) -> str:
    """What a person wants to see, in 100 columns, with a count."""
    from tabulate import tabulate

    rows = [
        (w.id, w.dtype, w.batch or "2, 4, 8...", w.shared_tokens, w.input_tokens, w.output_tokens)
        for w in workloads
    ]
    header = ("workload", "dtype", "batch", "shared", "input", "output")
    table = tabulate(rows, header, tablefmt="simple", disable_numparse=True)
    return f"{table}\n{len(workloads)} workloads"
