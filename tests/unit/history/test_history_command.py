"""`python -m perfsuite history`: what it prints, in a terminal of 100 columns."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="a history is Parquet files")
pytest.importorskip("fsspec", reason="a history is where fsspec finds it")
pytest.importorskip("pandas", reason="a history is read into pandas")
pytest.importorskip("plotille", reason="trends are plotted")

from perfsuite.__main__ import main
from perfsuite.history import store
from perfsuite.history.place import Place
from perfsuite.history.store import Run

LONG = "hydragen-codellama_34b-needles-shared-noattention-b1024-s131072-u16-of-eight-gpus-at-once"
TTFT = "time_to_first_token/prefill_until_first_token"
RATE = "call_throughput/tokens_per_call"


@pytest.fixture
def shown(place: Place, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the command on the history; what it printed."""

    def shown(*arguments: str, status: int = 0) -> str:
        assert main(["history", place.text, *arguments]) == status
        out, err = capsys.readouterr()
        assert all(len(line) <= 100 for line in out.splitlines()), out
        return err if status else out

    return shown


def test_the_workloads(
    place: Place, make_run: Callable[..., Run], shown: Callable[..., str]
) -> None:
    """A line for each workload, engine and machine, however long the names."""
    for hour in range(3):
        store.append(place, make_run(hour, metric=TTFT))
        store.append(place, make_run(hour, metric=RATE, part="warm"))
    store.append(place, make_run(48, workload=LONG, engine="another-engine-x", machine="g" * 60))
    head, first, *rest = (line.rstrip() for line in shown().splitlines())
    assert first.split()[1:] == ["another-", "g" * 12, "1", "1", "2026-01-03"]
    assert "".join(line[:44].strip() for line in (first, *rest[:2])).startswith(LONG)
    assert head.split() == ["workload", "engine", "machine", "figures", "runs", "last", "run"]
    assert rest[-1].split() == ["w", "e", "cpu", "2", "6", "2026-01-01"]
    assert [line.split() for line in shown("--engine=e").splitlines()[1:]] == [rest[-1].split()]


def test_the_figures_of_a_workload(
    place: Place, make_run: Callable[..., Run], shown: Callable[..., str]
) -> None:
    """First, median and last in people's units; a change with what it means for that metric."""
    for hour, time in enumerate((0.010, 0.020, 0.012)):
        store.append(place, make_run(hour, time, metric=TTFT))
        store.append(place, make_run(hour, 1 / time, metric=RATE, unit="tokens/s"))
        store.append(place, make_run(hour, 5.0, metric="static_operations/x", unit="calls"))
    lines = [line.split() for line in shown("w").splitlines()]
    assert ["w", "on", "e"] in lines
    ttft = next(line for line in lines if line[0] == "TTFT")
    assert " ".join(ttft) == "TTFT 3 10 ms 12 ms 12 ms +20.0% worse"
    rate = next(line for line in lines if line[0] == "tokens/s")
    assert " ".join(rate) == "tokens/s 3 100 tok/s 83.33 tok/s 83.33 tok/s -16.7% worse"
    same = next(line for line in lines if line[0] == "static_operations/x")
    assert " ".join(same) == "static_operations/x 3 5 calls 5 calls 5 calls"


@pytest.mark.parametrize("metric", ["TTFT", "ttft", TTFT])
def test_one_figure_is_plotted(
    place: Place, make_run: Callable[..., Run], shown: Callable[..., str], metric: str
) -> None:
    """By its title or id: the last runs with their verdicts, and a plot of all."""
    for hour in range(30):
        verdict = "WORSE" if hour == 29 else "SAME"
        run = make_run(hour, 0.010 + 0.001 * hour, metric=TTFT, verdict=verdict)
        store.append(place, run)
        store.append(place, make_run(hour, 1.0, metric=RATE))
    text = shown("w", f"--metric={metric}", "--last=3")
    listed = [line.split() for line in text.splitlines() if line.startswith("2026")]
    assert listed == [
        ["2026-01-02", "03:00", "c27", "37", "ms", "SAME"],
        ["2026-01-02", "04:00", "c28", "38", "ms", "SAME"],
        ["2026-01-02", "05:00", "c29", "39", "ms", "WORSE"],
    ]
    assert any("\u2800" < letter <= "\u28ff" for letter in text)
    plotted = [line for line in text.splitlines() if "ms |" in line]
    assert len(plotted) == 13
    assert "26-01-01" in text.splitlines()[-1]
    assert "tokens/s" not in text


@pytest.mark.parametrize("values", [(1.0,), (1.0, 1.0), (0.0, 0.0, 0.0), (1e-9, 1e9), (-1.0, 2.0)])
def test_any_values_are_plotted(
    place: Place, make_run: Callable[..., Run], shown: Callable[..., str],
    values: tuple[float, ...],
) -> None:  # fmt: skip
    """One point, a constant, zeros, twenty orders of magnitude."""
    for hour, value in enumerate(values):
        store.append(place, make_run(hour, value))
    assert shown("w").splitlines()[-2].endswith("-> (run)")


def test_a_part_of_the_name_will_do(
    place: Place, make_run: Callable[..., Run], shown: Callable[..., str]
) -> None:
    """Where no other has it; else those that have it are named."""
    for name in ("llm-b1", "llm-b10", "torchao-8192"):
        store.append(place, make_run(1, workload=name))
    assert "torchao-8192 on e" in shown("819")
    assert "llm-b1 on e" in shown("llm-b1")
    assert "2 workloads have 'llm' in the name; known:\n  llm-b1\n  llm-b10\n" in shown(
        "llm", status=2
    )
    assert "no workload has 'xyz' in the name; known:\n  llm-b1\n" in shown("xyz", status=2)


def test_what_can_not_be_shown_is_an_error(
    place: Place, make_run: Callable[..., Run], shown: Callable[..., str]
) -> None:
    """Nothing there, nothing with a value, and options without effect."""
    assert "no history is there" in shown(status=2)
    store.append(place, make_run(1, None, verdict="VOID", void=True))
    assert "w: no figure with a value" in shown("w", status=2)
    assert "nothing with a value of metric 'TTFT', engine 'x'" in shown(
        "w", "--metric=TTFT", "--engine=x", status=2
    )
    assert "nothing with a value of branch 'b'" in shown("--branch=b", status=2)
    assert "--metric has no effect without a WORKLOAD" in shown("--metric=TTFT", status=2)
    for count in ("0", "-1", "many"):
        with pytest.raises(SystemExit):
            shown("w", f"--last={count}")


def test_skipped_files_are_named_beside_the_trend(
    place: Place, make_run: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    """On the error stream; the rest is shown."""
    store.append(place, make_run(1))
    name = "20260101T000000000000Z-c1-0123456789ab.parquet"
    Path(place.text, name).write_bytes(b"PAR1")
    assert main(["history", place.text, "w"]) == 0
    out, err = capsys.readouterr()
    assert "w on e" in out
    assert err.startswith(f"{place.text}: 1 file skipped:\n  {name}: damaged: ")


def test_names_can_not_steer_the_terminal(
    place: Place, make_run: Callable[..., Run], shown: Callable[..., str]
) -> None:
    """Escape sequences, newlines and marks that turn the direction of text are shown as such."""
    evil = "w\x1b[2J\n\u202eend"
    store.append(place, make_run(1, workload=evil, engine="e\x07", metric="m\x1b[31m"))
    for text in (shown(), shown(evil)):
        assert "\\x1b" in text
        assert not {"\x1b", "\x07", "\u202e"} & set(text)


def test_a_terminal_without_braille(
    place: Place, make_run: Callable[..., Run], tmp_path: Path
) -> None:
    """Prints all the same."""
    for hour in range(3):
        store.append(place, make_run(hour))
    done = subprocess.run(
        [sys.executable, "-m", "perfsuite", "history", place.text, "w"],
        cwd=tmp_path, env={"PYTHONIOENCODING": "ascii"},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "w on e" in done.stdout
