"""What sessions of equal code showed of a machine: the file, the saves that stand in, findings."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perfsuite import calibration
from perfsuite.baselines import Baselines, Key, save
from perfsuite.calibration import calibrate, find, findings, of_saves, path_of, read, write
from perfsuite.errors import BaselineError
from perfsuite.results import Result, Row
from perfsuite.statistics import ALARMS, Spread, spreads
from perfsuite.verdict import Verdict

MACHINE = "cpu-a-2x"
HEAD = {"machine": MACHINE, "date": "2026-11-21", "commit": "1a2b", "toolchain": "python 3.11.7"}
TTFT = "time_to_first_token/prefill_until_first_token"
CALL = "call_time/per_call"
DECODE = "decode_throughput/decode_steps"
PEAK = "peak_memory/allocator"
RESIDENT = "resident_memory/process_peak"
MATRIX = "machine_pace/matrix_products"
COPY = "machine_pace/memory_copy"
LOOP = "machine_pace/interpreter_loop"
SPREAD = Spread(sessions=10, processes=5, common=0.02, own=0.01, freedom=29.0, process=0.015)


@pytest.fixture(autouse=True)
def own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def measured(make_result: Callable[..., Result]) -> Callable[..., Result]:
    """A result of several sessions: figure -> logarithms of (session, process)."""

    def make(
        key: str = "test_a | measured", limit: float | None = None, suite: str = "suite", **of: Any
    ) -> Result:
        rows = []
        for figure, logs in of.items():
            values = np.exp(np.asarray(logs))
            rows.append(
                Row(
                    figure, Verdict.NEW, value=1.0, limit=limit,
                    processes=tuple(values.ravel().tolist()),
                    sessions=(values.shape[1],) * values.shape[0],
                )
            )  # fmt: skip
        return make_result(key=key, suite=suite, rows=tuple(rows))

    return make


def noise(seed: int, sessions: int = 10, processes: int = 5, spread: float = 0.01) -> np.ndarray:
    return spread * np.random.default_rng(seed).standard_normal((sessions, processes))


def machine(seed: int, sessions: int = 10, spread: float = 0.05) -> np.ndarray:
    """What the sessions of a machine do to all of their processes."""
    return spread * np.random.default_rng(seed).standard_normal((sessions, 1))


# --- the file ---


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """By key and figure, numbers of five digits; the probe and the head stay."""
    path = path_of(tmp_path / "baselines", MACHINE)
    probed = Spread(10, 5, 0.0, 0.0123456, 9.0, 0.0, probe=MATRIX)
    write(path, HEAD, {"test_a": {TTFT: SPREAD, f"{CALL}@load": probed}})
    assert path.name == "cpu-a-2x.calibration.json"
    found = read(path)
    assert found["test_a"][TTFT] == SPREAD
    assert found["test_a"][f"{CALL}@load"] == Spread(10, 5, 0.0, 0.012346, 9.0, 0.0, probe=MATRIX)
    document = json.loads(path.read_text())
    assert {name: document[name] for name in HEAD} == HEAD


def test_a_part_of_the_suite_takes_only_its_own_place(tmp_path: Path) -> None:
    """Other tests stay; a test that was measured again is replaced whole."""
    path = path_of(tmp_path, MACHINE)
    other = Spread(6, 5, 0.01, 0.02, 5.0, 0.01)
    write(path, HEAD, {"test_a": {TTFT: SPREAD, CALL: SPREAD}, "test_b": {TTFT: SPREAD}})
    write(path, HEAD, {"test_a": {TTFT: other}})
    assert read(path) == {"test_a": {TTFT: other}, "test_b": {TTFT: SPREAD}}


@pytest.mark.parametrize(
    "change",
    [
        {"sessions": 1}, {"processes": 0}, {"own": 0.0}, {"own": math.nan}, {"own": math.inf},
        {"own": "0.1"}, {"freedom": -1.0}, {"common": -0.1}, {"common": math.nan},
        {"common": math.inf}, {"process": -0.1}, {"process": math.nan}, {"probe": "unknown/probe"},
        {"probe": 7}, {"more": 1}, {"own": None},
    ],
)  # fmt: skip
def test_a_spread_that_means_nothing_breaks_the_file(tmp_path: Path, change: Any) -> None:
    """It is named with its file and the remedy, and stays as it is."""
    path = path_of(tmp_path, MACHINE)
    write(path, HEAD, {"test_a": {TTFT: SPREAD}})
    document = json.loads(path.read_text())
    document["figures"]["test_a"][TTFT] |= change
    path.write_text(text := json.dumps(document))
    for use in (lambda: read(path), lambda: write(path, HEAD, {"test_b": {TTFT: SPREAD}})):
        with pytest.raises(BaselineError, match="cannot read this calibration") as caught:
            use()
        assert str(path) in str(caught.value)
        assert "--perf-calibrate" in str(caught.value)
    assert path.read_text() == text


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "7", "{}", '{"format": 2, "figures": {}}', '{"format": 1}',
     '{"format": 1, "figures": []}', '{"format": 1, "figures": {"a": []}}',
     '{"format": 1, "figures": {"a": {"b": 7}}}', "\udcff"],
)  # fmt: skip
def test_a_broken_file_is_an_error(tmp_path: Path, text: str) -> None:
    """Whatever it holds: no silent fallback to the saves."""
    path = path_of(tmp_path, MACHINE)
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(BaselineError, match=r"calibration\.json: cannot read"):
        find(Baselines([tmp_path]), MACHINE)


def test_the_first_folder_with_a_calibration_decides(tmp_path: Path) -> None:
    """As with baselines: folders are layered. Another machine's file is nothing to this one."""
    folders = [tmp_path / name for name in ("none", "first", "second")]
    other = Spread(6, 5, 0.01, 0.02, 5.0, 0.01)
    write(path_of(folders[0], "gpu-b"), HEAD, {"test_a": {TTFT: other}})
    write(path_of(folders[1], MACHINE), HEAD, {"test_a": {TTFT: SPREAD}})
    write(path_of(folders[2], MACHINE), HEAD, {"test_a": {TTFT: other}})
    assert find(Baselines(folders), MACHINE) == {"test_a": {TTFT: SPREAD}}


# --- saves that stand in ---


def store(
    folder: Path, day: int, figures: dict[str, Sequence[float]], name: str = "test_a"
) -> None:
    """One accepted save."""
    found = {figure: {"unit": "", "processes": list(of)} for figure, of in figures.items()}
    entry = {"date": f"2026-01-{day:02}", "figures": found}
    save(folder, MACHINE, "suite", {Key(name).text: entry}, "all")


def test_three_saves_and_more_stand_in_for_sessions(tmp_path: Path) -> None:
    """Each accepted level is a session of one process; two saves are too few."""
    for day, level in enumerate((1.0, 1.1, 0.95), start=1):
        assert find(Baselines([tmp_path]), MACHINE) == {}
        store(tmp_path, day, {TTFT: [level * by for by in (0.9, 1.0, 1.2)]})
    expected = spreads({"": [[1.0], [1.1], [0.95]]})[""]
    found = find(Baselines([tmp_path]), MACHINE)["suite.json: test_a | measured"][TTFT]
    assert (found.sessions, found.processes, found.process) == (3, 1, 0.0)
    assert found.own == pytest.approx(expected.own, rel=1e-4)


def test_saved_throughputs_count_as_costs(tmp_path: Path) -> None:
    """Five figures that moved together: half of them throughputs, which fell when times rose."""
    for day, level in enumerate((1.0, 1.2, 0.9, 1.1), start=1):
        times = {f"{TTFT}@{n}": [level] for n in range(3)}
        store(tmp_path, day, {**times, **{f"{DECODE}@{n}": [100 / level] for n in range(3)}})
    found = of_saves(Baselines([tmp_path]), MACHINE)["suite.json: test_a | measured"]
    assert len(found) == 6
    for spread in found.values():
        assert spread.common == pytest.approx(np.log([1.0, 1.2, 0.9, 1.1]).std(ddof=1), rel=1e-3)
        assert spread.own < 1e-4


def test_only_what_is_judged_with_noise_has_a_spread_from_saves(tmp_path: Path) -> None:
    """Not exact figures, not those that are only shown, not definitions that are gone."""
    for day in (1, 2, 3):
        store(tmp_path, day, {TTFT: [1.0 + day / 10], PEAK: [100.0], RESIDENT: [1.0], "a/b": [1.0]})
    assert set(of_saves(Baselines([tmp_path]), MACHINE)["suite.json: test_a | measured"]) == {TTFT}


def test_figures_of_different_age_use_their_last_saves(tmp_path: Path) -> None:
    """As many as the youngest has, so that sessions belong together; a newer one waits."""
    for day in range(1, 6):
        store(tmp_path, day, {TTFT: [1.0 + day]}, "old")
        if day > 2:
            store(tmp_path, day, {TTFT: [1.0 + day]}, "young")
        if day > 3:
            store(tmp_path, day, {TTFT: [1.0 + day]}, "newest")
    found = of_saves(Baselines([tmp_path]), MACHINE)
    assert set(found) == {"suite.json: old | measured", "suite.json: young | measured"}
    assert found["suite.json: old | measured"][TTFT] == found["suite.json: young | measured"][TTFT]
    assert found["suite.json: old | measured"][TTFT].sessions == 3


# --- what a calibration makes of sessions ---


def test_a_calibration_has_the_spreads_of_its_figures(measured: Callable[..., Result]) -> None:
    """By key and figure, throughputs as costs; as `statistics.spreads` has them."""
    logs = machine(1) + noise(2)
    found = calibrate([measured(**{TTFT: logs}), measured("test_b", **{DECODE: -noise(3)})])
    plain = spreads({"a": np.exp(logs).tolist(), "b": np.exp(noise(3)).tolist()})
    assert found["suite.json: test_a | measured"][TTFT].own == pytest.approx(plain["a"].own)
    assert found["suite.json: test_b"][DECODE].own == pytest.approx(plain["b"].own)
    assert found["suite.json: test_a | measured"][TTFT].process == pytest.approx(plain["a"].process)


def test_throughputs_and_times_share_the_machines_effect(measured: Callable[..., Result]) -> None:
    """A slow session raises costs of both."""
    slow = machine(4)
    times = {f"{TTFT}@{n}": slow + noise(n) for n in range(3)}
    rates = {f"{DECODE}@{n}": -slow + noise(10 + n) for n in range(3)}
    found = calibrate([measured(**times, **rates)])["suite.json: test_a | measured"]
    assert all(s.common == pytest.approx(slow.std(ddof=1), rel=0.2) for s in found.values())
    assert all(s.own < 0.01 for s in found.values())


def test_what_was_not_in_every_session_has_no_spread(measured: Callable[..., Result]) -> None:
    """It could not be told from the sessions it missed; one session is none at all."""
    whole, part, once = noise(1), noise(2, sessions=7), noise(3, sessions=1)
    found = calibrate([measured(**{TTFT: whole, CALL: part, DECODE: once})])
    assert set(found["suite.json: test_a | measured"]) == {TTFT}
    assert calibrate([measured(**{TTFT: once})]) == {}
    assert calibrate([]) == {}


def test_exact_and_shown_figures_are_not_calibrated(measured: Callable[..., Result]) -> None:
    """They have no noise, or no verdict."""
    result = measured(**{PEAK: noise(1), RESIDENT: noise(2), MATRIX: noise(3)})
    assert calibrate([result]) == {}


# --- probes ---


def test_a_probe_corrects_what_it_steadies(measured: Callable[..., Result]) -> None:
    """The machine's pace fell as the time rose: what is left is the processes' noise."""
    slow = machine(5)
    result = measured(**{TTFT: slow + noise(6), MATRIX: -slow + noise(7, spread=0.002)})
    found = calibrate([result])["suite.json: test_a | measured"][TTFT]
    assert found.probe == MATRIX
    assert found.own < 0.01


def test_the_best_of_several_probes_is_taken(measured: Callable[..., Result]) -> None:
    """Whatever their order."""
    slow = machine(5)
    probes = {
        COPY: -slow + machine(8, spread=0.02),
        MATRIX: -slow + noise(7, spread=0.002),
        LOOP: noise(9),
    }
    for names in ((COPY, MATRIX, LOOP), (LOOP, MATRIX, COPY)):
        of = {name: probes[name] for name in names}
        found = calibrate([measured(**{TTFT: slow + noise(6)}, **of)])
        assert found["suite.json: test_a | measured"][TTFT].probe == MATRIX


@pytest.mark.parametrize("left", [0.6, 0.8])
def test_a_probe_that_takes_less_than_half_of_the_variance_is_left_alone(
    measured: Callable[..., Result], left: float
) -> None:
    """It would be found by chance too. `left` of the spread is its square of the variance."""
    slow = np.linspace(-0.1, 0.1, 10)[:, None]
    probe = -slow * (1 - left) + np.zeros((10, 5))
    found = calibrate([measured(**{TTFT: slow + np.zeros((10, 5)), MATRIX: probe})])
    assert found["suite.json: test_a | measured"][TTFT].probe == (MATRIX if left**2 < 0.5 else "")


def test_a_probe_that_only_adds_noise_is_left_alone(measured: Callable[..., Result]) -> None:
    """Independent of the figure, it makes nothing steadier."""
    found = calibrate([measured(**{TTFT: machine(1) + noise(2), MATRIX: machine(3)})])
    assert found["suite.json: test_a | measured"][TTFT].probe == ""
    assert found["suite.json: test_a | measured"][TTFT].own > 0.03


def test_a_throughput_is_corrected_by_the_same_pace(measured: Callable[..., Result]) -> None:
    """It falls with the machine."""
    slow = machine(5)
    result = measured(**{DECODE: -slow + noise(6), MATRIX: -slow + noise(7, spread=0.002)})
    assert calibrate([result])["suite.json: test_a | measured"][DECODE].probe == MATRIX


def test_a_named_call_is_corrected_by_its_own_probe(
    measured: Callable[..., Result], tmp_path: Path
) -> None:
    """Not by that of another call, taken at another time; the file can hold it."""
    slow, other = machine(5), machine(8)
    of = {
        f"{CALL}@load": slow + noise(6),
        f"{CALL}@run": other + noise(7),
        f"{MATRIX}@load": -slow + noise(9, spread=0.002),
        f"{MATRIX}@run": -other + noise(10, spread=0.002),
    }
    found = calibrate([measured(**of)])
    of_test = found["suite.json: test_a | measured"]
    probes = {figure: spread.probe for figure, spread in of_test.items()}
    assert probes == {f"{CALL}@load": f"{MATRIX}@load", f"{CALL}@run": f"{MATRIX}@run"}
    write(path := path_of(tmp_path, MACHINE), HEAD, found)
    assert read(path)["suite.json: test_a | measured"][f"{CALL}@run"].probe == f"{MATRIX}@run"


def test_a_probe_of_fewer_processes_corrects_nothing(measured: Callable[..., Result]) -> None:
    """Which process it belongs to is not known."""
    slow = machine(5)
    probe = -slow + noise(7, processes=4, spread=0.002)
    found = calibrate([measured(**{TTFT: slow + noise(6), MATRIX: probe})])
    assert found["suite.json: test_a | measured"][TTFT].probe == ""


def test_figures_of_different_probes_share_no_effect(measured: Callable[..., Result]) -> None:
    """Six follow the machine and are corrected, six follow another thing of the session.

    What the six others do must not look smaller for it: neither is the effect of all.
    """
    slow, other = machine(5, spread=0.05), machine(6, spread=0.03)
    steadied = {f"{TTFT}@{n}": slow + noise(20 + n, spread=0.002) for n in range(6)}
    probes = {f"{MATRIX}@{n}": -slow + noise(40 + n, spread=0.002) for n in range(6)}
    free = {f"{CALL}@x{n}": other + noise(60 + n, spread=0.002) for n in range(6)}
    found = calibrate([measured(**steadied, **probes, **free)])["suite.json: test_a | measured"]
    expected = {**dict.fromkeys(steadied, True), **dict.fromkeys(free, False)}
    assert {figure: bool(spread.probe) for figure, spread in found.items()} == expected
    assert all(found[figure].common < 0.005 for figure in steadied)
    whole = [math.hypot(found[figure].common, found[figure].own) for figure in free]
    assert min(whole) > 0.9 * other.std(ddof=1)


def test_the_spread_under_a_probe_is_that_of_all_figures_under_it(
    measured: Callable[..., Result],
) -> None:
    """Those alone that it suits were chosen for looking quiet: it suits three of six here."""
    of = {f"{TTFT}@{n}": machine(5) + noise(n) for n in range(3)}
    of |= {f"{CALL}@{n}": machine(50 + n, spread=0.2) + noise(70 + n) for n in range(3)}
    pace = noise(30, spread=0.001) - machine(5)
    found = calibrate([measured(**of, **{f"{MATRIX}@{n}": pace for n in range(3)})])
    expected = spreads({figure: np.exp(logs + pace).tolist() for figure, logs in of.items()})
    of_test = found["suite.json: test_a | measured"]
    probed = {f: spread for f, spread in of_test.items() if spread.probe}
    assert set(probed) == {f"{TTFT}@{n}" for n in range(3)}
    for figure, spread in probed.items():
        assert (spread.common, spread.own, spread.freedom) == pytest.approx(
            (expected[figure].common, expected[figure].own, expected[figure].freedom)
        )


# --- findings ---


def test_a_finding_says_what_noise_reaches(measured: Callable[..., Result]) -> None:
    """One session against so many, at this figure's part of the run's alarms."""
    result = measured(**{TTFT: machine(1, spread=0.02) + noise(2)})
    found = calibrate([result])
    (one,) = findings([result], found, base_sessions=1)
    spread = found["suite.json: test_a | measured"][TTFT]
    flat = [[1.0] * 5]
    alone = calibration.compare(flat, flat, spread, ALARMS)
    assert (one.key, one.figure, one.spread, one.limit) == ("test_a | measured", TTFT, spread, 1.05)
    assert one.noise == pytest.approx(math.exp(alone.margin))
    assert one.detectable == pytest.approx(alone.detectable(1.05))
    assert one.between == pytest.approx(spread.own)
    (ten,) = findings([result], found, base_sessions=10)
    assert ten.noise < one.noise


def test_the_suggested_limit_is_the_next_usual_one_above_noise(
    measured: Callable[..., Result],
) -> None:
    """1, 2, 3, 5, 7, 10 per cent and on; beyond 100 % it is noise itself."""
    usual = [1.01, 1.02, 1.03, 1.05, 1.07, 1.1, 1.15, 1.2, 1.3, 1.5, 2.0]
    for spread in (0.0005, 0.002, 0.006, 0.01, 0.03, 0.06, 0.5):
        result = measured(**{TTFT: machine(1, spread=spread) + noise(2, spread=spread / 10)})
        (found,) = findings([result], calibrate([result]), base_sessions=1)
        above = [limit for limit in usual if limit >= found.noise]
        assert found.suggested == (pytest.approx(above[0]) if above else found.noise)


def test_the_limit_of_a_run_is_told_the_default_where_it_compared_nothing(
    measured: Callable[..., Result],
) -> None:
    """As the row had it; 5 % for a time that is new."""
    for limit, expected in ((1.15, 1.15), (None, 1.05)):
        result = measured(limit=limit, **{TTFT: machine(1) + noise(2)})
        (found,) = findings([result], calibrate([result]), base_sessions=1)
        assert found.limit == pytest.approx(expected)


def test_the_naive_alarms_are_a_thresholds(measured: Callable[..., Result]) -> None:
    """One session against one: the normal tail beyond the limit, at sqrt(2) of the spread."""
    result = measured(**{TTFT: machine(1, spread=0.05) + np.zeros((10, 5))})
    (found,) = findings([result], calibrate([result]), base_sessions=1)
    z = math.log(1.05) / (found.between * math.sqrt(2))
    assert found.naive_alarms == pytest.approx(math.erfc(z / math.sqrt(2)) / 2)
    still = measured(**{TTFT: np.zeros((10, 5))})
    (found,) = findings([still], calibrate([still]), base_sessions=1)
    assert found.naive_alarms < 1e-9


def test_more_figures_make_each_reach_farther(measured: Callable[..., Result]) -> None:
    """The alarms are divided over tests, and over a test's figures."""
    figure = machine(1) + noise(2)
    one = measured(**{TTFT: figure})
    tests = [measured(f"test_{n}", **{TTFT: figure}) for n in range(4)]
    parts = measured(**{f"{TTFT}@{n}": figure for n in range(4)})
    reach = [findings(of, calibrate(of), 1)[0].noise for of in ([one], tests, [parts])]
    assert reach[0] < reach[1] == pytest.approx(reach[2])


def test_the_worst_test_comes_first_and_its_figures_together(
    measured: Callable[..., Result],
) -> None:
    """By the figure whose noise reaches farthest."""
    quiet = measured("quiet", **{TTFT: machine(1, spread=0.002) + noise(2, spread=0.001)})
    loud = measured(
        "loud",
        **{TTFT: machine(3, spread=0.001) + noise(4, spread=0.001), CALL: machine(5, spread=0.2)},
    )
    found = findings([quiet, loud], calibrate([quiet, loud]), base_sessions=1)
    assert [(f.key, f.figure) for f in found] == [("loud", CALL), ("loud", TTFT), ("quiet", TTFT)]


def test_two_sessions_may_know_nothing(measured: Callable[..., Result]) -> None:
    """One degree of freedom and a large suite: noise reaches anything, and nothing overflows."""
    tests = [measured(f"test_{n}", **{TTFT: noise(n, 2)}) for n in range(4)]
    found = calibrate(tests)
    hundreds = [measured("test_0", **{TTFT: noise(0, 2)}) for _ in range(5000)]
    for finding in findings(hundreds, found, base_sessions=1)[:3]:
        assert finding.noise == finding.suggested == finding.detectable == math.inf


def test_tests_of_one_name_in_two_files_are_two(measured: Callable[..., Result]) -> None:
    """The second does not take the first one's place."""
    quiet = measured(suite="one", **{TTFT: noise(1, spread=0.001)})
    loud = measured(suite="two", **{TTFT: noise(2, spread=0.1)})
    found = calibrate([quiet, loud])
    assert set(found) == {"one.json: test_a | measured", "two.json: test_a | measured"}
    assert len(findings([quiet, loud], found, base_sessions=1)) == 2
