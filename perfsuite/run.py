"""One run under --perf: what it was told, and which role this process plays in it.

The roles:
    worker      runs single tests on request and answers for its engine
    measurer    runs tests by asking workers: a plain run, or a process of pytest-xdist
    reporter    collects results, saves, prints: a plain run, or xdist's controller
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from perfsuite import waivers, worker
from perfsuite.adapters import named
from perfsuite.baselines import check_writable
from perfsuite.cases import Case, cases, entry_point_offers
from perfsuite.conversation import InProcessConversation
from perfsuite.crew import Crew
from perfsuite.errors import PerfError
from perfsuite.fixture import Perf
from perfsuite.gang import Gang
from perfsuite.history.place import Place
from perfsuite.loading import opened
from perfsuite.options import Options, for_item, resolve
from perfsuite.plan import case_of, marker_of
from perfsuite.ranks import rank_count
from perfsuite.sampling import Block
from perfsuite.serving.choices import choices

XDIST_ARGUMENTS = "perfsuite_arguments"
_LOADING = pytest.StashKey[Block]()  # of the engine that a test opened
_NAMES = (
    "device", "engine", "scale", "save", "save_new", "save_force", "baselines", "limit", "budget",
    "processes", "timeout", "drift", "strict", "require", "model", "json", "markdown", "html",
    "in_process",
    "calibrate", "sessions", "against", "self_test", "slice", "haystack", "text", "endpoint",
    "dataset", "tokenizer", "arrivals", "requests", "clients", "history",
)  # fmt: skip
_INI_NAMES = (
    "device", "engine", "scale", "baselines", "limits", "budget", "processes", "timeout", "drift",
    "sessions", "strict", "require", "slice", "history",
)  # fmt: skip
_PATHS = ("model", "haystack", "text", "json", "markdown", "html")


@dataclass
class Run:
    """The state of a run in this process."""

    config: pytest.Config
    options: Options
    worker: worker.WorkerSession | None
    conversations: dict[str, InProcessConversation] = field(default_factory=dict)
    refusal: str = ""  # why nothing may be measured, found while tests were collected
    uncollected: list[str] = field(default_factory=list)  # what failed or skipped itself meanwhile
    waivers: list[waivers.Waiver] = field(default_factory=list)  # of the folders of baselines
    today: date = field(default_factory=lambda: datetime.now(UTC).date())
    _cases: dict[str | None, list[Case]] = field(default_factory=dict)

    def cases(self, pattern: str | None) -> list[Case]:
        """The cases of one test function; the same list for the same pattern."""
        if pattern not in self._cases:
            self._cases[pattern] = cases(self.options, self.offers(), pattern)
        return self._cases[pattern]

    def offers(self) -> list[Any]:
        """What the project and installed packages offer."""
        handed = self.config.hook.pytest_perf_engines(config=self.config)
        own = [offer for offers in handed for offer in offers] + entry_point_offers()
        return own + named.offers(self.options.endpoint, self.options.engines)

    def fixture_for(self, item: pytest.Item) -> Perf:
        """The `perf` fixture of one test in this process."""
        loading = item.stash.setdefault(_LOADING, {})
        conversation: Any
        if self.worker is not None:
            conversation = self.worker.conversation
        else:
            conversation = self.conversations[item.nodeid]
        options = self.options
        patience = None if self.worker is None else for_item(options, marker_of(item)).timeout_s
        return Perf(
            case_of(item), options.device, conversation, options.haystack, options.text, loading,
            patience,
        )  # fmt: skip

    def opened(self, item: pytest.Item, case: Case, device: str) -> Any:
        """The engine of a case; the figures of its loading wait for the test's `perf(...)`."""
        engine, figures = opened(case.offer, case.workload, device)
        item.stash.setdefault(_LOADING, {}).update(figures)
        return engine


def start(config: pytest.Config) -> Run:
    """Resolve what was said and register the hooks of this process's roles.

    Raises pytest.UsageError for anything that can not be used.
    """
    try:
        run = Run(config, _options(config), worker.current(config))
        if run.options.save != "none" and run.worker is None:
            check_writable(run.options.baselines[0])
        reports = run.worker is None and not _only_looks(config)
        if run.options.history and reports:
            Place(run.options.history).check_writable()
        if run.options.html and reports:
            from perfsuite.report.page import require_libraries

            require_libraries()
        if run.worker is None:
            run.waivers = waivers.read_all(run.options.baselines)
    except PerfError as problem:
        raise pytest.UsageError(str(problem)) from None
    _refuse_contradictions(config, run.options)
    if run.worker is None:
        _register(config, run)
    return run


def _register(config: pytest.Config, run: Run) -> None:
    from perfsuite import annotating
    from perfsuite.collecting import Lister
    from perfsuite.running import InProcess, Measurer
    from perfsuite.session import Reporter

    if _only_lists(config):
        if is_xdist_controller(config):
            raise pytest.UsageError("--perf-list and --perf-list-csv run in one process: add -n 0")
        config.pluginmanager.register(Lister(run), "perfsuite-lister")
        return
    measurer = Measurer(run)
    config.pluginmanager.register(measurer, "perfsuite-measurer")
    if measurer.rounds is not None:
        if is_xdist_controller(config) or is_xdist_worker(config):
            raise pytest.UsageError(
                "--perf-calibrate and --perf-against go over the whole suite in one process:"
                " add -n 0 (tests are measured one at a time under pytest-xdist too)"
            )
        config.pluginmanager.register(measurer.rounds, "perfsuite-rounds")
    if run.options.in_process:
        config.pluginmanager.register(InProcess(measurer, run.options), "perfsuite-in-process")
    if not is_xdist_worker(config):
        config.pluginmanager.register(Reporter(run), "perfsuite-reporter")
        if annotating.is_wanted(config):
            config.pluginmanager.register(annotating.Annotator(), "perfsuite-annotator")


def is_xdist_worker(config: pytest.Config) -> bool:
    """Whether a controller of pytest-xdist gathers what this process reports."""
    return hasattr(config, "workerinput") and worker.current(config) is None


def is_xdist_controller(config: pytest.Config) -> bool:
    """Whether tests run in other processes of pytest-xdist."""
    return bool(config.getoption("dist", "no") != "no") and not hasattr(config, "workerinput")


def _only_lists(config: pytest.Config) -> bool:
    return bool(config.getoption("perf_list") or config.getoption("perf_list_csv"))


def _only_looks(config: pytest.Config) -> bool:
    """Whether nothing is measured, so that nothing is written either."""
    return _only_lists(config) or bool(config.getoption("collectonly", False))


def _options(config: pytest.Config) -> Options:
    folder = config.invocation_params.dir
    command = {name: config.getoption(f"perf_{name}") for name in _NAMES}
    for name in _PATHS:
        if command[name] is not None:
            command[name] = folder / command[name]
    if _only_lists(config):  # the catalogue is the documents', whatever this device would run
        command["scale"] = command["scale"] or "full"
    if command["history"] and "://" not in command["history"]:
        command["history"] = folder / command["history"]
    if command["baselines"]:
        command["baselines"] = [folder / text for text in command["baselines"]]
    ini = {name: config.getini(f"perf_{name}") for name in _INI_NAMES}
    load = choices(command, folder)
    return replace(resolve(command, ini, config.rootpath), ranks=rank_count(os.environ), load=load)


def _refuse_contradictions(config: pytest.Config, options: Options) -> None:
    """Options of others that would leave a test green without a measurement, or unable to run."""
    for name in ("disable", "skip"):
        if config.getoption(f"benchmark_{name}", None):
            raise pytest.UsageError(
                f"--benchmark-{name} leaves tests unmeasured; drop it or --perf"
            )
    if config.getoption("benchmark_compare_fail", None):
        raise pytest.UsageError(
            "--benchmark-compare-fail and --perf are two gates; under --perf use"
            " --perf-limit=benchmark_time:5%"
        )
    _refuse_beside_ranks(config, options)
    debugs = config.getoption("usepdb", False) or config.getoption("trace", False)
    if debugs and not options.in_process:
        raise pytest.UsageError(
            "tests run in worker processes; to debug one, add --perf-in-process"
        )


def _refuse_beside_ranks(config: pytest.Config, options: Options) -> None:
    """What one process does, or what stops and starts single processes, under torchrun."""
    one_process = {
        "--perf-in-process": options.in_process,
        "--perf-against": options.against is not None,
        "--perf-calibrate": options.calibrate,
        "--perf-device=tpu": options.device.kind == "tpu",
        "pytest-xdist": is_xdist_controller(config),
    }
    given = [name for name, is_given in one_process.items() if is_given and options.ranks > 1]
    if given:
        raise pytest.UsageError(
            f"torchrun started {options.ranks} processes: {', '.join(given)} works with one alone"
        )


def crew(run: Run) -> Crew:
    """The workers of a run, each of them one process for each rank of torchrun."""
    start, o = None, run.options
    if o.ranks > 1:
        start = partial(Gang, count=o.ranks, device=o.device)
    return Crew(partial(worker_arguments, run), folder(run.config), start=start)


def worker_arguments(run: Run, number: int, ignored: Sequence[Path] = ()) -> list[str]:
    """The command line of a worker: this run's, without what only one process may do."""
    config = run.config
    given = getattr(config, "workerinput", {}).get(XDIST_ARGUMENTS)
    arguments = list(given if given is not None else map(str, config.invocation_params.args))
    options, separator, rest = _split_at_separator(arguments)
    if config.pluginmanager.hasplugin("xdist"):
        options += ["-n", "0"]
    options += [f"--ignore={path}" for path in ignored]
    if config.getoption("basetemp", None):
        options += [f"--basetemp={config.getoption('basetemp')}-perf-worker-{number}"]
    if config.pluginmanager.hasplugin("benchmark"):
        total = float(config.getoption("benchmark_max_time"))
        options += [f"--benchmark-max-time={total / run.options.processes:g}", "--benchmark-quiet"]
    return options + separator + rest


def _split_at_separator(arguments: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    if "--" not in arguments:
        return list(arguments), [], []
    at = list(arguments).index("--")
    return list(arguments[:at]), ["--"], list(arguments[at + 1 :])


def folder(config: pytest.Config) -> Path:
    """Where workers start: where this run was started."""
    return Path(config.invocation_params.dir)
