"""Samples against stored baselines: every verdict, and what a failure says."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from perfsuite.baselines import Baselines, Entry, Key, save
from perfsuite.judging import (
    Bench,
    Pairs,
    corrected,
    costs,
    differences,
    failure_message,
    pair_rows,
    rows,
    slower_machine,
    split,
    void,
)
from perfsuite.limits import Limit
from perfsuite.metrics import METRICS
from perfsuite.results import Row
from perfsuite.statistics import ALARMS, UNKNOWN_SESSION, Spread, compare, compare_pairs
from perfsuite.verdict import Verdict

MACHINE, SUITE, KEY = "cpu-a-2x", "llm", Key("llm-x", "torch_llama", "smoke")
TOOLS = "python 3.11.7, torch 2.13.0"
TTFT = "time_to_first_token/prefill_until_first_token"
DECODE = "decode_throughput/decode_steps"
PEAK = "peak_memory/allocator"
TRAFFIC = "static_traffic/operands_and_results"
OPERATORS = "static_operators/dispatched"
RESIDENT = "resident_memory/process_peak"


@pytest.fixture(autouse=True)
def own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lock files below the test's own folder."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def store(tmp_path: Path) -> Callable[..., None]:
    """Put figures under the usual key, of this machine class or of another."""

    def put(
        machine: str = MACHINE,
        toolchain: str = TOOLS,
        sessions: Sequence[int] = (),
        **figures: Sequence[float],
    ) -> None:
        counts = {"sessions": list(sessions)} if sessions else {}
        found = {name: {"unit": "", "processes": list(v), **counts} for name, v in figures.items()}
        entry = {"toolchain": toolchain, "date": "2026-01-31", "figures": found}
        save(tmp_path, machine, SUITE, {KEY.text: entry}, "all")

    return put


@pytest.fixture
def judged(tmp_path: Path) -> Callable[..., Row]:
    """The row of one figure against what is stored."""

    def judge(
        figure: str, processes: Sequence[Sequence[float]], limits: Mapping[str, Limit] | None = None
    ) -> Row:
        bench = Bench(Baselines([tmp_path]), MACHINE, SUITE, KEY, [limits or {}], TOOLS)
        row, *others = rows(bench, {figure: processes})
        assert all(other.verdict is Verdict.GONE for other in others)
        return row

    return judge


def five(value: float) -> list[list[float]]:
    """Five processes of three samples around a value."""
    return [[value * f * 0.99, value * f, value * f * 1.5] for f in (0.99, 1.0, 1.0, 1.0, 1.01)]


STORED = [0.99, 1.0, 1.0, 1.0, 1.01]


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [
        (0.80, Verdict.BETTER),
        (1.00, Verdict.SAME),
        (1.05, Verdict.UNSURE),
        (1.90, Verdict.UNSURE),
        (3.50, Verdict.WORSE),
    ],
)
def test_a_time_is_judged_by_target_over_baseline(
    judged: Callable[..., Row], store: Callable[..., None], factor: float, verdict: Verdict
) -> None:
    """Medians of five processes against five; what a session may explain is UNSURE."""
    store(**{TTFT: STORED})
    row = judged(TTFT, five(factor))
    assert row.verdict is verdict
    assert row.ratio == pytest.approx(factor)
    assert (row.limit, row.baseline, row.samples) == (1.05, 1.0, 15)
    assert row.processes == pytest.approx([v * factor for v in STORED])
    assert row.value == pytest.approx(factor, rel=1e-3)


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(1.25, Verdict.BETTER), (1.0, Verdict.SAME), (0.8, Verdict.UNSURE), (0.3, Verdict.WORSE)],
)
def test_a_throughput_is_judged_by_baseline_over_target(
    judged: Callable[..., Row], store: Callable[..., None], factor: float, verdict: Verdict
) -> None:
    """Fewer tokens a second are a ratio above 1."""
    store(**{DECODE: STORED})
    row = judged(DECODE, five(factor))
    assert row.verdict is verdict
    assert row.ratio == pytest.approx(1 / factor)
    assert row.ratio_low is not None
    assert row.ratio_high is not None
    assert row.ratio_low < 1 / factor < row.ratio_high


@pytest.mark.parametrize(
    ("figure", "base", "value", "verdict"),
    [
        (PEAK, 1000, 1010, Verdict.SAME),
        (PEAK, 1000, 1011, Verdict.WORSE),
        (PEAK, 1000, 990, Verdict.BETTER),
        (PEAK, 1000, 991, Verdict.SAME),
        (TRAFFIC, 123_456_789_012, 123_456_789_012, Verdict.SAME),
        (TRAFFIC, 123_456_789_012, 123_456_789_013, Verdict.WORSE),
        (TRAFFIC, 123_456_789_012, 123_456_789_011, Verdict.BETTER),
        (TRAFFIC, 0, 0, Verdict.SAME),
        (TRAFFIC, 0, 1, Verdict.WORSE),
        (TRAFFIC, 1, 0, Verdict.BETTER),
    ],
)
def test_an_exact_figure_has_no_interval(
    judged: Callable[..., Row],
    store: Callable[..., None],
    figure: str,
    base: int,
    value: int,
    verdict: Verdict,
) -> None:
    """One byte more than a count's baseline is WORSE; memory may grow by a hundredth."""
    store(**{figure: [base]})
    row = judged(figure, [[value]])
    assert row.verdict is verdict
    assert row.low == row.high == row.value == value
    assert row.ratio_low == row.ratio_high == row.ratio


def test_from_zero_an_absolute_limit_decides(
    judged: Callable[..., Row], store: Callable[..., None]
) -> None:
    """Both limits must be exceeded; any share of nothing is."""
    store(**{OPERATORS: [0]})
    limits = {OPERATORS: Limit(0.5, 3)}
    assert judged(OPERATORS, [[3]], limits).verdict is Verdict.SAME
    assert judged(OPERATORS, [[4]], limits).verdict is Verdict.WORSE


def test_an_absolute_limit_accepts_a_large_share_of_little(
    judged: Callable[..., Row], store: Callable[..., None]
) -> None:
    """Ten times as slow, and still less than the accepted ten milliseconds."""
    store(**{TTFT: [0.001]})
    assert judged(TTFT, [[0.010]], {TTFT: Limit(0.05, 0.010)}).verdict is not Verdict.WORSE
    assert judged(TTFT, [[0.010]], {TTFT: Limit(0.05)}).verdict is Verdict.WORSE


@pytest.mark.parametrize("figure", [TTFT, DECODE, PEAK])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_sample_that_is_no_figure_voids_it(
    judged: Callable[..., Row], store: Callable[..., None], figure: str, value: float
) -> None:
    """Wherever it stands, with a baseline or without: a median would hide it."""
    for processes in ([[value]], [[1.0, value, 1.0], [1.0]], [[1.0], [1.0, 1.0, value]]):
        row = judged(figure, processes)
        assert row.verdict is Verdict.VOID
        assert figure in row.note
        assert row.value is None
    store(**{figure: [1.0]})
    assert judged(figure, [[1.0, value, 1.0]]).verdict is Verdict.VOID


def test_without_a_baseline_a_figure_is_new(
    judged: Callable[..., Row], store: Callable[..., None]
) -> None:
    """Also where the test has one, but of other figures."""
    assert judged(TTFT, [[1.0]]).verdict is Verdict.NEW
    store(**{DECODE: [1.0]})
    row = judged(TTFT, [[1.0]])
    assert row.verdict is Verdict.NEW
    assert (row.baseline, row.ratio, row.limit, row.baseline_file) == (None, None, None, "")


def test_a_baseline_of_another_machine_class_is_foreign(
    judged: Callable[..., Row], store: Callable[..., None]
) -> None:
    """It is named and not compared."""
    store(machine="gpu-b", **{TTFT: [1.0]})
    store(machine="gpu-c", **{TTFT: [1.0]})
    row = judged(TTFT, [[9.0]])
    assert row.verdict is Verdict.FOREIGN
    assert "gpu-b, gpu-c" in row.note
    assert row.ratio is None


def test_a_baseline_of_another_definition_is_foreign(
    judged: Callable[..., Row], store: Callable[..., None]
) -> None:
    """The same name measured otherwise: not compared, of another part: not even foreign."""
    store(**{"time_to_first_token/until_first_chunk": [1.0]})
    row = judged(TTFT, [[9.0]])
    assert row.verdict is Verdict.FOREIGN
    assert "time_to_first_token/until_first_chunk" in row.note
    assert judged(f"{TTFT}@warm", [[9.0]]).verdict is Verdict.NEW


def test_two_known_definitions_of_a_name_are_two_figures(
    judged: Callable[..., Row], store: Callable[..., None]
) -> None:
    """Output tokens and all tokens: a baseline of one makes the other new, not foreign."""
    store(**{"single_user_throughput/output_tokens": [1.0]})
    row = judged("single_user_throughput/prompt_and_output_tokens", [[1.0]])
    assert row.verdict is Verdict.NEW


def test_operator_counts_compare_within_one_toolchain(
    judged: Callable[..., Row], store: Callable[..., None]
) -> None:
    """Another torch dispatches otherwise; traffic compares across toolchains."""
    store(toolchain="python 3.11.7, torch 2.12.0", **{OPERATORS: [100], TRAFFIC: [100]})
    row = judged(OPERATORS, [[100]])
    assert row.verdict is Verdict.FOREIGN
    assert "torch 2.12.0" in row.note
    assert judged(TRAFFIC, [[101]]).verdict is Verdict.WORSE
    store(**{OPERATORS: [100]})
    assert judged(OPERATORS, [[101]]).verdict is Verdict.WORSE


def test_what_is_not_gated_is_shown(judged: Callable[..., Row], store: Callable[..., None]) -> None:
    """Resident memory beside its baseline, whatever it became."""
    store(**{RESIDENT: [1000]})
    row = judged(RESIDENT, [[9000]])
    assert (row.verdict, row.baseline, row.ratio) == (Verdict.SHOWN, 1000, None)


def test_parts_are_figures_of_their_own(
    judged: Callable[..., Row], store: Callable[..., None]
) -> None:
    """`@load` is compared with `@load`."""
    store(**{"call_time/per_call@load": [1.0], "call_time/per_call@run": [5.0]})
    assert judged("call_time/per_call@load", five(5.0)).ratio == pytest.approx(5, rel=1e-3)
    assert judged("call_time/per_call@run", five(5.0)).ratio == pytest.approx(1, rel=1e-3)


def test_rows_keep_the_order_of_the_figures(tmp_path: Path) -> None:
    """As they were measured."""
    bench = Bench(Baselines([tmp_path]), MACHINE, SUITE, KEY, [], TOOLS)
    figures = [DECODE, TTFT, PEAK]
    assert [r.figure for r in rows(bench, {f: [[1.0]] for f in figures})] == figures


# --- what differs ---


def entry(toolchain: str, config: Mapping[str, Any]) -> Entry:
    """A stored entry with surroundings."""
    return Entry(Path("f.json"), "", "", "", toolchain, config, {})


@pytest.mark.parametrize(
    ("before", "now", "text"),
    [
        ("python 3.11.7, torch 2.12", "python 3.11.7, torch 2.13", "torch 2.12 -> 2.13"),
        ("python 3.11.7, torch 2.12", "python 3.11.7, jax 1, torch 2.12", "jax absent -> 1"),
        ("python 3.11.7, torch 2.12", "python 3.11.7", "torch 2.12 -> absent"),
        ("python 3.11.7", "python 3.11.7", ""),
        ("", "python 3.11.7", ""),
    ],
)
def test_changed_packages_are_named(before: str, now: str, text: str) -> None:
    """By package, not by place in the list."""
    assert differences(entry(before, {}), now, {}) == text


def test_changed_configuration_is_named() -> None:
    """Values as they are stored: five digits and lists are no difference."""
    stored = entry("", {"eps": 0.12346, "sizes": [1, 2], "threads": 2, "old": 1})
    now = {"eps": 0.123456789, "sizes": (1, 2), "threads": 4, "new": True}
    assert differences(stored, "", now) == "new absent -> True; old 1 -> absent; threads 2 -> 4"
    assert differences(None, "python 3", now) == ""


# --- what a failure says ---


def test_a_failure_tells_all_in_six_lines(make_row: Callable[..., Row]) -> None:
    """Measured, baseline, ratio and limit, context, what else failed, how to accept."""
    more = make_row(figure="call_time/per_call@load", verdict=Verdict.UNSURE)
    text = failure_message(
        make_row(),
        more=[more],
        differs="torch 2.12 -> 2.13",
        disturbed="other processes used 50 %",
        remedy="to accept: pytest --perf --perf-save 'a.py::test_a'",
    )
    assert text.splitlines() == [
        "WORSE: TTFT 11 ms [10.8 ms, 11.2 ms], 30 samples in 3 processes",
        "baseline 10 ms, 2026-01-31, baselines/cpu-model-2x-x86_64/jetstream.json",
        "ratio 1.100 [1.070, 1.130], limit 1.050 (above 1 is worse)",
        "42% of this machine's ceiling; changed since: torch 2.12 -> 2.13;"
        " disturbed: other processes used 50 %",
        "also time/call (load) UNSURE",
        "to accept: pytest --perf --perf-save 'a.py::test_a'",
    ]


def test_an_exact_failure_has_no_samples(make_row: Callable[..., Row]) -> None:
    """A compiled fact is one number, and a program has no ceiling."""
    row = make_row(
        figure=f"{TRAFFIC}@decode", value=1100.0, low=1100.0, high=1100.0, baseline=1000.0,
        ratio_low=1.1, ratio_high=1.1, ceiling=None,
    )  # fmt: skip
    text = failure_message(row, more=[], differs="", disturbed="", remedy="x")
    assert text.splitlines()[0] == "WORSE: traffic (decode) 1.1 kB"
    assert text.splitlines()[2] == "ratio 1.100, limit 1.050 (above 1 is worse)"
    assert len(text.splitlines()) == 4


def test_a_void_test_says_why(make_row: Callable[..., Row]) -> None:
    """The reason, and that nothing was used; no command accepts it."""
    text = failure_message(void("no tokens"), more=[], differs="x", disturbed="y", remedy="z")
    assert text == "VOID: no tokens\nnothing of this test was used or saved"


def test_a_long_void_keeps_its_beginning_and_end() -> None:
    """What happened, and the last words of a lost process."""
    log = "\n".join(["killed", "its last output:", *(f"line {i}" for i in range(12))])
    text = failure_message(void(log), more=[], differs="", disturbed="", remedy="")
    assert text.splitlines() == [
        "VOID: killed", "its last output:", "line 9", "line 10", "line 11",
        "nothing of this test was used or saved",
    ]  # fmt: skip


LONG = "word " * 200
CASES = itertools.product(
    [{}, {"baseline": None, "ratio": None, "limit": None, "verdict": Verdict.NEW},
     {"verdict": Verdict.VOID, "value": None, "note": f"{LONG}\n{LONG}\n" * 5},
     {"ratio": math.inf, "ratio_low": math.inf, "ratio_high": math.inf},
     {"figure": f"{PEAK}@{LONG}"}],
    ["", LONG, "two\nlines"],
    [0, 1, 40],
    ["", LONG],
    [None, 0.5],
    ["", LONG],
)  # fmt: skip


def test_a_failure_is_never_longer_than_six_lines_of_200(make_row: Callable[..., Row]) -> None:
    """In every combination; only the command, which is to be copied, is as long as it is."""
    for changes, note, more, differs, ceiling, disturbed in CASES:
        row = make_row(**{"note": note, "ceiling": ceiling, **changes})
        others = [make_row(figure="call_time/per_call@load"), void("contract")] * more
        text = failure_message(
            row, more=others, differs=differs, disturbed=disturbed, remedy="a" * 500
        )
        lines = text.splitlines()
        assert 2 <= len(lines) <= 6
        assert all(len(line) <= 206 for line in lines if line != "a" * 500)
        assert (lines[-1] == "a" * 500) is not text.startswith("VOID")


def test_a_stored_figure_that_was_not_measured_is_gone(
    tmp_path: Path, store: Callable[..., None]
) -> None:
    """It would pass unseen otherwise; what is never judged or not known any more is no loss."""
    store(**{TTFT: STORED, f"{DECODE}@two": STORED, RESIDENT: STORED, "old/definition": STORED})
    bench = Bench(Baselines([tmp_path]), MACHINE, SUITE, KEY, [{}], TOOLS)
    found = {row.figure: row for row in rows(bench, {TTFT: five(1.0)})}
    assert {figure: row.verdict for figure, row in found.items()} == {
        TTFT: Verdict.SAME,
        f"{DECODE}@two": Verdict.GONE,
    }
    remedy = "to accept: pytest --perf-save"
    message = failure_message(
        found[f"{DECODE}@two"], more=[], differs="", disturbed="", remedy=remedy
    )
    assert message.splitlines() == [
        f"GONE: {DECODE}@two: the baseline has this figure, this run did not measure it",
        "to accept: pytest --perf-save",
    ]


KNOWN = Spread(sessions=10, processes=5, common=0.0, own=0.01, freedom=20, process=0.01)


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Bench]:
    """A bench on what is stored; any field may be given."""

    def make(**changes: Any) -> Bench:
        plain = Bench(Baselines([tmp_path]), MACHINE, SUITE, KEY, [{}], TOOLS)
        return replace(plain, **changes)

    return make


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(0.9, "BETTER"), (1.0, "SAME"), (1.045, "UNSURE"), (1.12, "WORSE")],
)
def test_known_sessions_make_small_losses_visible(
    bench: Callable[..., Bench], store: Callable[..., None], factor: float, verdict: str
) -> None:
    """With 1 % between sessions a loss of 12 % is WORSE, which alone would be a session's doing."""
    store(**{TTFT: STORED})
    (row,) = rows(bench(spreads={TTFT: KNOWN}), {TTFT: five(factor)})
    assert row.verdict == verdict
    (alone,) = rows(bench(), {TTFT: five(factor)})
    assert alone.verdict != "WORSE"
    assert row.alarm is not None
    assert row.detectable is not None
    assert row.alarm < row.detectable


def test_what_others_took_is_added_to_what_noise_reaches(
    bench: Callable[..., Bench], store: Callable[..., None]
) -> None:
    """A disturbance that explains a factor of 1.5 raises the alarm by it."""
    store(**{TTFT: STORED})
    (calm,) = rows(bench(spreads={TTFT: KNOWN}), {TTFT: five(1.3)})
    (busy,) = rows(bench(spreads={TTFT: KNOWN}, excuse=1.5), {TTFT: five(1.3)})
    assert (calm.verdict, busy.verdict) == ("WORSE", "UNSURE")
    assert calm.alarm is not None
    assert busy.alarm == pytest.approx(1.5 * calm.alarm)


def test_more_figures_share_the_accepted_alarms(
    bench: Callable[..., Bench], store: Callable[..., None]
) -> None:
    """The same loss needs to be larger where more figures could have alarmed."""
    store(**{TTFT: STORED, DECODE: STORED})
    spreads = {TTFT: KNOWN, DECODE: KNOWN}
    (one,) = [r for r in rows(bench(spreads=spreads), {TTFT: five(1)}) if r.figure == TTFT]
    both = rows(bench(spreads=spreads, alarms=1e-4), {TTFT: five(1), DECODE: five(1)})
    assert one.alarm is not None
    assert all(row.alarm is not None and row.alarm > one.alarm for row in both)


PACE = "machine_pace/matrix_products"


def test_a_figure_is_corrected_by_the_probe_of_its_calibration(
    bench: Callable[..., Bench], store: Callable[..., None]
) -> None:
    """Half the pace and twice the time are equal; without the probe's figure they are not."""
    store(**{TTFT: STORED, PACE: [2.0] * 5})
    spread = replace(KNOWN, probe=PACE)
    samples = {TTFT: five(2.0), PACE: [[1.0]] * 5}
    found = {row.figure: row for row in rows(bench(spreads={TTFT: spread}), samples)}
    assert found[TTFT].verdict == "SAME"
    assert found[TTFT].ratio == pytest.approx(1.0)
    assert "corrected by" in found[TTFT].note
    plain = {row.figure: row for row in rows(bench(spreads={TTFT: KNOWN}), samples)}
    assert plain[TTFT].verdict == "WORSE"


def test_the_pace_of_the_machine_is_the_compute_probes(
    bench: Callable[..., Bench], store: Callable[..., None]
) -> None:
    """Memory has other users: what a copy loses is not the machine's pace. Faster is none."""
    loop, copy = "machine_pace/interpreter_loop", "machine_pace/memory_copy"
    store(**{PACE: [100.0] * 5, loop: [100.0] * 5, copy: [100.0] * 5})
    slow = {copy: [[10.0]] * 5, loop: [[50.0]] * 5}
    assert slower_machine(bench(), slow) == pytest.approx(2.0)
    assert slower_machine(bench(), slow | {PACE: [[80.0]] * 5}) == pytest.approx(1.25)
    assert slower_machine(bench(), {PACE: [[130.0]] * 5}) == 1.0
    assert slower_machine(bench(), {copy: [[10.0]] * 5}) == 1.0


def pairs(*ratios: float, figure: str = TTFT) -> Pairs:
    """Pairs with these ratios of costs, on a base of one second."""
    logs = [math.log(ratio) for ratio in ratios]
    return Pairs("main (1a2b)", {figure: logs}, {figure: [1.0] * len(logs)})


STEADY = (0.999, 1.0, 1.001, 1.0, 1.002, 0.998, 1.0, 1.001)


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.0, "SAME"), (1.0495, "UNSURE"), (1.08, "WORSE"), (0.9, "BETTER")]
)
def test_pairs_are_judged_without_a_stored_baseline(
    bench: Callable[..., Bench], factor: float, verdict: str
) -> None:
    """What is the other tree's stands where a file would."""
    found = pairs(*(factor * ratio for ratio in STEADY))
    (row,) = pair_rows(bench(), {TTFT: five(factor)}, found)
    assert row.verdict == verdict
    assert row.ratio == pytest.approx(factor, rel=1e-3)
    assert (row.baseline, row.baseline_file) == (1.0, "main (1a2b)")


def test_one_pair_decides_nothing_but_what_is_exact(bench: Callable[..., Bench]) -> None:
    """A single ratio has no spread; a compiled fact needs none."""
    (row,) = pair_rows(bench(), {TTFT: five(9.0)}, pairs(9.0))
    assert (row.verdict, row.may_settle) == ("UNSURE", True)
    (fact,) = pair_rows(bench(), {PEAK: [[1020.0]]}, pairs(1.02, figure=PEAK))
    assert fact.verdict == "WORSE"


def test_a_figure_of_one_side_is_named(bench: Callable[..., Bench]) -> None:
    """Only here: NEW. Only there: GONE."""
    found = replace(pairs(*STEADY), only_base=(DECODE,))
    here, there = pair_rows(bench(), {PEAK: [[1.0]]}, found)
    assert (here.figure, here.verdict) == (PEAK, "NEW")
    assert (there.figure, there.verdict) == (DECODE, "GONE")
    assert "main (1a2b)" in here.note
    assert "main (1a2b)" in there.note


# --- whose spread, which part of the alarms ---

ANY = {TTFT: Limit(0.0), DECODE: Limit(0.0), "call_time/per_call": Limit(0.0)}


@pytest.mark.parametrize("look", [0, 1, 2])
def test_a_row_holds_what_the_comparison_found(
    bench: Callable[..., Bench], store: Callable[..., None], look: int
) -> None:
    """Ratio, alarm and what would have been seen, at this test's part and this look's."""
    store(**{TTFT: STORED})
    (row,) = rows(bench(spreads={TTFT: KNOWN}, alarms=ALARMS / 20, look=look), {TTFT: five(1.03)})
    found = compare([[v * 1.03 for v in STORED]], [STORED], KNOWN, ALARMS / 20, look)
    assert row.alarm == pytest.approx(found.alarm(1.05))
    assert row.detectable == pytest.approx(found.detectable(1.05))
    assert (row.ratio_low, row.ratio_high) == pytest.approx((found.ratio.low, found.ratio.high))
    assert (row.verdict, row.may_settle) == (Verdict.UNSURE, True)


def test_the_alarms_are_divided_over_what_is_compared_with_noise(
    bench: Callable[..., Bench], store: Callable[..., None]
) -> None:
    """Exact figures, those that are shown and those without a baseline take no part of them."""
    calls = {f"call_time/per_call@{n}": STORED for n in range(3)}
    store(**calls, **{PEAK: [100.0], RESIDENT: [100.0], PACE: STORED})
    samples = {name: five(1.0) for name in (*calls, "call_time/per_call@new", PACE)}
    samples |= {PEAK: [[100.0]] * 5, RESIDENT: [[100.0]] * 5}
    found = rows(bench(limits=[ANY], spreads={"call_time/per_call": KNOWN}), samples)
    expected = compare([STORED], [STORED], KNOWN, ALARMS / 3).alarm(1.0)
    alarms = {row.figure: row.alarm for row in found}
    assert [alarms[name] for name in calls] == [pytest.approx(expected)] * 3


def test_a_figures_own_spread_is_taken_before_its_metrics(
    bench: Callable[..., Bench], store: Callable[..., None]
) -> None:
    """A stated drift names metrics, a calibration figures."""
    figure, metric, wide = "call_time/per_call@load", "call_time/per_call", replace(KNOWN, own=0.2)
    store(**{figure: STORED})
    for spreads, verdict in (
        ({metric: KNOWN}, Verdict.WORSE),
        ({metric: KNOWN, figure: wide}, Verdict.UNSURE),
        ({metric: wide, figure: KNOWN}, Verdict.WORSE),
    ):
        assert rows(bench(spreads=spreads), {figure: five(1.3)})[0].verdict is verdict


def test_without_a_known_spread_a_loss_is_not_worth_another_look(judged: Any, store: Any) -> None:
    """1.9 times as long may be another session's doing: more of this one do not tell."""
    store(**{TTFT: STORED})
    row = judged(TTFT, five(1.9))
    assert (row.verdict, row.may_settle) == (Verdict.UNSURE, False)
    assert row.alarm > 1.05 * UNKNOWN_SESSION
    assert "--perf-calibrate" in row.note


def test_sessions_of_a_baseline_are_told_apart(
    bench: Callable[..., Bench], store: Callable[..., None]
) -> None:
    """Ten processes of two sessions know more of the machine than ten of one."""
    wide = replace(KNOWN, own=0.02)
    store(sessions=(5, 5), **{TTFT: [*STORED, *STORED]})
    (two,) = rows(bench(limits=[ANY], spreads={TTFT: wide}), {TTFT: five(1.0)})
    store(**{TTFT: [*STORED, *STORED]})
    (one,) = rows(bench(limits=[ANY], spreads={TTFT: wide}), {TTFT: five(1.0)})
    found = compare([STORED], [STORED, STORED], wide, ALARMS)
    assert two.alarm == pytest.approx(found.alarm(1.0))
    assert one.alarm > two.alarm


def test_sessions_of_a_run_are_told_apart(
    bench: Callable[..., Bench], store: Callable[..., None]
) -> None:
    """A calibration's own rows: how many processes each session gave stays with them."""
    store(**{TTFT: STORED})
    known = bench(limits=[ANY], spreads={TTFT: replace(KNOWN, own=0.02)})
    ten = {TTFT: [*five(1.0), *five(1.0)]}
    two, one = (rows(known, ten, {TTFT: counts})[0] for counts in ([5, 5], [10]))
    assert (two.sessions, one.sessions) == ((5, 5), (10,))
    assert two.alarm < one.alarm


def test_a_disturbance_and_a_slower_machine_excuse_together(
    bench: Callable[..., Bench], store: Callable[..., None]
) -> None:
    """A loss below their product and the limit may be theirs; bytes are nobody else's."""
    store(**{TTFT: STORED, PEAK: [1000.0]})
    busy = bench(spreads={TTFT: KNOWN}, excuse=1.5, slower=1.2)
    for factor, verdict in ((1.85, Verdict.UNSURE), (2.0, Verdict.WORSE)):
        assert rows(busy, {TTFT: five(factor)})[0].verdict is verdict
    assert rows(busy, {PEAK: [[1100.0]]})[0].verdict is Verdict.WORSE


# --- probes ---

PROBED = replace(KNOWN, probe=PACE)
PACES = [100.0, 100.0, 50.0, 200.0, 100.0]


@pytest.fixture
def paced(bench: Callable[..., Bench], store: Callable[..., None]) -> Callable[..., Row]:
    """TTFT by a factor of the baseline's, beside a probe at 80 % of its pace."""

    def judge(factor: float, **changes: Any) -> Row:
        store(**{TTFT: STORED, PACE: PACES})
        samples = {TTFT: five(factor), PACE: [[0.8 * pace] for pace in PACES]}
        return rows(bench(**{"spreads": {TTFT: PROBED}, **changes}), samples)[0]

    return judge


def test_each_process_is_corrected_by_its_own_pace(
    bench: Callable[..., Bench], store: Callable[..., None]
) -> None:
    """Where one took twice as long at half the pace, it lost nothing."""
    store(**{TTFT: [100.0 * v / pace for v, pace in zip(STORED, PACES, strict=True)], PACE: PACES})
    found = rows(bench(spreads={TTFT: PROBED}), {TTFT: five(1.0), PACE: [[100.0]] * 5})
    assert found[0].ratio == pytest.approx(1.0)
    assert found[0].value == pytest.approx(1.0, rel=1e-3)


def test_a_corrected_loss_is_a_loss_of_the_code(paced: Callable[..., Row]) -> None:
    """A quarter more time is the machine's; half as much again is not."""
    assert paced(1.25).verdict is Verdict.SAME
    worse = paced(1.5)
    assert worse.verdict is Verdict.WORSE
    assert worse.ratio == pytest.approx(1.2)
    assert worse.note == "corrected by machine pace"


def test_the_slower_machine_is_no_second_excuse(paced: Callable[..., Row]) -> None:
    """It is in the correction; other users of the machine are not."""
    assert paced(1.5, slower=1.25).verdict is Verdict.WORSE
    assert paced(1.5, excuse=1.25).verdict is Verdict.UNSURE


def test_a_chosen_probe_has_a_fourth_of_the_alarms(paced: Callable[..., Row]) -> None:
    """It is the best of four choices, by what the calibration happened to see."""
    plain = compare([STORED], [STORED], KNOWN, ALARMS / 4).alarm(1.0)
    assert paced(1.25, limits=[ANY]).alarm == pytest.approx(plain)


@pytest.mark.parametrize("missing", ["baseline", "run", "processes"])
def test_without_its_probe_the_spread_of_a_figure_is_unknown(
    bench: Callable[..., Bench], store: Callable[..., None], missing: str
) -> None:
    """The calibrated one is of corrected levels alone."""
    store(**{TTFT: STORED}, **({} if missing == "baseline" else {PACE: PACES}))
    paces = {"run": [], "processes": PACES[:3]}.get(missing, PACES)
    samples = {TTFT: five(1.5), **({PACE: [[p] for p in paces]} if paces else {})}
    row = rows(bench(spreads={TTFT: PROBED}), samples)[0]
    assert (row.verdict, row.may_settle) == (Verdict.UNSURE, False)
    assert row.alarm is not None
    assert row.alarm > 1.05 * UNKNOWN_SESSION


def test_costs_rise_when_things_get_worse() -> None:
    """Times as they are, throughputs as their reciprocals; a pace takes the machine out of them."""
    assert costs(METRICS[TTFT], [[2.0], [4.0]]) == [[2.0], [4.0]]
    assert costs(METRICS[DECODE], [[2.0], [4.0]]) == [[0.5], [0.25]]
    assert corrected([[2.0, 4.0], [8.0]], [1.0, 0.5, 0.25]) == [[2.0, 2.0], [2.0]]
    assert corrected([[2.0, 4.0], [8.0]], [1.0, 0.5]) == []


def test_processes_are_split_by_session() -> None:
    """Without counts all are of one."""
    assert split([1.0, 2.0, 3.0], [2, 1]) == [[1.0, 2.0], [3.0]]
    assert split([1.0, 2.0, 3.0], ()) == [[1.0, 2.0, 3.0]]


def test_where_every_call_has_a_name_so_have_its_probes(
    bench: Callable[..., Bench], store: Callable[..., None]
) -> None:
    """The machine's pace is found all the same."""
    figure = f"{PACE}@load"
    store(**{"call_time/per_call@load": STORED, figure: [100.0] * 5})
    assert slower_machine(bench(), {figure: [[80.0]] * 5}) == pytest.approx(1.25)
    assert slower_machine(bench(), {f"{PACE}@run": [[80.0]] * 5}) == 1.0


# --- more of pairs ---


def test_a_log_ratio_is_a_cost_whatever_the_metric(bench: Callable[..., Bench]) -> None:
    """Above zero is worse for a throughput too."""
    found = pairs(*(1.3 * ratio for ratio in STEADY), figure=DECODE)
    (row,) = pair_rows(bench(), {DECODE: five(0.77)}, found)
    assert row.verdict is Verdict.WORSE
    assert row.ratio == pytest.approx(1.3, rel=1e-3)


def test_the_alarms_of_pairs_are_divided_over_what_has_noise(bench: Callable[..., Bench]) -> None:
    """Exact ones take no part; the look's part is the pairs' own."""
    noisy = [0.02 * v for v in (-1, 1, -0.5, 0.5, 1.5, -1.5, 0.2, -0.2)]
    logs = {TTFT: noisy, DECODE: noisy, PEAK: [0.0] * 8}
    samples = {name: [[1.0]] * 8 for name in logs}
    of = Pairs("main", logs, {name: [1.0] * 8 for name in logs})
    found = pair_rows(bench(limits=[ANY], look=1), samples, of)
    expected = compare_pairs(noisy, ALARMS / 2, look=1).alarm(1.0)
    assert [row.alarm for row in found] == [pytest.approx(expected)] * 2 + [1.01]


def test_a_busy_machine_excuses_pairs_too(bench: Callable[..., Bench]) -> None:
    """Both sides ran beside it, but not in the same moments."""
    found = pairs(*(1.08 * ratio for ratio in STEADY))
    assert pair_rows(bench(excuse=1.2), {TTFT: five(1.08)}, found)[0].verdict is Verdict.UNSURE


def test_a_sample_that_is_no_figure_voids_a_pair(bench: Callable[..., Bench]) -> None:
    """The log ratios may look fine where one process gave nothing usable."""
    samples = {TTFT: [[1.0], [1.0, math.nan, 1.0]]}
    assert pair_rows(bench(), samples, pairs(*STEADY))[0].verdict is Verdict.VOID


def test_what_is_not_gated_is_shown_in_pairs(bench: Callable[..., Bench]) -> None:
    """Whatever its ratio."""
    (row,) = pair_rows(bench(), {RESIDENT: [[9.0]]}, pairs(9.0, figure=RESIDENT))
    assert (row.verdict, row.baseline, row.ratio) == (Verdict.SHOWN, 1.0, None)


def test_a_failure_says_how_far_noise_reaches(make_row: Callable[..., Row]) -> None:
    """Where that is beyond the limit; else the limit alone decided."""
    for alarm, words in ((1.08, "1.050, noise reaches 1.080 (above"), (1.05, "1.050 (above")):
        text = failure_message(make_row(alarm=alarm), more=[], differs="", disturbed="", remedy="")
        assert f"limit {words}" in text.splitlines()[2]
