"""Runs that go over the whole suite several times before its tests report: calibrations, whose
rounds are sessions of fresh processes, and comparisons, whose rounds are pairs of fresh processes.

Starting a process and loading what it needs is paid once a round for all tests, and the rounds of
one test are spread over the whole run. A test's verdict is made in its own call, from what the
rounds have gathered.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from functools import partial
from random import Random
from typing import TYPE_CHECKING

import pytest

from perfsuite.crew import Crew, ItemRun, Order
from perfsuite.devices import absence
from perfsuite.errors import PerfError
from perfsuite.gate import Gate
from perfsuite.measurement import Measurement, take
from perfsuite.pairing import Arena, Duel
from perfsuite.plan import Plan, is_perf, plan_of
from perfsuite.results import Result
from perfsuite.statistics import PAIR_LOOKS
from perfsuite.trees import Side, base_side, head_side
from perfsuite.turns import measuring, sharing

if TYPE_CHECKING:
    from perfsuite.run import Run


class CalibrationRounds:
    """`--perf-calibrate`: every test in several sessions."""

    def __init__(self, run: Run, gate: Gate) -> None:
        self._run, self._gate = run, gate
        self._measured: dict[str, Measurement] = {}

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Measure all sessions, then let the tests report."""
        if not _only_collects(session):
            self._measure(plans_of(session.items, self._run))
        return (yield)

    def outcome(self, plan: Plan) -> tuple[Result, list[ItemRun]]:
        """What the sessions of one test gave."""
        measured = self._measured[plan.nodeid]
        return self._gate.judge(plan, measured), measured.runs

    def _measure(self, plans: Sequence[Plan]) -> None:
        sessions = self._run.options.sessions
        told = _Told(self._run.config, "calibration: session", sessions)
        for _ in range(sessions):
            crew = _crew(self._run)
            try:
                for plan, following in _with_following(plans):
                    self._take(crew, plan, following)
            finally:
                crew.close()
            told.step()

    def _take(self, crew: Crew, plan: Plan, following: str | None) -> None:
        measured = self._measured.setdefault(plan.nodeid, Measurement())
        if not measured.has_ended and not (plan.is_static and measured.sessions):
            more = take(crew, plan, following, self._run.options)
            measured.extend(more, same_session=False)


class PairRounds:
    """`--perf-against`: every test in pairs with another tree, until it is decided."""

    def __init__(self, run: Run, gate: Gate) -> None:
        self._run, self._gate = run, gate
        self._duels: dict[str, Duel] = {}
        self._looks: dict[str, int] = {}
        self._together: set[str] = set()  # tests of which both sides did not fit at once
        self._random = Random()  # noqa: S311 - whose turn is first is no secret
        self._base = ""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Measure all pairs, then let the tests report."""
        if not _only_collects(session):
            with ExitStack() as stack:
                head = head_side(self._run.config)
                try:
                    against = str(self._run.options.against)
                    base = stack.enter_context(base_side(against, head))
                except PerfError as problem:
                    raise pytest.UsageError(str(problem)) from None
                self._say(head, base)
                self._measure(head, base, plans_of(session.items, self._run))
        return (yield)

    def outcome(self, plan: Plan) -> tuple[Result, list[ItemRun]]:
        """What the pairs of one test gave."""
        duel = self._duels[plan.nodeid]
        return self._judged(plan), [pair.head for pair in duel.pairs]

    def _say(self, head: Side, base: Side) -> None:
        self._base = base.name
        note = f"; {base.note}" if base.note else ""
        _write(self._run.config, f"perf: {head.name} against {base.name}{note}")

    def _measure(self, head: Side, base: Side, plans: Sequence[Plan]) -> None:
        open_plans = list(plans)
        most = max((plan.options.processes for plan in plans), default=0)
        told = _Told(self._run.config, "pair", round(most / PAIR_LOOKS[0]))
        number = 0
        while open_plans:
            self._round(head, base, open_plans, number)
            number += 1
            open_plans = [plan for plan in open_plans if self._goes_on(plan, number)]
            told.step(f"undecided tests: {len(open_plans)}")

    def _round(self, head: Side, base: Side, plans: Sequence[Plan], number: int) -> None:
        crews = _crew(self._run, head, base), _crew(self._run, base)
        arena = Arena((head, crews[0]), (base, crews[1]), self._random)
        try:
            with sharing():
                arena.prepare(plans[0].options.timeout_s)
            for plan, following in _with_following(plans):
                self._take(arena, plan, following, number)
        finally:
            arena.close()

    def _take(self, arena: Arena, plan: Plan, following: str | None, number: int) -> None:
        options, start = self._run.options, time.monotonic()
        orders = [
            Order(
                nodeid=plan.nodeid,
                following=following,
                first=number == 0,
                budget_s=plan.options.budget_s * PAIR_LOOKS[0] / plan.options.processes,
                timeout_s=plan.options.timeout_s,
                slow=options.self_test if side == 0 else None,
            )
            for side in range(2)
        ]
        with sharing() if plan.is_static else measuring(options.device):
            if plan.is_alone:
                arena.renew()
            pair = arena.run(orders, by_turns=plan.nodeid not in self._together)
            if plan.is_alone:
                arena.renew()
        if not pair.by_turns:
            self._together.add(plan.nodeid)
        duel = self._duels.setdefault(plan.nodeid, Duel())
        duel.pairs.append(pair)
        duel.seconds += time.monotonic() - start

    def _goes_on(self, plan: Plan, pairs: int) -> bool:
        """Whether this test wants another pair: looks are at fixed numbers of pairs."""
        if plan.is_static or self._duels[plan.nodeid].pairs[-1].is_over:
            return False
        looks = [round(plan.options.processes * part / PAIR_LOOKS[0]) for part in PAIR_LOOKS]
        if pairs not in looks:
            return True
        self._looks[plan.nodeid] = looks.index(pairs)
        doubtful = any(row.may_settle for row in self._judged(plan).rows)
        return doubtful and pairs < looks[-1]

    def _judged(self, plan: Plan) -> Result:
        duel, look = self._duels[plan.nodeid], self._looks.get(plan.nodeid, 0)
        return self._gate.judge_duel(plan, duel, self._base, look)


class _Told:
    """How far the rounds are, and how long they may still take."""

    def __init__(self, config: pytest.Config, what: str, most: int) -> None:
        self._config, self._what, self._most = config, what, most
        self._done, self._start = 0, time.monotonic()

    def step(self, more: str = "") -> None:
        """One round is over."""
        self._done += 1
        each = (time.monotonic() - self._start) / self._done
        left = each * (self._most - self._done)
        parts = [f"perf: {self._what} {self._done} of {self._most} at most", more]
        if left > 0:
            parts.append(f"{left:.0f} s left at most")
        _write(self._config, ", ".join(part for part in parts if part))


def _write(config: pytest.Config, line: str) -> None:
    out = config.pluginmanager.getplugin("terminalreporter")
    if out is not None:
        out.ensure_newline()
        out.write_line(line)


def _only_collects(session: pytest.Session) -> bool:
    config = session.config
    stopped = session.testsfailed and not config.option.continue_on_collection_errors
    return bool(config.option.collectonly or stopped)


def plans_of(items: Sequence[pytest.Item], run: Run) -> list[Plan]:
    """The perf tests that will be run here: no known obstacle, and their device is there."""
    plans = [plan_of(item, run.options) for item in items if is_perf(item)]
    missing = absence(run.options.device)
    return [
        plan for plan in plans
        if not (plan.case and plan.case.obstacle) and (plan.is_static or not missing)
    ]  # fmt: skip


def _crew(run: Run, *sides: Side) -> Crew:
    """The workers of the first side, which collect nothing below the trees of the others."""
    from perfsuite.run import folder, worker_arguments

    others = [side.tree for side in sides if side.tree.is_relative_to(run.config.rootpath)]
    ignored = [tree for tree in others if tree != run.config.rootpath.resolve()]
    arguments = partial(worker_arguments, run, ignored=ignored)
    return Crew(arguments, folder(run.config), sides[0] if sides else None)


def _with_following(plans: Sequence[Plan]) -> list[tuple[Plan, str | None]]:
    following = [plan.nodeid for plan in plans[1:]]
    return list(zip(plans, [*following, None], strict=True))
