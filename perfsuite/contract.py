"""Whether what a test's processes answered may be used, and what its test has to say of itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from perfsuite.crew import ItemRun


def raise_worker_outcome(item: pytest.Item, runs: Sequence[ItemRun]) -> None:
    """Skip or fail as the test did in its worker, with its output attached."""
    for run in runs:
        for report in run.reports:
            for title, content in report["sections"]:
                item.add_report_section("call", title.removeprefix("Captured "), content)
    last = runs[-1]
    if last.void:
        return  # told by the verdict
    if last.failure:
        what = last.failure["text"] or "xfail is refused on a perf test"
        pytest.fail(what, pytrace=False)
    if last.skip:
        pytest.skip(last.skip["text"])


def facts_of(runs: Sequence[ItemRun]) -> dict[str, Any]:
    """What the first process told beside its figures."""
    if not runs or not runs[0].measured:
        return {}
    return next(iter(runs[0].measured.values())).facts


def broken(runs: Sequence[ItemRun], samples: dict[str, Any]) -> str:
    """Why nothing of these runs may be used, or an empty string."""
    last = runs[-1]
    if last.void:
        return last.void
    if last.failure:
        return "the test failed: " + gist(last.failure["text"])
    if last.skip:
        return ""
    if not samples:
        return "the test ended without measuring anything: it never called perf(...)"
    return _unequal_configurations(runs)


def gist(text: str) -> str:
    """The line of a traceback that says what happened."""
    lines = [line for line in text.strip().splitlines() if line.strip()] or [""]
    error = next((line for line in lines if line.startswith("E  ")), None)
    return (lines[-1] if error is None else error.removeprefix("E")).strip()


def _unequal_configurations(runs: Sequence[ItemRun]) -> str:
    """A word when an engine ran differently in two processes: their figures can't be pooled."""
    for part, measured in runs[0].measured.items():
        for run in runs[1:]:
            other = run.measured.get(part, measured)
            if other.facts.get("config") != measured.facts.get("config"):
                return (
                    "the engine's effective configuration differs between processes:"
                    f" {measured.facts.get('config')} and {other.facts.get('config')}"
                )
    return ""
