"""Answers of a test's processes by session, and one look at a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from perfsuite import measurement
from perfsuite.baselines import Key
from perfsuite.cases import Case
from perfsuite.crew import ItemRun, Order
from perfsuite.environment import Disturbance
from perfsuite.errors import WorkerLost
from perfsuite.measurement import BENCHMARK, Measurement, calls, is_over, take
from perfsuite.options import Options, for_item, parse_marker, resolve
from perfsuite.plan import Plan
from perfsuite.sampling import Measured
from perfsuite.statistics import LOOKS
from perfsuite.workloads import Workload

TIME = "call_time/per_call"
FAILED = {"outcome": "failed", "text": "E   x", "xfail": False}
SKIPPED = {"outcome": "skipped", "text": "no", "xfail": False}


def ran(*values: float, part: str = "") -> ItemRun:
    """A process that measured these times in one call."""
    return ItemRun(measured={part: Measured(blocks=[{TIME: value} for value in values])})


# --- what was answered ---


def test_samples_stay_with_their_process() -> None:
    """By figure; the sessions one after the other."""
    found = Measurement([[ran(1.0, 2.0), ran(3.0)], [ran(4.0)]])
    assert found.samples() == {TIME: [[1.0, 2.0], [3.0], [4.0]]}
    assert found.counts() == {TIME: [2, 1]}
    assert len(found.runs) == 3


def test_each_figure_counts_the_processes_that_gave_it() -> None:
    """A session without it does not count for it: samples and counts add up."""
    both = ItemRun(measured={**ran(1.0).measured, **ran(2.0, part="load").measured})
    found = Measurement([[both, ran(1.0)], [ran(1.0)], [both, both]])
    assert found.counts() == {TIME: [2, 1, 2], f"{TIME}@load": [1, 2]}
    for figure, processes in found.samples().items():
        assert sum(found.counts()[figure]) == len(processes)


def test_a_benchmarks_rounds_are_a_call_without_a_name() -> None:
    """pytest-benchmark's data beside what perf measured; without data it measured nothing."""
    run = ran(1.0, part="load")
    run.benchmark = {"data": [0.5, 0.6]}
    assert Measurement([[run]]).samples() == {f"{TIME}@load": [[1.0]], BENCHMARK: [[0.5, 0.6]]}
    assert calls(ItemRun(benchmark={"data": []})) == {}
    assert run.measured.keys() == {"load"}


def test_another_look_adds_to_the_session_another_session_stands_alone() -> None:
    """Seconds and disturbances add up; the state is the last one's."""
    one = Measurement([[ran(1.0)]], 2.0, [Disturbance(0.3, "a")], {"load": 1})
    one.extend(Measurement([[ran(2.0)]], 3.0, [], {"load": 2}), same_session=True)
    assert one.counts() == {TIME: [2]}
    one.extend(Measurement([[ran(3.0)]], 1.0, [Disturbance(0.5, "b")], {"load": 3}),
               same_session=False)  # fmt: skip
    assert one.counts() == {TIME: [2, 1]}
    assert (one.seconds, one.state) == (6.0, {"load": 3})
    assert [d.text for d in one.disturbances] == ["a", "b"]


def test_the_first_look_makes_the_session() -> None:
    """There is none to add to."""
    empty = Measurement()
    assert not empty.has_ended
    empty.extend(Measurement([[ran(1.0)]]), same_session=True)
    assert empty.counts() == {TIME: [1]}


@pytest.mark.parametrize(
    "run", [ItemRun(void="died"), ItemRun(reports=[FAILED]), ItemRun(reports=[SKIPPED])]
)
def test_a_process_that_did_not_measure_ends_the_test(run: ItemRun) -> None:
    """Lost, failed or skipped: no more of them are asked."""
    assert is_over(run)
    assert Measurement([[ran(1.0)], [ran(1.0), run]]).has_ended
    assert not Measurement([[run, ran(1.0)]]).has_ended
    assert not is_over(ran(1.0))


# --- one look ---


class FakeCrew:
    """Answers as told, process by process; keeps what it was asked."""

    def __init__(self, *answers: ItemRun | WorkerLost) -> None:
        self.answers = list(answers)
        self.prepared: list[list[int]] = []
        self.orders: list[tuple[int, Order]] = []

    def prepare(self, numbers: Any, timeout_s: float) -> None:
        self.prepared.append(list(numbers))

    def run(self, number: int, order: Order) -> ItemRun:
        self.orders.append((number, order))
        answer = self.answers.pop(0) if self.answers else ran(1.0)
        if isinstance(answer, WorkerLost):
            raise answer
        return answer


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The turns that were taken on the machine, with no lock and no sensor."""
    taken: list[str] = []

    @contextmanager
    def turn(name: str) -> Iterator[None]:
        taken.append(name)
        yield

    class Quiet:
        def __init__(self, device: object) -> None:
            taken.append("watched")

        def disturbance(self) -> Disturbance:
            return Disturbance(0.5, "others")

        def state(self) -> dict[str, Any]:
            return {"load": 1}

    monkeypatch.setattr(measurement, "sharing", lambda: turn("sharing"))
    monkeypatch.setattr(measurement, "measuring", lambda device: turn("measuring"))
    monkeypatch.setattr(measurement, "Surroundings", Quiet)
    return taken


def options(tmp_path: Path, **command: Any) -> Options:
    return resolve({"device": "cpu", "processes": 3, "budget": 9, **command}, {}, tmp_path)


def plan(chosen: Options, case: Case | None = None) -> Plan:
    item = for_item(chosen, parse_marker((), {}))
    return Plan("t.py::t", "t.py", case, Key("t"), "t.py", "cpu-x", item)


def test_a_look_asks_fresh_processes_for_its_share_of_the_budget(
    tmp_path: Path, turns: list[str]
) -> None:
    """Three processes a look, numbered on; the first of all is told so."""
    chosen = options(tmp_path)
    for look, numbers in ((0, [0, 1, 2]), (1, [3, 4, 5]), (2, [6, 7, 8])):
        crew = FakeCrew()
        found = take(crew, plan(chosen), "next", chosen, look)  # type: ignore[arg-type]
        assert crew.prepared == [numbers]
        assert [number for number, _ in crew.orders] == numbers
        assert [order.first for _, order in crew.orders] == [number == 0 for number in numbers]
        assert {order.following for _, order in crew.orders} == {"next"}
        assert all(o.budget_s == pytest.approx(9 * LOOKS[0] / 3) for _, o in crew.orders)
        assert found.counts() == {TIME: [3]}


def test_processes_start_before_the_turn_in_which_they_measure(
    tmp_path: Path, turns: list[str]
) -> None:
    """Imports are work: not inside another test's turn. The machine is watched in the own turn."""
    chosen = options(tmp_path)
    found = take(FakeCrew(), plan(chosen), None, chosen)  # type: ignore[arg-type]
    assert turns == ["sharing", "measuring", "watched"]
    assert found.disturbances == [Disturbance(0.5, "others")]
    assert found.state == {"load": 1}
    assert found.seconds >= 0


def test_the_server_that_is_measured_is_no_disturbance(
    tmp_path: Path, turns: list[str], make_workload: Callable[..., Workload]
) -> None:
    """On the client's own machine it is the busiest of the others; the state is still told."""
    chosen, crew = options(tmp_path), FakeCrew()
    case = Case(make_workload(kind="serving"), None, "measured")
    found = take(crew, plan(chosen, case), None, chosen)  # type: ignore[arg-type]
    assert (found.disturbances, found.state) == ([], {"load": 1})


def test_a_compiled_fact_needs_one_process_and_no_turn(
    tmp_path: Path, turns: list[str], make_workload: Callable[..., Workload]
) -> None:
    """Nothing disturbs what is counted."""
    chosen, crew = options(tmp_path), FakeCrew()
    case = Case(make_workload(), None, "static")
    found = take(crew, plan(chosen, case), None, chosen)  # type: ignore[arg-type]
    assert turns == ["sharing", "sharing"]
    assert [number for number, _ in crew.orders] == [0]
    assert (found.disturbances, found.state) == ([], {})


@pytest.mark.parametrize(
    ("answer", "void"),
    [
        (WorkerLost("killed by signal 9"), "killed by signal 9"),
        (ItemRun(reports=[FAILED]), ""),
        (ItemRun(reports=[SKIPPED]), ""),
        (ItemRun(void="the clock went back"), "the clock went back"),
    ],
)
def test_a_look_ends_with_the_first_process_that_does_not_measure(
    tmp_path: Path, turns: list[str], answer: Any, void: str
) -> None:
    """The rest would do the same; a lost worker is the test's, not the run's end."""
    chosen, crew = options(tmp_path), FakeCrew(ran(1.0), answer)
    found = take(crew, plan(chosen), None, chosen)  # type: ignore[arg-type]
    assert len(crew.orders) == len(found.runs) == 2
    assert found.has_ended
    assert found.runs[-1].void == void


def test_a_self_test_slows_every_process(tmp_path: Path, turns: list[str]) -> None:
    """By the share that was asked for; otherwise nothing is slowed."""
    for given, share in (("10%", 0.1), (None, None)):
        chosen, crew = options(tmp_path, self_test=given), FakeCrew()
        take(crew, plan(chosen), None, chosen)  # type: ignore[arg-type]
        assert {order.slow for _, order in crew.orders} == {share}
