"""How often the gate looks, what it makes of a disturbance, and of two trees in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from perfsuite import gate
from perfsuite.baselines import Key, file_name, save
from perfsuite.calibration import path_of, place, write
from perfsuite.crew import Crew, ItemRun
from perfsuite.environment import Disturbance
from perfsuite.gate import Gate
from perfsuite.measurement import Measurement
from perfsuite.options import Options, for_item, parse_marker, resolve
from perfsuite.pairing import Duel, Pair
from perfsuite.plan import Plan
from perfsuite.results import Row
from perfsuite.sampling import Measured
from perfsuite.statistics import ALARMS, Spread, known_drift
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


# --- what a run is judged with ---

PACE = "machine_pace/matrix_products"
QUIET = Spread(sessions=10, processes=5, common=0.0, own=0.01, freedom=29.0, process=0.01)


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a baseline of one second at a pace of 100, and its machine's calibration."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = tmp_path / "stored"
    figures = {TIME: [1.0] * 5, PACE: [100.0] * 5}
    entry = {"figures": {name: {"unit": "", "processes": of} for name, of in figures.items()}}
    save(folder, "cpu-x", "t.py", {Key("t").text: entry}, "all")
    write(path_of(folder, "cpu-x"), {}, {place(file_name("t.py"), Key("t").text): {TIME: QUIET}})
    return folder


def at(pace: float, *values: float) -> ItemRun:
    """A process that measured these times beside that pace of the machine."""
    run = ran(*values)
    run.measured[""].once = {PACE: pace}
    return run


def judged_against(folder: Path, measured: Measurement, **command: Any) -> Any:
    made = Gate(options(folder, baselines=[folder], **command), Crew(lambda number: [], folder))
    return made.judge(plan(made.options), measured)


def test_a_loss_beyond_noise_is_worse(stored: Path) -> None:
    """Five processes a fifth slower, on a machine that is calibrated and as it was."""
    result = judged_against(stored, Measurement([[at(100.0, 1.2)] * 5]))
    assert result.rows[0].verdict is Verdict.WORSE
    assert result.disturbance == ""


def test_only_the_worst_disturbance_of_the_looks_excuses(stored: Path) -> None:
    """0.3 of the machine taken away raises the alarm by 1 / 0.7, however many looks said so."""
    found = [Disturbance(0.3, "others"), Disturbance(0.1, "stolen"), Disturbance(0.3, "others")]
    for factor, verdict in ((1.45, Verdict.UNSURE), (1.55, Verdict.WORSE)):
        measured = Measurement([[at(100.0, factor)] * 5], disturbances=found)
        result = judged_against(stored, measured)
        assert result.rows[0].verdict is verdict
        assert result.rows[0].alarm == pytest.approx(1.05 / 0.7)
        assert result.disturbance == "others"


@pytest.mark.parametrize(
    ("pace", "alarm", "text"),
    [
        (50.0, 2.1, "the machine ran 50% slower than for the baseline"),
        (97.0, 1.05, ""),  # a few per cent are the probe's own noise
        (200.0, 1.05, ""),
    ],
)
def test_a_slower_machine_excuses_its_factor(
    stored: Path, pace: float, alarm: float, text: str
) -> None:
    """What the probe lost against the baseline, and told as a disturbance."""
    result = judged_against(stored, Measurement([[at(pace, 1.0)] * 5]))
    assert result.rows[0].alarm == pytest.approx(alarm)
    assert result.disturbance == text


def test_a_broken_measurement_is_void_and_keeps_no_samples(stored: Path) -> None:
    """Nothing of it may be saved; how the machine was stays told."""
    measured = Measurement([[at(50.0, 1.0), ItemRun(void="died")]], 2.0, [], {"load": 1})
    result = judged_against(stored, measured)
    assert [(row.verdict, row.note) for row in result.rows] == [(Verdict.VOID, "died")]
    assert (result.samples, result.seconds, result.machine_state) == ({}, 2.0, {"load": 1})
    assert result.disturbance == ""


def test_the_sessions_of_a_measurement_stay_in_its_rows(stored: Path) -> None:
    """As a baseline of several sessions has them."""
    result = judged_against(stored, Measurement([[at(100.0, 1.0)] * 3, [at(100.0, 1.0)] * 2]))
    assert result.rows[0].sessions == (3, 2)


def test_the_alarms_of_a_run_are_divided_over_its_tests(stored: Path) -> None:
    """A run of 50 tests and one of one: the same data, another reach. None is taken for one."""
    made = Gate(options(stored, baselines=[stored]), Crew(lambda number: [], stored))
    for tests, part in ((50, ALARMS / 50), (1, ALARMS), (0, ALARMS)):
        made.tests = tests
        assert made._bench(plan(made.options)).alarms == part


def test_the_spread_is_stated_calibrated_or_told_by_saves(stored: Path) -> None:
    """In this order; a stated one is for every metric."""
    key = Key("t").text

    def spreads(**command: Any) -> Any:
        made = Gate(options(stored, baselines=[stored], **command), Crew(lambda n: [], stored))
        return made._bench(plan(made.options)).spreads

    assert spreads() == {TIME: QUIET}
    stated = spreads(drift="3%")
    assert stated[TIME] == stated[PACE] == known_drift(0.03)
    path_of(stored, "cpu-x").unlink()
    assert spreads() == {}
    for level in (1.1, 1.2):
        entry = {"figures": {TIME: {"unit": "", "processes": [level]}}}
        save(stored, "cpu-x", "t.py", {key: entry}, "all")
    assert spreads()[TIME].sessions == 3


def test_a_calibration_is_read_once_a_run(stored: Path) -> None:
    """Thousands of tests ask for it."""
    made = Gate(options(stored, baselines=[stored]), Crew(lambda number: [], stored))
    assert made._bench(plan(made.options)).spreads == {TIME: QUIET}
    path_of(stored, "cpu-x").write_text("{")
    assert made._bench(plan(made.options)).spreads == {TIME: QUIET}
