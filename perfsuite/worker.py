"""The process that holds an engine and answers for it.

It is a pytest session with the options of the run, which collects the same tests and then, in
place of running them all, runs those it is told to, one at a time. A test runs up to its
`perf(...)` call as always; from there the pytest process asks for blocks over the pipe.

    told      {"do": "run", "nodeid", "next", "first", "slow"}   {"do": "block"}   {"do": "stop"}
    answered  {"say": "hello"}   {"say": "ready", "part"}   {"say": "block", "figures"}
              {"say": "measured", "part", "once", "facts"}   {"say": "void", "reason"}
              {"say": "benchmark", ...}   {"say": "finished", "reports", "origins"}
"""

from __future__ import annotations

import os
import sys
import threading
from queue import SimpleQueue
from typing import Any

import pytest

from perfsuite.boot import told_subject
from perfsuite.conversation import PipeConversation
from perfsuite.origins import loaded
from perfsuite.pipe import Pipe, PipeClosed
from perfsuite.slowing import slow_benchmark

PIPE_VARIABLE = "PERFSUITE_WORKER_PIPE"  # "read,write": the file descriptors of the pipe

# Plugins that do nothing in a worker: the one that prints, and those that run a test again or in
# another order, which is for the pytest process to decide.
_NOT_HERE = (
    "terminal", "rerunfailures", "pytest_rerunfailures", "flaky", "randomly", "pytest_randomly",
)  # fmt: skip


def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Become a worker; this module is only registered as a plugin (`-p`) where one is started."""
    read_fd, write_fd = map(int, os.environ.pop(PIPE_VARIABLE).split(","))
    session = WorkerSession(QueuedPipe(read_fd, write_fd))
    for name in _NOT_HERE:  # by now their options are known: the run's command line stays valid
        early_config.pluginmanager.set_blocked(name)
    early_config.pluginmanager.register(session, "perfsuite-worker-session")


class QueuedPipe(Pipe):
    """A pipe whose reading thread ends the process when the other side is gone.

    So a worker that hangs in an engine does not outlive a pytest process that was killed.
    """

    def __init__(self, read_fd: int, write_fd: int) -> None:
        super().__init__(read_fd, write_fd)
        self._messages: SimpleQueue[dict[str, Any]] = SimpleQueue()
        threading.Thread(target=self._read_forever, daemon=True).start()

    def receive(self, timeout_s: float | None = None) -> dict[str, Any]:
        """The next message."""
        return self._messages.get(timeout=timeout_s)

    def _read_forever(self) -> None:
        while True:
            try:
                self._messages.put(super().receive())
            except PipeClosed:
                os._exit(3)


class WorkerSession:
    """The hooks that turn a pytest session into a worker."""

    _announced: str | None = None  # the test for whose sake wider fixtures were kept

    def __init__(self, pipe: QueuedPipe) -> None:
        self.pipe = pipe
        self.conversation: PipeConversation | None = None
        self._subject = told_subject()  # now: a test may change the environment
        self._reports: list[dict[str, Any]] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """Look like a process that another one reports for."""
        # The attribute by which plugins know a worker: no JUnit file, no cache, no summary.
        config.workerinput = {"workerid": "perf", "workercount": 1}  # type: ignore[attr-defined]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """What could not be collected goes to the log, for `missing`."""
        if report.failed:
            print(f"{report.nodeid}: {report.longreprtext}", file=sys.stderr)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run what the pytest process orders, until it says quit."""
        items = {item.nodeid: item for item in session.items}
        self.pipe.send({"say": "hello", "items": len(items)})
        while (order := self.pipe.receive())["do"] == "run":
            self._run(items, order)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the reports of one test for its answer."""
        self._reports.append({
            "when": report.when,
            "outcome": report.outcome,
            "text": _text(report),
            "xfail": hasattr(report, "wasxfail"),
            "sections": [list(section) for section in report.sections],
        })

    def _run(self, items: dict[str, pytest.Item], order: dict[str, Any]) -> None:
        item = items.get(order["nodeid"])
        if item is None:
            self.pipe.send({"say": "missing", "items": len(items)})
            return
        self._reports = []
        self.conversation = PipeConversation(self.pipe, order["first"], order.get("slow"))
        if self._announced not in (None, item.nodeid):
            # Another test than was announced: what was kept for that one goes first, as pytest
            # does it itself between two tests.
            item.session._setupstate.teardown_exact(None)
        following = items.get(order["next"] or "")
        self._announced = following.nodeid if following else None
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        self.pipe.send({"say": "finished", "reports": self._reports} | self._origins())

    def _origins(self) -> dict[str, Any]:
        """In a comparison: where the project's modules were loaded from."""
        if self._subject is None:
            return {}
        return {"origins": loaded(self._subject, dict(sys.modules), sys.path)}

    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Any:
        """Tell what pytest-benchmark measured, once the function has returned."""
        benchmark = pyfuncitem.funcargs.get("benchmark")
        slow_benchmark(benchmark, self.conversation.slow if self.conversation else None)
        outcome = yield
        if benchmark is not None:
            self.pipe.send({"say": "benchmark", **benchmark_result(benchmark)})
        return outcome


def benchmark_result(fixture: Any) -> dict[str, Any]:
    """What pytest-benchmark's fixture measured, in built-in types; no data when it was not used.

    `data` holds the seconds of one iteration for each round: pytest-benchmark has divided them.
    """
    metadata = getattr(fixture, "stats", None)
    if metadata is None:
        return {"data": [], "iterations": 1}
    rounds = [float(seconds) for seconds in metadata.stats.data]
    return {"data": rounds, "iterations": int(metadata.iterations), "extra_info": _plain(fixture)}


def _plain(fixture: Any) -> dict[str, Any]:
    kept = (str, int, float, bool, type(None))
    return {str(k): v for k, v in fixture.extra_info.items() if isinstance(v, kept)}


def _text(report: pytest.TestReport) -> str:
    if report.skipped and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return report.longreprtext


def current(config: pytest.Config) -> WorkerSession | None:
    """The worker session of this process, None in the pytest process itself."""
    for plugin in config.pluginmanager.get_plugins():
        if isinstance(plugin, WorkerSession):
            return plugin
    return None
