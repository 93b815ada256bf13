"""How often the gate looks, what it makes of a disturbance, and of two trees in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from perfsuite import gate
from perfsuite.baselines import Key
from perfsuite.crew import Crew, ItemRun
from perfsuite.environment import Disturbance
from perfsuite.gate import Gate
from perfsuite.measurement import Measurement
from perfsuite.options import Options, for_item, parse_marker, resolve
from perfsuite.pairing import Duel, Pair
from perfsuite.plan import Plan
from perfsuite.results import Row
from perfsuite.sampling import Measured
from perfsuite.verdict import Verdict

TIME = "call_time/per_call"


def options(tmp_path: Path, **command: Any) -> Options:
    return resolve({"device": "cpu", **command}, {}, tmp_path)


def plan(chosen: Options) -> Plan:
    item = for_item(chosen, parse_marker((), {}))
    return Plan("t.py::t", "t.py", None, Key("t"), "t.py", "cpu-x", item)


def ran(*values: float) -> ItemRun:
    """A process that measured these times."""
    return ItemRun(measured={"": Measured(blocks=[{TIME: value} for value in values])})


@pytest.fixture
def looking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Gate, list]]:
    """A gate whose looks give rows that may settle or not, as told; and the looks it took."""

    def make(settles: Sequence[bool], **command: Any) -> tuple[Gate, list[int]]:
        made = Gate(options(tmp_path, **command), Crew(lambda number: [], tmp_path))
        looks: list[int] = []

        def take(crew: object, plan: object, following: object, o: object, look: int) -> Any:
            looks.append(look)
            return Measurement([[ran(1.0)]])

        def rows(bench: Any, samples: object, counts: object) -> list[Row]:
            doubtful = settles[bench.look]
            return [Row(TIME, Verdict.UNSURE if doubtful else Verdict.SAME, may_settle=doubtful)]

        monkeypatch.setattr(gate, "take", take)
        monkeypatch.setattr(gate, "rows", rows)
        return made, looks

    return make


@pytest.mark.parametrize(
    ("settles", "looks"),
    [((False,), [0]), ((True, False), [0, 1]), ((True, True, True), [0, 1, 2])],
)
def test_what_is_in_doubt_is_looked_at_again(
    looking: Callable[..., Any], settles: Sequence[bool], looks: list[int]
) -> None:
    """A clear case ends at the first look; nothing is looked at more than three times."""
    made, taken = looking(settles)
    result, runs = made.run(plan(made.options), None)
    assert taken == looks
    assert len(runs) == len(looks)
    assert result.rows[0].may_settle == settles[-1]


def test_what_is_accepted_needs_no_second_look(looking: Callable[..., Any]) -> None:
    """--perf-save takes what was measured."""
    made, taken = looking((True, True, True), save=True)
    made.run(plan(made.options), None)
    assert taken == [0]


def test_a_process_that_broke_ends_the_looks(
    looking: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing to look at again."""
    made, _ = looking((True, True, True))
    taken: list[int] = []

    def take(crew: object, plan: object, following: object, o: object, look: int) -> Measurement:
        taken.append(look)
        return Measurement([[ItemRun(void="died")]])

    monkeypatch.setattr(gate, "take", take)
    result, _ = made.run(plan(made.options), None)
    assert taken == [0]
    assert (result.rows[0].verdict, result.rows[0].note) == (Verdict.VOID, "died")


def test_the_worst_disturbance_of_the_looks_is_told() -> None:
    """Looks at one test are disturbed one by one: shares do not add up."""
    found = [Disturbance(0.3, "a"), Disturbance(0.6, "b"), Disturbance(0.1, "c")]
    assert gate._worst(found) == [Disturbance(0.6, "b")]
    assert gate._worst([]) == []


def test_a_disturbance_excuses_its_share_and_no_more() -> None:
    """Half of the machine taken away doubles times; all of it explains nearly anything."""
    assert gate._excuse(Disturbance(0.0, "")) == 1.0
    assert gate._excuse(Disturbance(0.5, "")) == 2.0
    assert gate._excuse(Disturbance(1.0, "")) == pytest.approx(1000.0)


def test_a_slower_machine_is_a_disturbance() -> None:
    """The share is what the probe lost; a few per cent are the probe's own noise."""
    assert gate._slower(1 / 0.75) == [
        Disturbance(0.25, "the machine ran 25% slower than for the baseline")
    ]
    assert gate._slower(1.03) == []


def duel(*pairs: Pair) -> Duel:
    return Duel(list(pairs))


def judged(tmp_path: Path, *pairs: Pair) -> Row:
    made = Gate(options(tmp_path, against="main"), Crew(lambda number: [], tmp_path))
    result = made.judge_duel(plan(made.options), duel(*pairs), "main (1a2b)", look=0)
    assert result.facts["against"] == "main (1a2b)"
    return result.rows[0]


def test_two_trees_in_turn_are_compared(tmp_path: Path) -> None:
    """Blocks that stand side by side make a ratio, pairs an interval."""
    pairs = [
        Pair(ran(*(1.5 * b * wobble for b in (1.0, 2.0, 3.0))), ran(1.0, 2.0, 3.0))
        for wobble in (1.0, 1.01, 0.99, 1.0, 1.01)
    ]
    row = judged(tmp_path, *pairs)
    assert row.verdict is Verdict.WORSE
    assert row.ratio == pytest.approx(1.5, rel=0.01)


def test_a_base_that_broke_is_named(tmp_path: Path) -> None:
    """Its failure and its death are not head's."""
    report = {"outcome": "failed", "xfail": False, "text": "E   ValueError: old bug"}
    failed = judged(tmp_path, Pair(ran(1.0), ItemRun(reports=[report])))
    assert failed.verdict is Verdict.VOID
    assert failed.note == "base, main (1a2b): the test failed: ValueError: old bug"
    died = judged(tmp_path, Pair(ItemRun(), ItemRun(void="base, main (1a2b): died")))
    assert died.note == "base, main (1a2b): died"
    own = judged(tmp_path, Pair(ItemRun(void="own"), ItemRun(void="base")))
    assert own.note == "own"


def test_a_test_that_base_lacks_is_new(tmp_path: Path) -> None:
    """Measured here, compared with nothing, and said."""
    row = judged(tmp_path, Pair(ran(1.0), ItemRun(void="missing"), missing="not collected"))
    assert row.verdict is Verdict.NEW
    assert row.note == "only here: not collected"


