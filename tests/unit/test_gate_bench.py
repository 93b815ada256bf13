"""The pure parts of bench/gate.py: intervals, order, the file that it goes on from, its tables."""

import sys
from math import comb
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))  # as the script is started

from gate_bench import arms, records, table, workplace
from gate_bench.arms import Row
from gate_bench.records import Log, Record, tasks
from gate_bench.table import Share

ASV = """
| Change   | Before [1f9cc192] <base>   | After [e0646050] <slow-10>   | Ratio   | Benchmark (Parameter)   |
|----------|----------------------------|------------------------------|---------|-------------------------|
|          | 250±100ms                  | 632±200ms                    | ~2.53   | kinds.time_engine       |
| +        | 60.0±2ms                   | 102±20ms                     | 1.70    | kinds.time_compute      |
| -        | 2.00±0.1ms                 | 1.00±0.1ms                   | 0.50    | kinds.time_launch       |
"""  # noqa: E501


def record(arm="stored", slow=0, verdicts=("SAME",), ratio=1.0, value=0.01, wall_s=12.0, **more):
    rows = tuple(Row(f"kind{n}", "", verdict, ratio, value) for n, verdict in enumerate(verdicts))
    return Record(f"{arm}-{slow}-{value}-{ratio}", arm, slow, "2026", wall_s, rows, **more)


def at_most(hits: int, runs: int, share: float) -> float:
    """Probability of no more than so many hits, by the definition of the binomial."""
    return sum(comb(runs, k) * share**k * (1 - share) ** (runs - k) for k in range(hits + 1))


@pytest.mark.parametrize(("hits", "runs"), [(0, 300), (3, 300), (95, 100), (10, 10)])
def test_the_interval_is_the_exact_binomial_one(hits, runs):
    low, high = Share(hits, runs).interval
    assert 1 - at_most(hits - 1, runs, low) == pytest.approx(0.025 if hits else 1.0)
    assert at_most(hits, runs, high) == pytest.approx(0.025 if hits < runs else 1.0)


def test_half_of_a_round_is_unchanged_and_arms_take_turns():
    found = [task for task in tasks(1, ["stored", "asv"], 1, 6) if task.slow is not None]
    assert sorted(task.slow for task in found if task.arm == "asv") == [0, 0, 0, 2, 5, 10]
    assert {task.arm for task in found[:6]} == {"stored", "asv"}
    assert len({task.id for task in found}) == 12


def test_the_order_of_an_arm_depends_on_the_seed_alone():
    both = [task for task in tasks(1, ["stored", "asv"], 3, 6) if task.arm == "asv"]
    assert both == list(tasks(1, ["asv"], 3, 6))
    assert both != list(tasks(2, ["asv"], 3, 6))


def test_each_era_starts_with_a_new_baseline_where_there_is_one():
    taken = [task for task in tasks(1, ["stored", "asv"], 5, 2) if task.slow is None]
    assert [(task.arm, task.era) for task in taken] == [("stored", 0), ("stored", 1), ("stored", 2)]


def test_a_log_goes_on_where_it_stopped_and_drops_half_a_line(tmp_path):
    path = tmp_path / "results.jsonl"
    first = Log(path, {"seed": 3})
    first.append(record(verdicts=("WORSE", "SAME")))
    with path.open("a") as file:
        file.write('{"id": "cut o')
    again = Log(path, {"seed": 4})
    assert again.header == {"seed": 3}
    assert again.records == first.records
    again.append(record(slow=2))
    assert len(Log(path, {}).records) == 2


def test_only_a_baseline_that_broke_is_taken_again(tmp_path):
    log = Log(tmp_path / "results.jsonl", {})
    log.append(records.Record("a", "asv", 0, "2026", 1.0, broken="why"))
    log.append(records.Record("b", "stored", None, "2026", 1.0, broken="why"))
    assert log.done == {"a"}


def test_asv_marks_are_read_from_its_table():
    assert arms._asv_marks(ASV) == [("", "engine"), ("+", "compute"), ("-", "launch")]


def test_an_exit_status_that_says_other_than_the_rows_breaks_the_run():
    red, green = [Row("kind", "", "WORSE", 1.2, 1.0)], [Row("kind", "", "SAME", 1.0, 1.0)]
    assert arms._agreeing(red, 1, "") == red
    for rows, status in ((red, 0), (green, 1), ([], 0)):
        with pytest.raises(workplace.Broken):
            arms._agreeing(rows, status, "")


def test_pytest_benchmark_fails_above_the_limit_only():
    assert arms._benchmark_row("kind", "min", 1.049, 1.0).verdict == "SAME"
    assert arms._benchmark_row("kind", "min", 1.051, 1.0).verdict == "WORSE"


def test_arms_are_counted_by_slowdown():
    found = [record(verdicts=("WORSE", "UNSURE", "SAME", "SAME"), wall_s=8.0), record(slow=10)]
    lines = table.of_arms(found).splitlines()
    cells = [cell.strip() for cell in lines[2].split("|")[1:-1]]
    assert cells[:4] == ["perfsuite stored:5%", "0", "4", "25.0 (0.6 to 80.6)"]
    assert cells[4:] == ["25.0", "50.0", "0.0", "2.0"]


def word(text: str, wanted: str) -> str:
    line = next(line for line in text.splitlines() if wanted in line)
    return line.split("|")[3].strip()


def test_a_share_beyond_its_target_is_not_reached():
    good = [record(verdicts=("SAME",) * 100), record(slow=10, verdicts=("WORSE",))]
    assert word(table.targets(good), "stored: false alarms") == "reached"
    bad = [record(verdicts=("WORSE",) * 2 + ("SAME",) * 98), record(slow=10)]
    assert word(table.targets(bad), "stored: false alarms") == "NOT REACHED"
    assert word(table.targets(bad), "silently green") == "NOT REACHED"
    assert word(table.targets(bad), "against: +2 %") == "not measured"


def test_catching_is_asked_where_the_sessions_are_quiet():
    calm = [record(value=value, ratio=value) for value in (0.0100, 0.0101)]
    wild = [record(value=value, ratio=value) for value in (0.0100, 0.0150)]
    missed = record(slow=10, verdicts=("UNSURE",))
    assert word(table.targets([*calm, missed]), "caught in 90 %") == "NOT REACHED"
    assert word(table.targets([*wild, missed]), "caught in 90 %") == "not measured"


def test_tables_fit_in_a_page():
    verdicts = ("WORSE",) * 6
    found = [
        Record(f"{arm}{slow}{n}", arm, slow, "2026", 999.0,
               tuple(Row(f"interpreter{k}", rule, v, 1.0, 1.0 + n)
                     for k, v in enumerate(verdicts) for rule in of.rules))
        for arm, of in arms.ARMS.items() for slow in (0, 2, 5, 10) for n in range(60)
    ]  # fmt: skip
    costs = {"figure": 1e-4, "call_1ms_us": 0.5, "call_20ms_us": 3.0}
    texts = (table.targets(found, table.of_overhead(costs)), table.of_arms(found),
             table.of_kinds(found))  # fmt: skip
    assert max(len(line) for text in texts for line in text.splitlines()) <= 100
