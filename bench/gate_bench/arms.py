"""The gates that are compared: how each takes its baseline, runs, and tells its verdicts.

An arm gives rows, one for each kind of work and rule. WORSE is an alarm: what would turn the run
red. Only perfsuite says UNSURE; for the others SAME is everything that is neither worse nor better.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .workplace import Broken, run

LIMIT, LIMIT_AGAINST = "5%", "1%"
PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
MEASURE_S = 1.0  # of one workload, where a baseline is stored and the tool lets one say so
LOOKS = 3  # of perfsuite at a figure in doubt; the budget is that of all, a clear case takes one
AGAINST_S = 30.0  # of one workload and both sides of it; the tool's own default
PATIENT_S = 45.0  # with what starts take, still within a minute a workload


@dataclass(frozen=True)
class Row:
    """One verdict on one kind of work."""

    kind: str
    rule: str  # where one run is judged by several
    verdict: str
    ratio: float  # to the baseline; above 1 is slower
    value: float  # seconds a call, of the code under test


@dataclass(frozen=True)
class Arm:
    """A gate: `prepare` takes its baseline into an empty folder, `run` judges a slowdown by it.

    Both get the work folder first and the baseline's second; `run` the slowdown in per cent.
    """

    rules: dict[str, str]  # rule -> its name in the table
    run: Callable[[Path, Path, int], list[Row]]
    prepare: Callable[[Path, Path], None] | None = None


# perfsuite

_GATE = ("--perf", "--perf-device=cpu", "test_perfsuite.py")
_FAILING = ("WORSE", "VOID")


def _calibrate(place: Path, baseline: Path) -> None:
    command = (*PYTEST, *_GATE, *_stored(baseline), "--perf-calibrate", "--perf-save-force")
    run(place / "project", command, expected=[0])


def _stored(baseline: Path) -> tuple[str, ...]:
    return (f"--perf-limit=time:{LIMIT}", f"--perf-budget={LOOKS * MEASURE_S}",
            f"--perf-baselines={baseline}")  # fmt: skip


def _judge_by_stored(place: Path, baseline: Path, percent: int) -> list[Row]:
    return _perfsuite(place / f"slow-{percent}", place / "perfsuite.json", _stored(baseline))


def _judge_against(budget_s: int, place: Path, none: Path, percent: int) -> list[Row]:
    options = (f"--perf-limit=time:{LIMIT_AGAINST}", f"--perf-budget={budget_s}",
               "--perf-against=base", f"--perf-baselines={none}")  # fmt: skip
    return _perfsuite(place / f"slow-{percent}", place / "perfsuite.json", options)


def _perfsuite(checkout: Path, report: Path, options: Iterable[str]) -> list[Row]:
    report.unlink(missing_ok=True)
    command = (*PYTEST, *_GATE, *options, f"--perf-json={report}")
    status, text = run(checkout, command, expected=[0, 1])
    rows = [_perfsuite_row(result) for result in _read(report, text)["results"]]
    return _agreeing(rows, status, text)


def _perfsuite_row(result: dict[str, Any]) -> Row:
    """The verdict of the test: red for any figure's sake, else that of its time."""
    time = next(row for row in result["rows"] if row["figure"].startswith("call_time"))
    red = [row["verdict"] for row in result["rows"] if row["verdict"] in _FAILING]
    verdict = red[0] if red else time["verdict"]
    if time["ratio"] is None:
        raise Broken(f"{result['nodeid']} was compared with nothing: {time}")
    return Row(_kind(result["nodeid"]), "", verdict, time["ratio"], time["value"])


# pytest-benchmark

_FIELDS = ("median", "mean", "min")
_BENCHMARK = ("-p", "no:perfsuite.plugin", "test_benchmark.py",
              f"--benchmark-max-time={MEASURE_S}")  # fmt: skip


def _save_benchmark(place: Path, baseline: Path) -> None:
    saving = ("--benchmark-save=base", f"--benchmark-json={baseline / 'base.json'}")
    run(place / "project", (*PYTEST, *_BENCHMARK, _storage(baseline), *saving), expected=[0])


def _storage(baseline: Path) -> str:
    return f"--benchmark-storage=file://{baseline}"


def _judge_by_benchmark(place: Path, baseline: Path, percent: int) -> list[Row]:
    """Three rules on one run; the tool's own exit status must agree with what we make of them."""
    report = place / "benchmark.json"
    # one option with three values: a second one would replace the first
    fail = ("--benchmark-compare-fail", *(f"{field}:{LIMIT}" for field in _FIELDS))
    judging = (*fail, "--benchmark-compare=0001", _storage(baseline), f"--benchmark-json={report}")
    report.unlink(missing_ok=True)
    checkout = place / f"slow-{percent}"
    status, text = run(checkout, (*PYTEST, *_BENCHMARK, *judging), expected=[0, 1])
    found = _benchmarks(_read(report, text))
    stored = _benchmarks(_read(baseline / "base.json", ""))
    rows = [
        _benchmark_row(kind, field, found[kind][field], stored[kind][field])
        for kind in found for field in _FIELDS
    ]  # fmt: skip
    return _agreeing(rows, status, text)


def _benchmarks(report: Any) -> dict[str, dict[str, float]]:
    """The statistics of each kind of work."""
    return {_kind(benchmark["name"]): benchmark["stats"] for benchmark in report["benchmarks"]}


def _benchmark_row(kind: str, field: str, value: float, stored: float) -> Row:
    loss = value / stored * 100 - 100
    verdict = "WORSE" if loss > float(LIMIT.rstrip("%")) else "SAME"
    return Row(kind, field, verdict, value / stored, value)


# asv

_FACTOR = "1.05"
_MARKS = {"+": "WORSE", "!": "VOID", "-": "BETTER", "": "SAME"}
_ASV = (sys.executable, "-m", "asv")


def _judge_by_asv(place: Path, _: Path, percent: int) -> list[Row]:
    project = place / "project"
    shutil.rmtree(place / "asv" / "results", ignore_errors=True)
    home = {"HOME": str(place / "asv")}  # where asv keeps its description of the machine
    if not (place / "asv" / ".asv-machine.json").exists():
        (place / "asv").mkdir(exist_ok=True)
        run(project, (*_ASV, "machine", "--yes", "--machine=this"), expected=[0], **home)
    comparing = ("--machine=this", f"--factor={_FACTOR}", "--no-only-changed", "--show-stderr",
                 "--launch-method=forkserver")  # fmt: skip
    command = (*_ASV, "continuous", *comparing, "base", f"slow-{percent}")
    status, text = run(project, command, expected=[0, 1], **home)
    head, base = (_asv_seconds(place, of, text) for of in (f"slow-{percent}", "base"))
    rows = [
        Row(kind, "", _MARKS[mark], head[kind] / base[kind], head[kind])
        for mark, kind in _asv_marks(text)
    ]
    return _agreeing(rows, status, text)


def _asv_marks(table: str) -> list[tuple[str, str]]:
    """(mark, kind) of every benchmark in asv's table."""
    cells = r"^\| *([-+!]?) *\|[^|]*\|[^|]*\|[^|]*\| *kinds\.time_(\w+) *\|$"
    return re.findall(cells, table, re.MULTILINE)


def _asv_seconds(place: Path, branch: str, text: str) -> dict[str, float]:
    """Seconds of each kind of work as asv stored them; its table has three digits."""
    commit = run(place / "project", ("git", "rev-parse", branch), expected=[0])[1]
    file = f"this/{commit[:8]}-checkout-py3.json"
    found = _read(place / "asv" / "results" / file, text)["results"]
    return {name.removeprefix("kinds.time_"): row[0][0] for name, row in found.items()}


# All of them


def _kind(name: str) -> str:
    return name.partition("[")[2].rstrip("]")


def _read(report: Path, text: str) -> Any:
    """A tool's own report; Broken with what the tool printed where there is none."""
    if not report.exists():
        raise Broken(f"{report.name} was not written\n{text[-2000:]}")
    return json.loads(report.read_text())


def _agreeing(rows: list[Row], status: int, text: str) -> list[Row]:
    """The rows, once there are some and the tool's exit status says the same of them."""
    if not rows or (status == 1) != any(row.verdict in _FAILING for row in rows):
        raise Broken(f"exit status {status} does not agree with {rows}\n{text[-2000:]}")
    return rows


ARMS = {
    "stored": Arm({"": "perfsuite stored:5%"}, _judge_by_stored, _calibrate),
    "benchmark": Arm(
        {field: f"benchmark {field}:{LIMIT}" for field in _FIELDS},
        _judge_by_benchmark,
        _save_benchmark,
    ),
    "asv": Arm({"": f"asv continuous {_FACTOR}"}, _judge_by_asv),
    "against": Arm({"": "perfsuite against:1%"}, partial(_judge_against, AGAINST_S)),
    "patient": Arm({"": "perfsuite against:1% 45 s"}, partial(_judge_against, PATIENT_S)),
}
