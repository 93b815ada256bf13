"""`python -m perfsuite changes`, and the note of a run that is on a new level."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from numpy.random import default_rng

pytest.importorskip("pyarrow", reason="a history is Parquet files")
pytest.importorskip("fsspec", reason="a history is where fsspec finds it")
pytest.importorskip("pandas", reason="a history is read into pandas")

from perfsuite.__main__ import main
from perfsuite.history import change_points
from perfsuite.history.place import Place
from perfsuite.history.revision import Revision
from perfsuite.history.store import Run, append

needs_otava = pytest.mark.skipif(
    not change_points.is_installed(), reason="needs Apache Otava: tox run -e changes"
)

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
TTFT = "time_to_first_token/prefill_until_first_token"
DECODE = "decode_throughput/decode_steps"
IDENTITY = {
    "machine": "cpu-some-processor-2x-x86_64", "suite": "llm", "workload": "single_user",
    "engine": "mine", "scale": "smoke", "tier": "measured", "part": "", "unit": "s",
    "processes": [], "samples": 9, "verdict": "SAME", "void": False, "disturbance": "",
    "toolchain": "python 3", "config": "{}", "test": "test_it.py::test_one", "metric": TTFT,
}  # fmt: skip
COUNT = 60
STEP_AT = 40

Rows = Sequence[dict[str, Any]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "runs"


@pytest.fixture
def history(place: Path) -> Callable[..., str]:
    """Sixty runs of a commit a day, each with the rows that a function of its number gives."""

    def fill(rows: Callable[[int], Rows], order: Sequence[int] = range(COUNT)) -> str:
        for hour, number in enumerate(order):
            commit = Revision(f"{number:02d}aaaaaaaaaa", BEGIN + timedelta(days=number), "main")
            run = Run(
                [{**IDENTITY, **row} for row in rows(number)],
                commit,
                time=BEGIN + timedelta(days=400, hours=hour),
            )
            append(Place(str(place)), run)
        return str(place)

    return fill


def level(number: int, step: float) -> float:
    """A level of 1 with noise of 1 %, and a step in the fortieth run."""
    noise = 0.01 * default_rng(number).standard_normal()
    return 1.0 + float(noise) + step * (number >= STEP_AT)


def slower(number: int) -> Rows:
    """Time to the first token, and the rate of decoding, 5 % worse since the fortieth run."""
    return [
        {"value": 0.01 * level(number, 0.05)},
        {"metric": DECODE, "unit": "tokens/s", "value": 1000 * level(number + 100, 0) - 50 * (
            number >= STEP_AT
        )},
    ]  # fmt: skip


@needs_otava
class TestCommand:
    def test_a_loss_has_commits_levels_size_and_confidence(
        self, history: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """In direction of the metric, in lines of 100 columns."""
        assert main(["changes", history(slower)]) == 0

        text = capsys.readouterr().out
        lines = text.splitlines()
        assert max(map(len, lines)) <= 100
        assert lines[0] == "single_user on mine"
        assert "cpu-some-processor-2x-x86_64" in lines[1]
        for title, sign in (("TTFT", "+"), ("decode", "-")):
            (line,) = [line for line in lines if line.strip().startswith(f"{title} ")]
            words = line.split()
            assert words[1] == "2026-02-10"
            assert words[2] == "39aaaaa..40aaaaa"
            assert f" {sign}" in line
            assert "worse" in words
            assert float(words[-1]) < 1e-9
        assert "2 change points (2 worse), 0 drifts in 2 series of 120 points" in text

    def test_json_has_the_same(self, history: Any, capsys: pytest.CaptureFixture[str]) -> None:
        """For machines: exact numbers, the ratio above 1 for what is worse."""
        assert main(["changes", history(slower), "--json"]) == 0

        document = json.loads(capsys.readouterr().out)
        assert document["perfsuite_changes_format"] == 1
        assert {change["metric"] for change in document["changes"]} == {TTFT, DECODE}
        for change in document["changes"]:
            assert change["kind"] == "step"
            assert change["worse"] is True
            assert change["ratio"] == pytest.approx(1.05, abs=0.01)
            assert change["commit_before"] == "39aaaaaaaaaa"
            assert change["commit"] == "40aaaaaaaaaa"
            assert change["runs"] == COUNT - STEP_AT

    def test_the_exit_status_is_for_gates_that_ask(self, history: Any) -> None:
        """1 for what got worse, and lately, where that is asked; gains are none."""
        place = history(slower)

        assert main(["changes", place]) == 0
        assert main(["changes", place, "--fail-on-worse"]) == 1
        assert main(["changes", place, "--fail-on-worse", "--last=20"]) == 1
        assert main(["changes", place, "--fail-on-worse", "--last=19"]) == 0

    def test_a_gain_and_a_figure_that_is_only_shown_fail_nothing(self, history: Any) -> None:
        """No verdict was ever made of them."""
        place = history(
            lambda n: [
                {"value": level(n, -0.05)},
                {"metric": "machine_pace/matrix_products", "unit": "operations/s",
                 "value": level(n + 50, 0) - 0.1 * (n >= STEP_AT)},
            ]
        )  # fmt: skip

        assert main(["changes", place, "--fail-on-worse"]) == 0

    def test_the_order_is_that_of_the_commits(
        self, history: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Runners' clocks and their order mean nothing."""
        order = [int(number) for number in default_rng(7).permutation(COUNT)]

        assert main(["changes", history(slower, order)]) == 0

        assert capsys.readouterr().out.count("39aaaaa..40aaaaa") == 2

    def test_many_small_losses_are_a_drift(
        self, history: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Ten losses of 0.5 % are one line, from the first commit to the last."""
        place = history(lambda n: [{"value": level(n, 0) + 0.005 * (n // 6)}])

        assert main(["changes", place, "--fail-on-worse"]) == 1

        text = capsys.readouterr().out
        (line,) = [line for line in text.splitlines() if " drift " in line and "TTFT" in line]
        assert line.split()[1:3] == ["drift", "00aaaaa..59aaaaa"]
        assert 4 < float(line.split("%")[0].split("+")[1]) < 7
        assert "0 change points, 1 drift (1 worse)" in text

    def test_what_is_no_measurement_of_the_code_is_left_out_and_counted(
        self, history: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Disturbed, void, infinite, and of another toolchain where that is what changed."""

        def rows(number: int) -> Rows:
            odd = number % 3 == 0
            bad = {"value": 5.0} if odd else {"value": level(number, 0)}
            return [
                {**bad, "disturbance": "others used 90 % of the processors" if odd else ""},
                {**bad, "workload": "broken", "void": odd},
                {"value": float("inf") if odd else level(number, 0), "workload": "failed"},
                {"metric": "static_operators/dispatched", "unit": "calls", "tier": "static",
                 "toolchain": "old" if number < STEP_AT else "new",
                 "value": 100.0 if number < STEP_AT else 130.0},
            ]  # fmt: skip

        assert main(["changes", history(rows)]) == 0

        text = capsys.readouterr().out
        assert "0 change points, 0 drifts in 4 series of 140 points" in text
        left_out = ("20 of broken contracts (VOID)", "20 of disturbed runs", "20 not finite",
                    "40 of older toolchains")  # fmt: skip
        for words in left_out:
            assert words in text

    def test_machines_engines_and_definitions_are_never_mixed(self, history: Any) -> None:
        """Two machines, one twice as slow, that take turns: no series has a step."""

        def rows(number: int) -> Rows:
            slow = number >= STEP_AT
            differing = {"machine": "other"}, {"engine": "other"}, {"metric": DECODE}
            return [{"value": level(number, slow), **(other if slow else {})}
                    for other in differing]  # fmt: skip

        assert main(["changes", history(rows), "--fail-on-worse"]) == 0

    def test_one_workload_and_one_branch_can_be_chosen(
        self, history: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """By a part of the name; what is not there is an error with what is."""
        place = history(lambda n: [*slower(n), {"value": level(n, 1.0), "workload": "serving"}])

        assert main(["changes", place, "serv", "--branch=main"]) == 0
        assert "in 1 series" in capsys.readouterr().out
        assert main(["changes", place, "--branch=other"]) == 2
        assert "no run of branch 'other'" in capsys.readouterr().err
        assert main(["changes", place, "nothing"]) == 2
        assert "single_user" in capsys.readouterr().err

    def test_bad_files_and_bad_names_break_nothing(
        self, history: Any, place: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A truncated file is named; what a terminal would obey, and long names, are shown."""
        evil = "\x1b[2J<script>\u202e\n" + "long" * 40
        history(lambda n: [{"value": level(n, 0.5), "workload": evil, "part": evil}])
        first = min(place.glob("*.parquet"))
        first.write_bytes(first.read_bytes()[:100])

        assert main(["changes", str(place)]) == 0

        shown = capsys.readouterr()
        assert first.name in shown.err
        assert "1 change point" in shown.out
        assert max(map(len, shown.out.splitlines())) <= 100
        assert "\x1b" not in shown.out
        assert "\u202e" not in shown.out

    def test_few_runs_show_nothing_and_say_so(
        self, history: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Three points are no history."""
        assert main(["changes", history(slower, range(3))]) == 0

        assert "2 series have too few points" in capsys.readouterr().out

    @pytest.mark.parametrize("last", ["0", "-3"])
    def test_a_number_of_points_is_asked_for(
        self, last: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Before anything is read."""
        assert main(["changes", "nowhere", f"--last={last}"]) == 2
        assert f"--last={last}: expected" in capsys.readouterr().err


def test_without_otava_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And exits with 2."""
    monkeypatch.setattr(change_points, "find_spec", lambda _: None)

    assert main(["changes", "nowhere"]) == 2
    assert "pip install 'perfsuite[history,changes]'" in capsys.readouterr().err


def _relive(project: Any, runs: int, since: int) -> None:
    """Runs before the first one with its rows, at a hundredth of its values until `since`."""
    from perfsuite import load_history

    place = str(project.path / "runs")
    frame = load_history(place)
    first = frame["time"].min().to_pydatetime()
    kept = [name for name in frame.columns if name not in (
        "run", "time", "commit", "commit_time", "branch", "source")]  # fmt: skip
    rows = frame[kept].to_dict("records")
    rng = default_rng(1)
    for number in range(runs):
        share = (1 + 0.01 * rng.standard_normal()) * (0.01 if number < since else 1.0)
        again = [{**row, "processes": [], "value": row["value"] * share} for row in rows]
        run = Run(again, Revision(), time=first - timedelta(days=runs - number))
        append(Place(place), run)


@needs_otava
def test_a_run_on_a_new_level_says_so(two_tests: Any) -> None:
    """Since six runs all is a hundred times as slow: the next run's summary has it."""
    project, history = two_tests, "--perf-history=runs"
    first = project.perf("--perf-save", "--perf-processes=1", history)
    assert first.ret == 0
    first.stdout.no_fnmatch_line("*change point*")
    _relive(project, runs=35, since=30)

    second = project.perf("--perf-processes=1", history)

    assert second.ret == 0, "history fails no run"
    second.stdout.fnmatch_lines([
        "this run is on the new level of *change points: python -m perfsuite changes *runs",
        "*time/call worse since *(7 runs; * before): * -> *",
    ])  # fmt: skip


def test_a_run_without_otava_says_that_nothing_was_looked_for(two_tests: Any) -> None:
    """Once, and passes."""
    two_tests.conftest("""
import perfsuite.history.change_points
perfsuite.history.change_points.find_spec = lambda name: None
""")

    result = two_tests.perf("--perf-save", "--perf-processes=1", "--perf-history=runs")

    assert result.ret == 0
    found = [line for line in result.outlines if "change points were not looked for" in line]
    assert len(found) == 1
    assert "Apache Otava is not installed" in found[0]


def test_a_look_that_fails_takes_nothing_from_the_run(two_tests: Any) -> None:
    """Whatever breaks in it, the run's table, its file in the history and its status stand."""
    two_tests.conftest("""
import perfsuite.history.changes

def broken(place, run):
    raise AttributeError("newer internals")

perfsuite.history.changes.notes = broken
""")

    result = two_tests.perf("--perf-save", "--perf-processes=1", "--perf-history=runs")

    assert result.ret == 0
    result.stdout.fnmatch_lines([
        "*time/call*",
        "change points were not looked for: AttributeError: newer internals",
    ])  # fmt: skip
    assert len(list((two_tests.path / "runs").glob("*.parquet"))) == 1
