"""The hooks that run perf tests by asking worker processes; other tests run beside each other."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from perfsuite import self_test, waivers
from perfsuite.accepted import remembered
from perfsuite.benchmark_table import replay, silence_xdist
from perfsuite.collecting import refuse_unusable
from perfsuite.contract import raise_worker_outcome
from perfsuite.conversation import InProcessConversation
from perfsuite.crew import ItemRun
from perfsuite.devices import absence
from perfsuite.errors import PerfError
from perfsuite.gate import Gate
from perfsuite.measurement import Measurement
from perfsuite.options import Options
from perfsuite.plan import Plan, is_perf, marker_of, plan_of, uses_benchmark
from perfsuite.results import Result
from perfsuite.rounds import CalibrationRounds, PairRounds, plans_of
from perfsuite.slowing import slow_benchmark
from perfsuite.turns import measuring, sharing
from perfsuite.worker import benchmark_result

if TYPE_CHECKING:
    from perfsuite.run import Run

RESULT = "perfsuite"  # the attribute of a report that carries a result


class Measurer:
    """Takes the place of the test function's call for perf tests; leaves all others alone."""

    def __init__(self, run: Run) -> None:
        from perfsuite.run import crew

        self._run, self._options = run, run.options
        self._crew = crew(run)
        self._gate = Gate(run.options, self._crew)
        self.rounds: CalibrationRounds | PairRounds | None = None
        if run.options.calibrate:
            self.rounds = CalibrationRounds(run, self._gate)
        elif run.options.against is not None:
            self.rounds = PairRounds(run, self._gate)
        self._following: str | None = None
        self._usable = False  # no test that was collected had to be refused
        self._first_verdicts: dict[str, str | None] = {}
        self._results: dict[str, Result] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Refuse what can not be gated before anything is measured."""
        silence_xdist(self._run.config)
        refuse_unusable(self._run, items)
        self._usable = True

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        """Ordinary tests share the machine; a perf test takes its turn inside its call.

        First of all wrappers, so that no other plugin's time-out counts the waiting.
        """
        if is_perf(item):
            self._following = nextitem.nodeid if nextitem and is_perf(nextitem) else None
            return (yield)
        with sharing():
            return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Skip what can not run here; nothing of a perf test is set up in this process."""
        if not is_perf(item):
            return
        plan = plan_of(item, self._options)
        if plan.case and plan.case.obstacle:
            pytest.skip(plan.case.obstacle)
        ranks = self._options.ranks
        if plan.case is None and ranks > 1:
            pytest.skip(f"torchrun started {ranks} processes, and only engines run in several")
        missing = None if plan.is_static else absence(self._options.device)
        if missing and self._options.require_measured:
            pytest.fail(f"{missing}, and --perf-require=measured was given", pytrace=False)
        if missing:
            pytest.skip(missing)
        if plan.is_static and self._options.self_test is not None:
            pytest.skip(self_test.SKIPPED)
        if not self._options.in_process:
            item.fixturenames[:] = ["benchmark"] if self._fills_benchmark_table(item) else []  # type: ignore[attr-defined]
        else:
            budget, slow = plan.options.budget_s, self._options.self_test
            self._run.conversations[item.nodeid] = InProcessConversation(budget, slow)

    def _fills_benchmark_table(self, item: pytest.Item) -> bool:
        from perfsuite.run import is_xdist_worker

        return uses_benchmark(item) and not is_xdist_worker(item.config)

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool | None:
        """The call of a perf test: measured in workers, judged here."""
        if self._options.in_process or not is_perf(pyfuncitem):
            return None
        if pyfuncitem.nodeid in self._first_verdicts:  # a rerun keeps the first verdict
            self._fail(self._first_verdicts[pyfuncitem.nodeid])
            return True
        plan = plan_of(pyfuncitem, self._options)
        try:
            result, runs = self._outcome(plan)
        except PerfError as problem:
            pytest.fail(str(problem), pytrace=False)
        benchmark = pyfuncitem.funcargs.get("benchmark")
        if benchmark is not None:
            replay(benchmark, [run.benchmark for run in runs if run.benchmark])
        if runs[-1].failure and not runs[-1].void:
            self._results[pyfuncitem.nodeid] = result
        raise_worker_outcome(pyfuncitem, runs)
        self.conclude(pyfuncitem, plan, result)
        return True

    def _outcome(self, plan: Plan) -> tuple[Result, list[ItemRun]]:
        """Measured now, or in rounds over the whole suite before."""
        return self.rounds.outcome(plan) if self.rounds else self._gate.run(plan, self._following)

    def judge_in_process(self, item: pytest.Item, plan: Plan) -> None:
        """Judge what a test measured in this process."""
        conversation = self._run.conversations[item.nodeid]
        run = ItemRun(measured=conversation.measured, void=conversation.void_reason)
        fixture = item.funcargs.get("benchmark") if uses_benchmark(item) else None  # type: ignore[attr-defined]
        if fixture is not None:
            run.benchmark = benchmark_result(fixture)
        self.conclude(item, plan, self._gate.judge(plan, Measurement([[run]])))

    def conclude(self, item: pytest.Item, plan: Plan, result: Result) -> None:
        """Keep the result for the report, and fail the test when its verdict says so."""
        result = self._with_what_was_accepted(item, plan, result)
        self._results[item.nodeid] = result
        for row in result.rows:
            if row.value is not None:
                item.user_properties.append((f"perf {row.figure}", f"{row.value:.6g}"))
            item.user_properties.append((f"perf {row.figure} verdict", row.verdict.value))
            if row.waiver:
                item.user_properties.append((f"perf {row.figure} waiver", row.waiver))
        share = self._options.self_test
        if share is None or result.is_void:
            message = self._gate.verdict_of(result, plan, item)
        else:
            message = self_test.failure(result.rows, share)
        self._first_verdicts[item.nodeid] = message
        self._fail(message)

    def _with_what_was_accepted(self, item: pytest.Item, plan: Plan, result: Result) -> Result:
        """The waivers of a test, and the best that its baseline ever was; a self-test has none."""
        options, run = self._options, self._run
        if options.self_test is not None:
            return result
        own = marker_of(item).waiver
        found = [replace(own, test=plan.nodeid, file=plan.test)] if own else []
        found += [w for w in run.waivers if w.covers(names_of(plan), plan.key.engine)]
        result = waivers.waived(result, found, run.today, strict=options.strict)
        if options.against is not None:
            return result
        entry = self._gate.baselines.find(plan.machine, plan.suite, plan.key)
        best = entry.best if entry else {}
        return remembered(result, best, accepting=options.save == "all")

    def _fail(self, message: str | None) -> None:
        if message:
            pytest.fail(message, pytrace=False)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[Any]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """The result rides on the report in built-in types, through pytest-xdist too."""
        report = yield
        if call.when == "call" and item.nodeid in self._results:
            setattr(report, RESULT, self._results.pop(item.nodeid).as_dict())
        return report

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Remember what could not be collected: its tests are not gone."""
        if not report.passed:
            self._run.uncollected.append(report.nodeid)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Count what will be measured; tell a controller of pytest-xdist which keys there are."""
        if not self._usable:  # pytest calls this after a refusal too
            return
        plans = plans_of(session.items, self._run)
        self._gate.tests = sum(not plan.is_static for plan in plans)
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output["perfsuite_keys"] = collected_keys(session.items, self._run)
            output["perfsuite_uncollected"] = self._run.uncollected
            output["perfsuite_idle_waivers"] = idle_waivers(session.items, self._run)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """End the workers."""
        self._crew.close()

    def pytest_unconfigure(self) -> None:
        """End the workers also when the session never got to its finish."""
        self._crew.close()


class InProcess:
    """With --perf-in-process the function of a perf test runs here and is judged afterwards."""

    def __init__(self, measurer: Measurer, options: Options) -> None:
        self._measurer, self._options = measurer, options

    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Generator[None, object, object]:
        """Measure alone on the device, then judge."""
        if not is_perf(pyfuncitem):
            return (yield)
        plan = plan_of(pyfuncitem, self._options)
        slow_benchmark(pyfuncitem.funcargs.get("benchmark"), self._options.self_test)
        with sharing() if plan.is_static else measuring(self._options.device):
            outcome = yield
        self._measurer.judge_in_process(pyfuncitem, plan)
        return outcome


def collected_keys(items: list[pytest.Item], run: Run) -> list[list[str]]:
    """[machine, suite, key] of every perf test."""
    plans = [plan_of(item, run.options) for item in items if is_perf(item)]
    return [[plan.machine, plan.suite, plan.key.text] for plan in plans]


def idle_waivers(items: list[pytest.Item], run: Run) -> list[int]:
    """The waivers that are for no perf test, by their place in the run's list."""
    plans = [plan_of(item, run.options) for item in items if is_perf(item)] if run.waivers else []
    return waivers.idle(run.waivers, ((names_of(plan), plan.key.engine) for plan in plans))


def names_of(plan: Plan) -> frozenset[str]:
    """What a waiver may call a test: its node id, its name, its workload."""
    own = {plan.nodeid, plan.key.workload}
    return frozenset(own | ({plan.case.workload.id} if plan.case else set()))
