"""Runs one perf test in the worker processes, judges it, and fails it: the inside of its call."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from perfsuite import environment
from perfsuite.baselines import Baselines
from perfsuite.crew import Crew, ItemRun, Order
from perfsuite.devices import last_level_cache_bytes
from perfsuite.environment import Disturbance, Surroundings, together, toolchain
from perfsuite.errors import WorkerLost
from perfsuite.judging import Bench, differences, failure_message, rows, void
from perfsuite.metrics import display, in_unit, metric
from perfsuite.options import Options
from perfsuite.plan import Plan
from perfsuite.results import Result, Row
from perfsuite.sampling import Measured, merge
from perfsuite.shares import BEYOND, hides_in_cache, share
from perfsuite.statistics import drift_allowance
from perfsuite.turns import measuring, sharing
from perfsuite.verdict import FAILING, Verdict, fails
from perfsuite.workloads import Published, load_published

BENCHMARK = "benchmark_time/per_iteration"


@dataclass
class Gate:
    """The judge of a run: its options, baselines and worker processes."""

    options: Options
    crew: Crew
    baselines: Baselines = field(init=False)
    _toolchain: str = field(default_factory=toolchain)
    _published: dict[str, tuple[Published, ...]] | None = None

    def __post_init__(self) -> None:
        self.baselines = Baselines(self.options.baselines)

    def run(self, plan: Plan, following: str | None) -> tuple[Result, list[ItemRun]]:
        """Measure in the processes, alone on the device; judge; look twice at what got worse."""
        result, runs = self._look(plan, following)
        if self.options.save == "all" or not any(_is_doubtful(row) for row in result.rows):
            return result, runs
        second, runs = self._look(plan, following)
        return _agreed(result, second), runs

    def _look(self, plan: Plan, following: str | None) -> tuple[Result, list[ItemRun]]:
        count = 1 if plan.is_static else plan.options.processes
        with sharing():  # imports are work, which must not fall into another process's measurement
            self.crew.prepare(count, plan.options.timeout_s)
        with sharing() if plan.is_static else measuring(self.options.device):
            surroundings, start = Surroundings(), time.monotonic()
            runs = self._runs(plan, following, count)
            seconds = time.monotonic() - start
            disturbance = None if plan.is_static else surroundings.disturbance()
        result = replace(self.judge(plan, _samples(runs), runs), seconds=seconds)
        found = [d for d in (disturbance, _slower_machine(result)) if d]
        return _doubted(result, together(found), drift_allowance(self.options.drift)), runs

    def _runs(self, plan: Plan, following: str | None, count: int) -> list[ItemRun]:
        runs: list[ItemRun] = []
        for number in range(count):
            order = Order(
                nodeid=plan.nodeid,
                following=following,
                first=number == 0,
                budget_s=plan.options.budget_s / count,
                timeout_s=plan.options.timeout_s,
            )
            try:
                runs.append(self.crew.run(number, order))
            except WorkerLost as lost:
                runs.append(ItemRun(void=str(lost)))
            if runs[-1].void or runs[-1].failure or runs[-1].skip:
                break
        return runs

    def in_process(self, plan: Plan, run: ItemRun) -> Result:
        """Judge what a test measured in this process."""
        return self.judge(plan, _samples([run]), [run])

    def judge(
        self, plan: Plan, samples: dict[str, list[list[float]]], runs: list[ItemRun]
    ) -> Result:
        """The result of a test from what its processes answered."""
        facts = _facts(runs)
        broken = _contract(runs, samples)
        found = [void(broken)] if broken else rows(self._bench(plan), samples)
        return Result(
            nodeid=plan.nodeid,
            test=plan.test,
            machine=plan.machine,
            suite=plan.suite,
            key=plan.key.text,
            workload=plan.key.workload,
            engine=plan.key.engine,
            tier=plan.key.tier,
            scale=plan.key.scale,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            toolchain=self._toolchain,
            rows=tuple(self._with_ceiling(plan, row, facts) for row in found),
            samples={} if broken else samples,
            config=facts.get("config", {}),
            facts={name: value for name, value in facts.items() if name != "config"},
            stands_for=plan.case.workload.stands_for if plan.case else (),
            published=tuple(self._published_beside(plan)),
        )

    def _bench(self, plan: Plan) -> Bench:
        return Bench(
            self.baselines, plan.machine, plan.suite, plan.key, plan.options.limits, self._toolchain
        )

    def _with_ceiling(self, plan: Plan, row: Row, facts: dict[str, Any]) -> Row:
        if plan.case is None or row.value is None:
            return row
        workload = plan.case.workload
        reached = share(row.metric_id, row.value, workload, facts)
        if reached is None:
            return row
        cached = self.options.device.kind == "cpu" and hides_in_cache(
            workload, facts, last_level_cache_bytes()
        )
        if reached > BEYOND and not cached:
            return Row(row.figure, Verdict.VOID, note=_beyond(row, reached))
        return replace(row, ceiling=reached, cached=cached)

    def _published_beside(self, plan: Plan) -> list[str]:
        if plan.case is None or plan.case.workload.scale != "full":
            return []
        if self._published is None:
            self._published = {}
            for folder in self.options.baselines:
                self._published |= load_published(folder / "published")
        found = self._published.get(plan.case.workload.id, ())
        return [_as_published(figure) for figure in found]

    def verdict_of(self, result: Result, plan: Plan, item: pytest.Item) -> str | None:
        """The failure message of a result, or None when it passes."""
        accepting = self.options.save == "all"
        failing = [
            row for row in result.rows
            if fails(row.verdict, strict=self.options.strict, accepting=accepting)
        ]  # fmt: skip
        if not failing:
            return None
        worst = max(failing, key=_gravity)
        entry = self.baselines.find(plan.machine, plan.suite, plan.key)
        return failure_message(
            worst,
            more=[row for row in failing if row is not worst],
            differs=differences(entry, self._toolchain, result.config),
            disturbed=result.disturbance,
            accept=accepting_command(item, self.options),
        )


def _is_doubtful(row: Row) -> bool:
    """A figure that noise could have made worse."""
    return row.verdict is Verdict.WORSE and not metric(row.metric_id).exact


def _slower_machine(result: Result) -> Disturbance | None:
    """The machine's own pace against the one that the baseline was recorded at."""
    paces = [row for row in result.rows if row.metric_id.startswith("machine_pace/")]
    losses = [1 - row.value / row.baseline for row in paces if row.value and row.baseline]
    loss = max(losses, default=0.0)
    if loss <= environment.PACE_LIMIT:
        return None
    return Disturbance(loss, f"the machine ran {loss:.0%} slower than for the baseline")


def _doubted(result: Result, disturbance: Disturbance, drift: float) -> Result:
    """What a disturbance and the drift between sessions can explain is UNSURE, not WORSE."""
    found = [
        replace(row, verdict=Verdict.UNSURE, note=_explanation(disturbance, drift))
        if _is_doubtful(row)
        and disturbance.slowed(row.ratio_low or 0) <= (row.limit or 0) * drift
        else row
        for row in result.rows
    ]
    return replace(result, rows=tuple(found), disturbance=disturbance.text)


def _explanation(disturbance: Disturbance, drift: float) -> str:
    cause = "the disturbance and drift" if disturbance.share else "drift"
    return f"may be {cause} between sessions (x{drift:.2f}, see --perf-drift)"


def _agreed(first: Result, second: Result) -> Result:
    """The second look, where a loss counts only if both looks saw it."""
    before = {row.figure: row for row in first.rows}
    found = [_confirmed(before.get(row.figure), row) for row in second.rows]
    return replace(second, rows=tuple(found), seconds=first.seconds + second.seconds)


def _confirmed(first: Row | None, second: Row) -> Row:
    if first is None or second.verdict is Verdict.VOID:
        return second
    if Verdict.WORSE in (first.verdict, second.verdict) and first.verdict is not second.verdict:
        ratio = "" if first.ratio is None else f" ({first.ratio:.3f})"
        seen = f"{first.verdict} at first{ratio}, {second.verdict} at a second look"
        return replace(second, verdict=Verdict.UNSURE, note=seen)
    return second


def _as_published(figure: Published) -> str:
    """`peak_memory 59.27 GB on A100 (document)`."""
    when = f", {figure.date}" if figure.date else ""
    value = in_unit(figure.unit, figure.value)
    return f"{figure.metric} {value} on {figure.hardware}{when} ({figure.source})"


def accepting_command(item: pytest.Item, options: Options) -> str:
    """The command that accepts this test's figures into the baselines that they were compared with.

    It says --perf-device, because --device may be another plugin's.
    """
    words = ["pytest", "--perf", f"--perf-device={options.device.name}"]
    if "scale" in options.explicit:
        words.append(f"--perf-scale={options.scale}")
    if "engine" in options.explicit:
        words.append(f"--perf-engine={','.join(options.engines)}")
    if "model" in options.explicit:
        words.append(f"--perf-model={options.model}")
    started = item.config.invocation_params.dir
    if "baselines" in options.explicit:
        words += [f"--perf-baselines={os.path.relpath(f, started)}" for f in options.baselines]
    file, colons, rest = item.nodeid.partition("::")  # relative to the root, not to where one is
    test = os.path.relpath(item.config.rootpath / file, started) + colons + rest
    return shlex.join([*words, "--perf-save", test])


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


def _samples(runs: Sequence[ItemRun]) -> dict[str, list[list[float]]]:
    measured: list[dict[str, Measured]] = []
    for run in runs:
        calls = dict(run.measured)
        if run.benchmark and run.benchmark["data"]:
            calls[""] = Measured(blocks=[{BENCHMARK: s} for s in run.benchmark["data"]])
        measured.append(calls)
    return merge(measured)


def _facts(runs: Sequence[ItemRun]) -> dict[str, Any]:
    if not runs or not runs[0].measured:
        return {}
    return next(iter(runs[0].measured.values())).facts


def _contract(runs: Sequence[ItemRun], samples: dict[str, Any]) -> str:
    """Why nothing of these runs may be used, or an empty string."""
    last = runs[-1]
    if last.void:
        return last.void
    if last.failure:
        return "the test failed: " + _gist(last.failure["text"])
    if last.skip:
        return ""
    if not samples:
        return "the test ended without measuring anything: it never called perf(...)"
    return _unequal_configurations(runs)


def _gist(text: str) -> str:
    """The line of a traceback that says what happened."""
    lines = [line for line in text.strip().splitlines() if line.strip()] or [""]
    errors = [line for line in lines if line.startswith("E  ")]
    return (errors or lines)[0 if errors else -1].removeprefix("E").strip()


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


def _beyond(row: Row, reached: float) -> str:
    of = metric(row.metric_id)
    assert row.value is not None
    return (
        f"{of.title} {display(of, row.value)} is {reached:.1f} times what this machine can do at"
        " best: the engine did not wait for the device, or did not do the work"
    )


def _gravity(row: Row) -> tuple[bool, bool, float]:
    excess = (row.ratio or 0) / (row.limit or 1)
    return row.verdict is Verdict.VOID, row.verdict in FAILING, excess


