"""--perf-history: each run of its own is one file, and a run that is none is not appended."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow", reason="a history is Parquet files")
pytest.importorskip("fsspec", reason="a history is where fsspec finds it")
pytest.importorskip("pandas", reason="a history is read into pandas")

from perfsuite import load_history
from perfsuite.__main__ import main
from perfsuite.history.trend import series

TIME = "call_time/per_call"
HISTORY = "--perf-history=runs"
ONE = "--perf-processes=1"


def _git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    done = subprocess.run(
        ["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def _files(project: Any) -> list[str]:
    return sorted(path.name for path in (project.path / "runs").glob("*.parquet"))


def test_every_run_is_appended(two_tests: Any) -> None:
    """All figures with their verdicts, of the commit that was measured; -n 2 appends once."""
    project = two_tests
    _git(project.path, "init", "-b", "main")
    _git(project.path, "add", "test_it.py")
    _git(project.path, "commit", "-m", "first")
    first = project.perf("--perf-save", ONE, HISTORY)
    assert first.ret == 0
    project.slow_down("one")
    assert project.perf("-n", "2", ONE, HISTORY).ret == 1

    assert len(_files(project)) == 2
    frame = load_history(str(project.path / "runs"))
    first.stdout.fnmatch_lines([f"appended to *runs: {frame['run'].iloc[0]}"])
    rows = {(r["nodeid"], row["figure"]): row for r in project.report["results"]
            for row in r["rows"]}  # fmt: skip
    second = frame[frame["run"] == frame["run"].iloc[-1]]
    assert len(second) == len(rows)
    for row in second.to_dict("records"):
        expected = rows[row["test"], row["metric"]]
        for name in ("value", "verdict", "samples"):
            assert row[name] == expected[name], name
        assert list(row["processes"]) == expected["processes"]
    assert set(frame["commit"]) == {_git(project.path, "rev-parse", "--short=12", "HEAD")}
    assert set(frame["branch"]) == {"main"}
    assert frame["commit_time"].notna().all()
    (one,) = (s for s in series(frame) if (s.workload, s.metric) == ("test_one", TIME))
    before, after = one.values
    assert 0.002 <= before < after

    command = ["import", str(project.path / "out.json"), f"--history={project.path / 'runs'}"]
    assert main(command) == 0
    assert len(_files(project)) == 2, "the run is known in its --perf-json too"


def test_a_run_that_was_interrupted_is_none(two_tests: Any) -> None:
    """What it measured is no picture of the whole; the run says so."""
    two_tests.write("test_more.py", "def test_stop():\n    raise KeyboardInterrupt\n")

    result = two_tests.perf("--perf-save", ONE, HISTORY)

    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["nothing was appended to *runs: the run was interrupted"])
    assert _files(two_tests) == []


def test_a_run_without_a_measurement_is_none(two_tests: Any) -> None:
    """Where nothing was selected, or only ordinary tests."""
    result = two_tests.perf(HISTORY, "-k", "nothing")
    result.stdout.fnmatch_lines(["nothing was appended to *runs: no test was selected"])
    two_tests.write("test_more.py", "def test_ordinary():\n    pass\n")
    result = two_tests.perf(HISTORY, "test_more.py")
    result.stdout.fnmatch_lines(["nothing was appended to *runs: no test was measured"])
    assert _files(two_tests) == []


def test_a_history_that_is_lost_meanwhile_fails_the_run(two_tests: Any) -> None:
    """The run is red and says where its figures are; baselines and files are as without it."""
    two_tests.write("test_more.py", """
from pathlib import Path

def test_breaks_the_history():
    place = Path(__file__).with_name("runs")
    place.rmdir()
    place.write_text("a file where a folder is wanted")
""")

    result = two_tests.perf("--perf-save", ONE, HISTORY)

    assert result.ret == 1
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["*runs: *.parquet was not appended: *", "kept in *.parquet; to *"])
    (kept,) = (two_tests.path / ".perfsuite" / "not-appended").iterdir()
    command = result.stdout.str().partition("to append it: python -m ")[2].splitlines()[0]
    assert command == f"perfsuite import {kept} --history={two_tests.path / 'runs'}"
    assert len(two_tests.baselines) == len(two_tests.results) == 2

    (two_tests.path / "runs").unlink()
    assert main(command.split()[1:]) == 0
    assert _files(two_tests) == [kept.name]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--perf-history=taken/runs", "--perf"], "*taken/runs: cannot append to this history: *"),
        (["--perf-history=nowhere://a/b", "--perf"], "*history 'nowhere://a/b': *nowhere*"),
        ([HISTORY], "*--perf-history has no effect without --perf"),
        ([HISTORY, "--perf", "--perf-self-test=20%"], "*self-test never appends to a history*"),
        ([HISTORY, "--perf", "--perf-in-process"], "*in-process never appends to a history*"),
    ],
)
def test_what_can_not_be_appended_to_is_refused_at_once(
    two_tests: Any, arguments: list[str], said: str
) -> None:
    """Before anything is measured; nothing is made."""
    two_tests.write("taken", "a file where a folder is wanted")

    result = two_tests.pytest(*arguments)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said])
    assert not (two_tests.path / "runs").exists()


@pytest.mark.parametrize("arguments", [["--perf-list"], ["--collect-only"]])
def test_what_only_lists_makes_no_history(two_tests: Any, arguments: list[str]) -> None:
    """Nor does it need the libraries, where the ini names one."""
    two_tests.write("pytest.ini", "[pytest]\nperf_history = nowhere://runs\n")
    assert two_tests.pytest("--perf", "--device=cpu", *arguments).ret == 0
    two_tests.write("pytest.ini", "[pytest]\nperf_history = runs\n")
    assert two_tests.pytest("--perf", "--device=cpu", *arguments).ret == 0
    assert not (two_tests.path / "runs").exists()


def test_the_ini_names_the_history(two_tests: Any) -> None:
    """From the root, and not for a debugger's run; the command line comes first."""
    two_tests.write("pytest.ini", "[pytest]\nperf_history = runs\n")
    folder = two_tests.path / "below"
    folder.mkdir()
    select = ("-k", "one", ONE, "--perf-save")
    assert two_tests.perf(*select).ret == 0
    assert two_tests.perf("--perf-in-process", "-k", "one").ret == 0
    assert len(_files(two_tests)) == 1
    assert two_tests.perf(*select, "--perf-history=below").ret == 0
    assert len(_files(two_tests)) == len(list(folder.glob("*.parquet"))) == 1
