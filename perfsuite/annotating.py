"""The hooks that tell GitHub Actions which perf tests failed, and why, at their lines."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from perfsuite.report.annotations import PLUGIN, Failure, failure, lines
from perfsuite.results import Result
from perfsuite.running import RESULT

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter


class Annotator:
    """Gathers the failures of a run; prints them as workflow commands at its end."""

    def __init__(self) -> None:
        self._failures: dict[str, Failure] = {}
        self._results: dict[str, Result] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep a failed perf test with its message; of a rerun test the last report counts."""
        values = getattr(report, RESULT, None)
        if values is not None and report.failed:
            said = failure(report.nodeid, report.location, str(report.longrepr))
            self._failures[report.nodeid] = said
            self._results[report.nodeid] = Result.from_dict(values)

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        """One command a line; the runner takes them out of the log."""
        root, workspace = terminalreporter.config.rootpath, os.environ.get("GITHUB_WORKSPACE", "")
        results = list(self._results.values())
        for line in lines(self._failures, results, root, workspace):
            terminalreporter.write_line(line)


def is_wanted(config: pytest.Config) -> bool:
    """In a job of GitHub Actions, where no other plugin annotates failures."""
    in_job = os.environ.get("GITHUB_ACTIONS") == "true"
    names = (PLUGIN, f"{PLUGIN}.plugin")  # by its entry point, and by -p
    return in_job and not any(config.pluginmanager.hasplugin(name) for name in names)
