"""How often does unchanged code alarm, and what is caught? perfsuite's gates and their peers, in
turn on one machine, on six kinds of work with planted slowdowns.

    python bench/gate.py --folder WORK [--hours 3] [--rounds 17] [--arms stored,benchmark]
    python bench/gate.py --folder WORK --overhead
    python bench/gate.py --folder WORK --report

Every run is a line of WORK/results.jsonl; started again, it goes on after the last one. The hours
are those of all starts together. docs/gate-bench.md says what is run and how it is counted.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from gate_bench import overhead, table
from gate_bench.arms import ARMS
from gate_bench.records import Log, Record, Task, tasks
from gate_bench.workplace import Broken, write

TOOLS = ("perfsuite", "pytest", "pytest-benchmark", "asv", "torch")
IN_A_ROW = 3  # runs that break one after the other before the whole stops


def header(seed: int, rounds_per_baseline: int) -> dict[str, object]:
    """What the results are made with; the first line of the file, which later starts go by."""
    versions = {name: metadata.version(name) for name in TOOLS}
    return {
        "seed": seed,
        "rounds_per_baseline": rounds_per_baseline,
        "python": platform.python_version(),
        "versions": versions,
    }


def run(task: Task, place: Path) -> Record:
    """One task, timed; what breaks is recorded with its reason."""
    arm, baseline = ARMS[task.arm], place / f"baselines-{task.era}" / task.arm
    start, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    rows, broken = [], ""
    try:
        if task.slow is None:
            assert arm.prepare is not None
            shutil.rmtree(baseline, ignore_errors=True)
            baseline.mkdir(parents=True)
            arm.prepare(place, baseline)
        else:
            rows = arm.run(place, baseline, task.slow)
    except Broken as problem:
        broken = str(problem)
    wall_s = time.perf_counter() - clock
    return Record(task.id, task.arm, task.slow, start, wall_s, tuple(rows), broken)


def go_on(log: Log, place: Path, todo: list[Task], hours: float) -> None:
    """The tasks that are not done yet, until one more might pass the hours."""
    for task in [task for task in todo if task.id not in log.done]:
        if log.seconds + log.longest_s(task.arm) > 3600 * hours:
            print(f"stopped before {task.id}: {log.seconds / 3600:.2f} of {hours:g} hours are used")
            return
        log.append(record := run(task, place))
        print(f"{record.start} {task.id:28} {record.wall_s:6.1f} s  {told(record)}", flush=True)
        if record.broken and task.slow is None:
            sys.exit("no baseline, so nothing to judge by: start again on a quiet machine")
        if all(r.broken for r in log.records[-IN_A_ROW:]) and len(log.records) >= IN_A_ROW:
            sys.exit(f"{IN_A_ROW} runs in a row broke")


def told(record: Record) -> str:
    """What came of a run, in a few words."""
    if record.broken:
        return f"broke: {record.broken.splitlines()[0]}"
    red = sum(row.verdict in table.RED for row in record.rows)
    return f"{red} of {len(record.rows)} red"


def report(log: Log, place: Path) -> str:
    """The tables, from what there is."""
    file = place / "overhead.json"
    costs = table.of_overhead(json.loads(file.read_text())) if file.exists() else []
    parts = [table.targets(log.records, costs), table.of_arms(log.records),
             table.of_kinds(log.records)]  # fmt: skip
    used = f"{log.seconds / 3600:.2f} hours, {len(log.records)} runs"
    made = ", ".join(f"{name} {what}" for name, what in log.header.items() if name != "versions")
    versions = ", ".join(f"{name} {what}" for name, what in log.header["versions"].items())
    return "\n\n".join([f"{used}; {made}\n{versions}", *parts])


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, required=True, help="work folder, made if missing")
    parser.add_argument("--hours", type=float, default=3.0, help="of all starts together")
    parser.add_argument("--rounds", type=int, default=17, help="each 6 runs of every arm")
    parser.add_argument("--rounds-per-baseline", type=int, default=6, help="in a new folder")
    parser.add_argument("--arms", default=",".join(ARMS), help="of " + ", ".join(ARMS))
    parser.add_argument("--seed", type=int, default=1, help="of the order, in a new folder")
    parser.add_argument("--overhead", action="store_true", help="measure the instrument itself")
    parser.add_argument("--report", action="store_true", help="print the tables, run nothing")
    return parser.parse_args()


def main() -> None:
    """Run, or measure the overhead, or report."""
    given = arguments()
    place = given.folder.resolve()
    place.mkdir(parents=True, exist_ok=True)
    log = Log(place / "results.jsonl", header(given.seed, given.rounds_per_baseline))
    if given.overhead:
        found = overhead.measured(place / "overhead")
        (place / "overhead.json").write_text(json.dumps(found))
    elif not given.report:
        write(place)
        arms = given.arms.split(",")
        if unknown := sorted(set(arms) - set(ARMS)):
            sys.exit(f"--arms: unknown {', '.join(unknown)}; known: {', '.join(ARMS)}")
        todo = tasks(log.header["seed"], arms, given.rounds, log.header["rounds_per_baseline"])
        go_on(log, place, list(todo), given.hours)
    print(report(log, place))


if __name__ == "__main__":
    main()
