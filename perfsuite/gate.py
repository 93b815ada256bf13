"""Runs one perf test in the worker processes, judges it, and fails it: the inside of its call."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from perfsuite import calibration, environment
from perfsuite.baselines import Baselines, file_name
from perfsuite.contract import broken, facts_of, gist
from perfsuite.crew import Crew, ItemRun
from perfsuite.devices import last_level_cache_bytes
from perfsuite.environment import Disturbance, together, toolchain
from perfsuite.judging import (
    Bench,
    differences,
    failure_message,
    pair_rows,
    rows,
    slower_machine,
    told,
    void,
)
from perfsuite.measurement import Measurement, take
from perfsuite.metrics import METRICS, display, in_unit, metric
from perfsuite.neighbours import Derived, Ran, derive
from perfsuite.options import Options
from perfsuite.pairing import Duel
from perfsuite.peaks import named
from perfsuite.plan import Plan
from perfsuite.results import Result, Row
from perfsuite.shares import BEYOND, hides_in_cache, share
from perfsuite.statistics import ALARMS, LOOKS, Spread, known_drift
from perfsuite.verdict import FAILING, Verdict, fails
from perfsuite.workloads import Published, load_published


@dataclass
class Gate:
    """The judge of a run: its options, baselines and worker processes."""

    options: Options
    crew: Crew
    tests: int = 1  # measured tests of the run, over which its false alarms are divided
    baselines: Baselines = field(init=False)
    _toolchain: str = field(default_factory=toolchain)
    _published: dict[str, tuple[Published, ...]] | None = None
    _spreads: dict[str, calibration.Spreads] = field(default_factory=dict)
    _ran: dict[tuple[str, str], Ran] = field(default_factory=dict)  # by workload and engine

    def __post_init__(self) -> None:
        self.baselines = Baselines(self.options.baselines)

    def run(self, plan: Plan, following: str | None) -> tuple[Result, list[ItemRun]]:
        """Look in fresh processes, again while a figure is in doubt and more could settle it."""
        measured = Measurement()
        for look in range(1 if plan.is_static or self.options.save == "all" else len(LOOKS)):
            more = take(self.crew, plan, following, self.options, look)
            measured.extend(more, same_session=True)
            result = self.judge(plan, measured, look)
            if measured.has_ended or not any(row.may_settle for row in result.rows):
                break
        return result, measured.runs

    def judge(self, plan: Plan, measured: Measurement, look: int = 0) -> Result:
        """The result of a test from what its processes answered."""
        own = _ran(plan, measured)
        derived = derive(own, list(self._ran.values())) if own else Derived()
        runs, samples = measured.runs, measured.samples() | derived.samples
        reason = broken(runs, samples) or derived.broken
        bench = self._bench(plan)
        others = _worst(measured.disturbances)
        slower = [] if reason or plan.is_static else _slower(slower_machine(bench, samples))
        bench = replace(
            bench, look=look, excuse=_excuse(together(others)), slower=_excuse(together(slower))
        )
        counts = measured.counts() | derived.counts
        found = [void(reason)] if reason else derived.told(rows(bench, samples, counts))
        result = self._result(plan, runs, found, {} if reason else samples)
        if own:
            self._ran[own.workload.id, own.engine] = replace(own, is_void=result.is_void)
        return replace(
            result,
            baseline=told(self.baselines.find(plan.machine, plan.suite, plan.key)),
            facts={**result.facts, **({"over": derived.over} if derived.over else {})},
            disturbance=together([*others, *slower]).text,
            seconds=measured.seconds,
            machine_state=measured.state,
        )

    def judge_duel(self, plan: Plan, duel: Duel, base: str, look: int) -> Result:
        """The result of a test that was measured in pairs with another tree."""
        runs = [pair.head for pair in duel.pairs]
        samples = Measurement([runs]).samples()
        other = [pair.base for pair in duel.pairs]
        missing = next((pair.missing for pair in duel.pairs if pair.missing), "")
        reason = "" if missing or runs[-1].void else _failed_base(other, base)
        reason = reason or broken(runs, samples)
        bench = replace(self._bench(plan), look=look)
        found = [void(reason)] if reason else pair_rows(bench, samples, duel.gathered(base))
        if missing and not reason:
            found = [replace(row, note=f"only here: {missing}") for row in found]
        result = self._result(plan, runs, found, {} if reason else samples)
        facts = {"against": base, "by_turns": all(pair.by_turns for pair in duel.pairs)}
        return replace(
            result,
            baseline={"file": base, "config": facts_of(other).get("config", {})},
            seconds=duel.seconds,
            facts={**result.facts, **facts},
        )

    def _result(
        self, plan: Plan, runs: Sequence[ItemRun], found: Sequence[Row], samples: dict[str, Any]
    ) -> Result:
        facts = facts_of(runs)
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
            rows=tuple(named(self._with_ceiling(plan, row, facts), facts) for row in found),
            samples=samples,
            config=facts.get("config", {}),
            facts={name: value for name, value in facts.items() if name != "config"},
            stands_for=plan.case.workload.stands_for if plan.case else (),
            published=tuple(self._published_beside(plan)),
        )

    def _bench(self, plan: Plan) -> Bench:
        return Bench(
            baselines=self.baselines,
            machine=plan.machine,
            suite=plan.suite,
            key=plan.key,
            limits=plan.options.limits,
            toolchain=self._toolchain,
            spreads=self._spreads_of(plan),
            alarms=ALARMS / max(self.tests, 1),
        )

    def _spreads_of(self, plan: Plan) -> Mapping[str, Spread]:
        """What is known of the spread between sessions: stated, calibrated, or told by saves."""
        if self.options.drift is not None:
            return dict.fromkeys(METRICS, known_drift(self.options.drift))
        if plan.machine not in self._spreads:
            self._spreads[plan.machine] = calibration.find(self.baselines, plan.machine)
        at = calibration.place(file_name(plan.suite), plan.key.text)
        return self._spreads[plan.machine].get(at, {})

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
            if not row.waiver
            and fails(row.verdict, strict=self.options.strict, accepting=accepting)
        ]  # fmt: skip
        if not failing:
            return "\n".join(result.expired) or None
        worst = max(failing, key=_gravity)
        paired = self.options.against is not None
        entry = None if paired else self.baselines.find(plan.machine, plan.suite, plan.key)
        message = failure_message(
            worst,
            more=[row for row in failing if row is not worst],
            differs=differences(entry, self._toolchain, result.config),
            disturbed=result.disturbance,
            remedy=remedy(item, self.options),
        )
        return "\n".join([*result.expired, message])


def _ran(plan: Plan, measured: Measurement) -> Ran | None:
    """A workload that was measured, as its neighbours see it."""
    if plan.case is None or plan.is_static:
        return None
    facts = facts_of(measured.runs)
    return Ran(plan.case.workload, plan.key.engine, measured.medians(), facts)


def _slower(factor: float) -> list[Disturbance]:
    """The machine's own pace against the one that the baseline was recorded at."""
    loss = 1 - 1 / factor
    if loss <= environment.PACE_LIMIT:
        return []
    return [Disturbance(loss, f"the machine ran {loss:.0%} slower than for the baseline")]


def _worst(found: Sequence[Disturbance]) -> list[Disturbance]:
    """Of the looks at one test the most disturbed."""
    return sorted(found, key=lambda disturbance: -disturbance.share)[:1]


def _excuse(disturbed: Disturbance) -> float:
    """The factor by which times grow when a share of the machine is taken away."""
    return 1 / max(disturbed.slowed(1.0), 1e-3)


def _failed_base(runs: Sequence[ItemRun], base: str) -> str:
    void_text = next((run.void for run in runs if run.void), "")
    text = next((run.failure["text"] for run in runs if run.failure), "")
    return void_text or (f"base, {base}: the test failed: {gist(text)}" if text else "")


def _as_published(figure: Published) -> str:
    """`peak_memory 59.27 GB on A100 (document)`."""
    when = f", {figure.date}" if figure.date else ""
    value = in_unit(figure.unit, figure.value)
    where = f" on {figure.hardware}" if figure.hardware else ""
    return f"{figure.metric} {value}{where}{when} ({figure.source})"


def remedy(item: pytest.Item, options: Options) -> str:
    """The command that accepts this test's figures, or in a comparison the one that repeats it.

    It says --perf-device, because --device may be another plugin's.
    """
    words = ["pytest", "--perf", f"--perf-device={options.device.name}"]
    if "slice" in options.explicit:
        words.append(f"--perf-slice={options.slice}")
    if "scale" in options.explicit:
        words.append(f"--perf-scale={options.scale}")
    if "engine" in options.explicit:
        words.append(f"--perf-engine={','.join(options.engines)}")
    if "model" in options.explicit:
        words.append(f"--perf-model={options.model}")
    if "haystack" in options.explicit:
        words.append(f"--perf-haystack={options.haystack}")
    if "text" in options.explicit:
        words.append(f"--perf-text={options.text}")
    if options.endpoint:
        words.append(f"--perf-endpoint={options.endpoint}")
    words += options.load.words
    started = item.config.invocation_params.dir
    if "baselines" in options.explicit:
        words += [f"--perf-baselines={os.path.relpath(f, started)}" for f in options.baselines]
    last = "--perf-save" if options.against is None else f"--perf-against={options.against}"
    purpose = "to accept" if options.against is None else "to repeat"
    file, colons, rest = item.nodeid.partition("::")  # relative to the root, not to where one is
    test = os.path.relpath(item.config.rootpath / file, started) + colons + rest
    return f"{purpose}: {shlex.join([*words, last, test])}"


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
