"""Gathers the results of a run; saves, finds what is gone, decides the exit status, reports."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from perfsuite import calibration, self_test
from perfsuite.baselines import Baselines, Entry, file_name, save, shown
from perfsuite.calibration import path_of
from perfsuite.cases import catalogue
from perfsuite.collecting import REFUSAL
from perfsuite.devices import machine_class, static_target
from perfsuite.environment import commit
from perfsuite.errors import PerfError
from perfsuite.history.place import Place
from perfsuite.history.revision import revision_of
from perfsuite.metrics import METRICS
from perfsuite.options import SCALES
from perfsuite.plan import case_of, is_perf, scale_of
from perfsuite.report import advice, calibration_table, json_file, markdown, page, terminal
from perfsuite.results import Result, Row
from perfsuite.running import RESULT, collected_keys, idle_waivers
from perfsuite.verdict import COMPARED, FAILING_WHEN_STRICT, Verdict
from perfsuite.waivers import Waiver, of_gone

if TYPE_CHECKING:
    from perfsuite.run import Run

_PROGRESS_EVERY_S = 10.0
_ENDED = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
_SELECTING = ("keyword", "markexpr", "lf", "failedfirst", "stepwise", "deselect", "ignore",
              "ignore_glob", "perf_engine", "perf_model", "perf_dataset",
              "perf_arrivals")  # fmt: skip


class Reporter:
    """The one place where results of all processes come together."""

    def __init__(self, run: Run) -> None:
        self._run, self._options = run, run.options
        self._by_nodeid: dict[str, Result] = {}
        self.notes: list[str] = []
        self.gone: list[tuple[str, str]] = []  # (key, file)
        self._items: list[pytest.Item] = []
        self._collected: list[list[str]] = []  # by the processes of pytest-xdist
        self._idle_waivers: list[int] = []  # likewise
        self._waived_gone: list[Waiver] = []
        self._uncollected: list[str] = []  # files and classes that failed or skipped themselves
        self._deselected = False
        self._refusal = ""
        self._progress = _Progress()

    @property
    def results(self) -> list[Result]:
        """One for each test that gave one, in the order of their reports."""
        return list(self._by_nodeid.values())

    def pytest_report_header(self) -> list[str]:
        """What is measured where, before anything runs."""
        o = self._options
        folders = ", ".join(shown(folder) for folder in o.baselines)
        first = (
            f"perf: {o.device.name}, {o.scale} scale, {o.processes} processes a test,"
            f" {o.budget_s:g} s each test; baselines: {folders}"
        )
        if o.ranks > 1:
            first += f"; each engine in {o.ranks} ranks of torchrun, the slowest one's figures"
        return [first] if o.self_test is None else [first, self_test.header(o.self_test)]

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """A run with a selection can not know what is gone."""
        self._deselected = self._deselected or bool(items)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Remember the keys; under pytest-xdist its processes tell them."""
        self._items = session.items
        self._uncollected += self._run.uncollected
        if self._options.calibrate or self._options.against is not None:
            return  # the rounds tell how far they are; what remains is quick
        self._progress.expected = sum(_will_run(item) for item in session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """pytest-xdist passes on paths only; its processes' workers need the whole command line."""
        from perfsuite.run import XDIST_ARGUMENTS

        node.workerinput[XDIST_ARGUMENTS] = list(map(str, self._run.config.invocation_params.args))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take what a process of pytest-xdist collected, or why it refused."""
        output = getattr(node, "workeroutput", None) or {}
        self._refusal = self._refusal or output.get(REFUSAL, "")
        if not self._collected:
            self._collected = output.get("perfsuite_keys", [])
            self._uncollected = output.get("perfsuite_uncollected", [])
            self._idle_waivers = output.get("perfsuite_idle_waivers", [])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take a result off its report; say how far the run is."""
        values = getattr(report, RESULT, None)
        if values is None:
            return
        result, share = Result.from_dict(values), self._options.self_test
        kept = result if share is None else self_test.marked(result, share)
        self._by_nodeid[report.nodeid] = kept  # of a rerun, the last
        self._progress.step(self._run.config)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Save what may be saved, then decide the exit status."""
        if session.config.getoption("collectonly", False):
            return
        if self._refusal:
            self.notes.append(f"ERROR: {self._refusal}")
            session.exitstatus = pytest.ExitCode.USAGE_ERROR
            return
        ended = exitstatus in _ENDED
        failed = False
        if self._options.save != "none":
            failed = self._save() if ended else self._save_nothing(exitstatus)
        if ended:
            failed |= self._look_for_gone(session)
            failed |= self._judge_run()
            self._advise()
            if self._options.calibrate:
                failed |= self._calibrate()
        if self._options.self_test is not None and self.results:
            rows = [result.rows for result in self.results]
            self.notes.append(self_test.summary(rows, self._options.self_test))
        failed |= self._write_files()
        failed |= self._append_to_history(exitstatus)
        if failed and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _save_nothing(self, exitstatus: int) -> bool:
        self.notes.append(f"nothing was saved: {_why_nothing(exitstatus)}")
        return False

    def _save(self) -> bool:
        """Write new figures; True when not all that was to be accepted could be."""
        usable = [r for r in self.results if not r.is_void and _has_figures(r)]
        kept_out = [r for r in usable if self._is_kept_out(r)]
        self._tell_of_disturbed([r for r in kept_out if self._would_change(r)])
        failed = bool(kept_out) and self._options.save == "all"
        groups: dict[tuple[str, str], dict[str, Any]] = {}
        revision = commit(self._run.config.rootpath)
        for result in (r for r in usable if not self._is_kept_out(r)):
            group = groups.setdefault((result.machine, result.suite), {})
            group[result.key] = file_entry(result, revision)
        for (machine, suite), entries in groups.items():
            try:
                fresh = self._unknown(machine, suite, entries)
                path, changed = save(
                    self._options.baselines[0], machine, suite, fresh, self._options.save
                )
            except PerfError as problem:
                self.notes.append(str(problem))
                failed = True
                continue
            if changed:
                self.notes.append(f"saved {len(changed)} tests to {shown(path)}")
        return failed

    def _unknown(self, machine: str, suite: str, entries: dict[str, Any]) -> dict[str, Any]:
        """With --perf-save-new, what no folder that is read has yet."""
        if self._options.save != "new":
            return entries
        known = Baselines(self._options.baselines[1:])
        texts = {
            text: entry for text, entry in known.entries(machine)
            if entry.file.name == file_name(suite)
        }  # fmt: skip
        fresh = {}
        for key, entry in entries.items():
            have = texts[key].figures if key in texts else {}
            figures = {n: f for n, f in entry["figures"].items() if n not in have}
            if figures:
                fresh[key] = {**entry, "figures": figures}
        return fresh

    def _calibrate(self) -> bool:
        """Write what the sessions showed of each machine class; True when that failed."""
        tests = [r for r in self.results if r.tier == "measured" and not r.is_void]
        for machine in sorted({result.machine for result in tests}):
            of = [result for result in tests if result.machine == machine]
            found, path = calibration.calibrate(of), path_of(self._options.baselines[0], machine)
            base = self._options.sessions if self._options.save == "all" else 1
            head = {"machine": machine, "date": of[0].date, "toolchain": of[0].toolchain,
                    "commit": commit(self._run.config.rootpath)}  # fmt: skip
            try:
                if found:
                    calibration.write(path, head, found)
            except PerfError as problem:
                self.notes.append(str(problem))
                return True
            told = calibration.findings(of, found, base)
            self.notes += calibration_table.lines(told, path, self._options.sessions, base)
        return False

    def _is_kept_out(self, result: Result) -> bool:
        return bool(result.disturbance) and not self._options.force

    def _would_change(self, result: Result) -> bool:
        return self._options.save == "all" or any(r.verdict is Verdict.NEW for r in result.rows)

    def _tell_of_disturbed(self, kept_out: list[Result]) -> None:
        if kept_out:
            first, more = kept_out[0], len(kept_out) - 1
            others = f" and {more} more" if more else ""
            self.notes.append(
                f"not saved: {first.workload}{others}, disturbed: {first.disturbance}\n"
                "run again when the machine is quiet, or accept with --perf-save-force"
            )

    def _look_for_gone(self, session: pytest.Session) -> bool:
        """True when a baseline file could not be read."""
        try:
            self._find_gone(session)
        except PerfError as problem:
            self.notes.append(str(problem))
            return True
        return False

    def _find_gone(self, session: pytest.Session) -> None:
        """Baselines without a test, where this run collected everything they came from."""
        if self._selects(session.config):
            return
        collected = self._collected or collected_keys(self._items, self._run)
        # Of a TPU's slices each test runs on one at a time: on whichever, it is not gone.
        known = {(file_name(suite), key) for _, suite, key in collected}
        # Not only the machines of collected tests: the last test of one may be what is gone.
        device = self._options.device
        machines = {machine for machine, _, _ in collected}
        for machine in sorted({machine_class(device), static_target(device), *machines}):
            for key, entry in Baselines(self._options.baselines).entries(machine):
                if (entry.file.name, key) not in known and self._ran_over(key, entry):
                    self._take_gone(key, entry)

    def _selects(self, config: pytest.Config) -> bool:
        selected = self._deselected or any(config.getoption(name, None) for name in _SELECTING)
        return selected or any("::" in argument for argument in config.args)

    def _take_gone(self, key: str, entry: Entry) -> None:
        self.gone.append((key, shown(entry.file)))
        waiver = of_gone(self._run.waivers, key, entry.test, self._run.today)
        if waiver is not None:
            self._waived_gone.append(waiver)
            self.notes.append(f"{Verdict.GONE}: {key}: {waiver.text}")

    def _ran_over(self, key: str, entry: Entry) -> bool:
        """Whether this run would have collected the test that a baseline came from."""
        *_, scale, tier = ["", *key.split(" | ")]
        own = scale_of(self._options.scale, self._options.ranks)
        if tier == "measured" and scale.partition(" x")[0] in SCALES and scale != own:
            return False
        places = (place.partition("::")[0] for place in self._uncollected)
        hidden = any(f"{entry.test}/".startswith(f"{place}/") for place in places)
        return not hidden and _covers(self._run.config, entry.test)

    def _judge_run(self) -> bool:
        """Whether the run fails as a whole; notes say why."""
        failed = False
        gone = len(self.gone) > len(self._waived_gone)
        if gone and self._options.strict and Verdict.GONE in FAILING_WHEN_STRICT:
            self.notes.append("baselines without a test fail under --perf-strict")
            failed = True
        compared = sum(row.verdict in COMPARED for r in self.results for row in r.rows)
        if not compared and self._options.save == "none":
            self.notes.append(
                "nothing was compared: no figure of this run has a baseline;"
                " record one with --perf-save"
            )
            failed = True
        return failed

    def _advise(self) -> None:
        """What drifted, what should be saved, which waivers are over."""
        o = self._options
        accepted = o.save == "all" or o.against is not None or o.self_test is not None
        self.notes += advice.lines(self.results, accepted=accepted)
        self.notes += [
            f"{waiver.label} is for no test of this run: correct or remove it"
            for waiver in self._idle()
        ]

    def _idle(self) -> list[Waiver]:
        """Waivers without a test, where this run collected every test that they could be for."""
        if self._uncollected or self._selects(self._run.config):
            return []
        places = self._idle_waivers if self._collected else idle_waivers(self._items, self._run)
        found = [self._run.waivers[place] for place in places]
        return [w for w in found if w not in self._waived_gone and self._would_collect(w)]

    def _would_collect(self, waiver: Waiver) -> bool:
        """Whether what it is for lies below this run's arguments, and is of this scale."""
        config, (file, colons, _) = self._run.config, waiver.test.partition("::")
        from_ini = config.args_source is pytest.Config.ArgsSource.TESTPATHS
        if not from_ini and not _covers(config, file if colons else ""):
            return False
        (other,) = set(SCALES) - {self._options.scale}
        return not any(waiver.covers({w.id}, waiver.engine) for w in catalogue(other))

    def _append_to_history(self, exitstatus: int) -> bool:
        """Append a run that came to its end; True when that failed."""
        place, root = self._options.history, self._run.config.rootpath
        if not place:
            return False
        if exitstatus not in _ENDED or not self.results:
            reason = _why_nothing(exitstatus)
            self.notes.append(f"nothing was appended to {place}: {reason}")
            return False
        from perfsuite.history import store

        run = store.of_results(self.results, revision_of(root))
        try:
            store.append_or_keep(Place(place), run, root / ".perfsuite" / "not-appended")
        except PerfError as problem:
            self.notes.append(str(problem))
            return True
        self.notes.append(f"appended to {place}: {run.id}")
        self.notes += _noted_changes(Place(place), run.id)
        return False

    def _write_files(self) -> bool:
        failed = False
        o = self._options
        wanted = {json_file.write: o.json, markdown.write: o.markdown, page.write: o.html}
        for write, path in wanted.items():
            if path is None:
                continue
            try:
                write(path, self.results, self.gone, self._run.config.rootpath)
            except OSError as problem:
                self.notes.append(f"{path}: not written: {problem.strerror or problem}")
                failed = True
        return failed

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The table, the counts, the notes."""
        if self.results or self.notes or self.gone:
            terminalreporter.section("perf")
            for line in terminal.lines(self.results, self.gone, self.notes):
                terminalreporter.write_line(line)


class _Progress:
    """A line now and then with how far the run is and how long it may still take."""

    def __init__(self) -> None:
        self.expected = 0
        self._done = 0
        self._start = self._said = time.monotonic()

    def step(self, config: pytest.Config) -> None:
        """One more perf test is done."""
        self._done += 1
        now = time.monotonic()
        out = config.pluginmanager.getplugin("terminalreporter")
        if out is None or now - self._said < _PROGRESS_EVERY_S or self._done >= self.expected:
            return
        self._said = now
        left = (now - self._start) / self._done * (self.expected - self._done)
        out.ensure_newline()
        out.write_line(f"perf: {self._done} of {self.expected} tests, about {_duration(left)} left")


def _will_run(item: pytest.Item) -> bool:
    """A perf test that no known obstacle skips."""
    case = case_of(item) if is_perf(item) else None
    return is_perf(item) and not (case and case.obstacle)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _why_nothing(exitstatus: int) -> str:
    if exitstatus in _ENDED:
        return "no test was measured"
    empty = exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED
    return "no test was selected" if empty else "the run was interrupted"


def _has_figures(result: Result) -> bool:
    return any(row.value is not None for row in result.rows)


def _noted_changes(place: Place, run: str) -> list[str]:
    try:
        from perfsuite.history import changes

        return changes.notes(place, run)
    except Exception as problem:  # noqa: BLE001 - an extra look, which costs no run its table
        kind = "" if isinstance(problem, PerfError) else f"{type(problem).__name__}: "
        return [f"change points were not looked for: {kind}{problem}"]


def file_entry(result: Result, revision: str) -> dict[str, Any]:
    """A result as it stands in a baseline file."""
    return {
        "test": result.test,
        "date": result.date,
        "commit": revision,
        "toolchain": result.toolchain,
        "config": dict(result.config),
        "figures": {
            row.figure: _figure(row) for row in result.rows if row.value is not None
        },
    }


def _figure(row: Row) -> dict[str, Any]:
    figure = {"unit": METRICS[row.metric_id].unit, "processes": _values(row.processes)}
    return figure | ({"sessions": list(row.sessions)} if row.sessions else {})


def _values(processes: Sequence[float]) -> list[float]:
    return [int(value) if float(value).is_integer() else value for value in processes]


def _covers(config: pytest.Config, test: str) -> bool:
    """Whether this run's arguments include the file that a baseline came from."""
    root = config.rootpath
    wanted = root / test
    starts = [Path(config.invocation_params.dir, argument) for argument in config.args]
    return any(wanted == start or start in wanted.parents for start in starts)
