"""What a run says of its load, as options and parts of the id."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from perfsuite.errors import OptionError
from perfsuite.serving.arrivals import ClosedLoop, Schedule, spec, specified
from perfsuite.serving.choices import Choices, choices
from perfsuite.workloads import Workload

Make = Callable[..., Workload]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A dataset, a tokenizer and a trace; what is in them is not read here."""
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "My Chats.json").write_text("[]")
    (tmp_path / "day.txt").write_text("# seconds\n0\n\n0.5  # a pause\n2\n")
    return tmp_path


def asked(make_workload: Make, chosen: Choices) -> Workload:
    return chosen.of(make_workload(id="js-serving-b4", kind="serving", options=(("a", "b"),)))


def test_nothing_said_changes_nothing(make_workload: Make, tmp_path: Path) -> None:
    workload = asked(make_workload, choices({}, tmp_path))
    assert (workload.id, workload.options) == ("js-serving-b4", (("a", "b"),))


def test_another_load_has_another_id(make_workload: Make, files: Path) -> None:
    """So that it is never compared with the load of a baseline; a batch is not asked at all."""
    chosen = choices({"arrivals": "poisson:5.0"}, files)
    assert asked(make_workload, chosen).id == "js-serving-b4-poisson_5"
    assert asked(make_workload, chosen).option("arrivals") == "poisson:5"
    assert asked(make_workload, chosen).option("a") == "b"
    assert chosen.of(make_workload(id="llm")).id == "llm"
    assert asked(make_workload, choices({"arrivals": "at-once"}, files)).id == "js-serving-b4"


def test_a_file_counts_by_what_it_holds(make_workload: Make, files: Path) -> None:
    """Elsewhere it is the same load, with another row it is another."""
    command = {"dataset": "My Chats.json", "tokenizer": ".", "arrivals": "trace:day.txt"}
    first = asked(make_workload, choices(command, files))
    assert first.id.startswith("js-serving-b4-my_chats.")
    assert "-trace." in first.id
    assert first.option("dataset_file") == str(files / "My Chats.json")
    assert first.option("tokenizer") == str(files)
    moved = files / "elsewhere"
    moved.mkdir()
    for name in ("My Chats.json", "day.txt", "tokenizer.json"):
        (moved / name).write_bytes((files / name).read_bytes())
    assert asked(make_workload, choices(command, moved)).id == first.id
    (moved / "My Chats.json").write_text("[1]")
    assert asked(make_workload, choices(command, moved)).id != first.id


def test_another_tokenizer_is_another_load(make_workload: Make, files: Path) -> None:
    """It counts other lengths and sends other ids."""
    command = {"dataset": "My Chats.json", "tokenizer": "."}
    first = asked(make_workload, choices(command, files))
    (files / "tokenizer.json").write_text('{"other": 1}')
    assert asked(make_workload, choices(command, files)).id != first.id


def test_different_numbers_are_different_loads(make_workload: Make, files: Path) -> None:
    """However many digits they have; in one spelling each."""
    ids = {
        asked(make_workload, choices({"arrivals": spec}, files)).id
        for spec in ("poisson:1e6", "poisson:1e-6", "poisson:1.0000001", "poisson:1")
    }
    assert len(ids) == 4
    assert choices({"arrivals": "poisson:1e6"}, files).options["arrivals"] == "poisson:1000000"
    assert choices({"arrivals": "poisson:1e3"}, files).options == (
        choices({"arrivals": "poisson:1000.0"}, files).options
    )


def test_the_load_stays_where_a_test_gives_options(make_workload: Make, files: Path) -> None:
    """Its id names that load; another one under it would be compared with the wrong baseline."""
    chosen = choices({"arrivals": "poisson:5"}, files)
    smaller = asked(make_workload, chosen).sized(options=(("num_prompts", "8"),))
    assert smaller.options == (("arrivals", "poisson:5"), ("num_prompts", "8"))
    plain = make_workload(kind="serving").sized(options=(("num_prompts", "8"),))
    assert plain.options == (("num_prompts", "8"),)


def test_a_load_can_be_asked_again(files: Path) -> None:
    """In words for a command line; what changes nothing about the work is not among them."""
    command = {"dataset": "My Chats.json", "tokenizer": ".", "arrivals": "users:4", "clients": "2"}
    chosen = choices(command, files)
    assert chosen.words == [
        f"--perf-dataset={files / 'My Chats.json'}", f"--perf-tokenizer={files}",
        "--perf-arrivals=users:4",
    ]  # fmt: skip
    assert choices({"clients": "2"}, files).words == []


TOO_LONG = "x" * 5000


@pytest.mark.parametrize(
    "command",
    [
        {"dataset": TOO_LONG, "tokenizer": "."},
        {"dataset": "My Chats.json", "tokenizer": TOO_LONG},
        {"requests": TOO_LONG},
        {"arrivals": f"trace:{TOO_LONG}"},
    ],
)
def test_a_path_that_can_not_be_looked_up_is_refused(files: Path, command: dict[str, str]) -> None:
    with pytest.raises(OptionError, match="File name too long"):
        choices(command, files)


def test_what_does_not_change_the_work_is_no_part_of_the_id(
    make_workload: Make, tmp_path: Path
) -> None:
    found = asked(make_workload, choices({"requests": "out", "clients": "3"}, tmp_path))
    assert found.id == "js-serving-b4"
    assert found.option("requests_folder") == str(tmp_path / "out")
    assert found.option("clients") == "3"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ({"dataset": "no.json", "tokenizer": "."}, "--perf-dataset 'no.json': no such file"),
        ({"dataset": "My Chats.json"}, "--perf-dataset needs --perf-tokenizer=DIR"),
        ({"dataset": "My Chats.json", "tokenizer": "x"}, "--perf-tokenizer 'x': no tokenizer.json"),
        ({"tokenizer": "."}, "--perf-tokenizer has no effect without --perf-dataset"),
        ({"requests": "day.txt"}, "--perf-requests 'day.txt' is a file"),
        ({"clients": "0"}, "--perf-clients '0': expected a whole number from 1 to 64"),
        ({"clients": "many"}, "--perf-clients 'many': expected a whole number"),
        ({"arrivals": "poisson"}, "--perf-arrivals 'poisson': expected at-once, poisson:RATE"),
        ({"arrivals": "poisson:fast"}, "--perf-arrivals 'poisson:fast': expected at-once"),
        ({"arrivals": "gamma:5"}, "--perf-arrivals 'gamma:5': expected"),
        ({"arrivals": "bursts:5"}, "--perf-arrivals 'bursts:5': expected"),
        ({"arrivals": "at-once:5"}, "--perf-arrivals 'at-once:5': expected"),
        ({"arrivals": "trace:"}, "--perf-arrivals 'trace:': expected"),
        ({"arrivals": "poisson:-1"}, "a rate of -1 requests/s"),
        ({"arrivals": "constant:inf"}, "a rate of inf requests/s"),
        ({"arrivals": "users:0"}, "a closed loop of 0 users"),
        ({"arrivals": "users:1e9"}, "a closed loop of 1000000000 users: expected 1 to 100,000"),
        ({"arrivals": "poisson:1e9"}, "a rate of 1e+09 requests/s: expected a number above 0"),
        ({"arrivals": "users:1.5"}, "expected a whole number of users"),
        ({"arrivals": "users:inf"}, "expected a whole number of users"),
        ({"arrivals": "trace:none.txt"}, "can not be read"),
    ],
)
def test_what_can_not_be_meant_is_refused(files: Path, command: dict[str, str], said: str) -> None:
    with pytest.raises(OptionError) as refused:
        choices(command, files)
    assert said in str(refused.value)


def test_each_specification_is_its_arrivals(files: Path) -> None:
    assert specified("at-once", 3, seed=1) == Schedule("all at once", (0.0, 0.0, 0.0))
    assert specified("constant:4", 3, seed=1).times_s == (0.0, 0.25, 0.5)  # type: ignore[union-attr]
    assert specified("users:8", 3, seed=1) == ClosedLoop(8)
    assert specified(spec("trace:day.txt", files), 3, seed=1) == Schedule("trace", (0.0, 0.5, 2.0))
    assert specified("gamma:5:0.5", 3, seed=1).name == "gamma, 5 requests/s, shape 0.5"
    assert specified("poisson:5", 3, seed=1) == specified("poisson:5", 3, seed=1)
    assert specified("poisson:5", 3, seed=1) != specified("poisson:5", 3, seed=2)


def test_a_trace_that_is_no_list_of_moments_names_its_line(files: Path) -> None:
    (files / "day.txt").write_text("0\n0.5\nlater\n")
    with pytest.raises(OptionError, match="line 3: 'later'; expected a moment in seconds"):
        spec("trace:day.txt", files)
    (files / "day.txt").write_text("0\n2\n1\n")
    with pytest.raises(OptionError, match="goes from 2 s to 1 s at arrival 3"):
        spec("trace:day.txt", files)
    (files / "day.txt").write_text("# nothing\n")
    with pytest.raises(OptionError, match="is empty"):
        spec("trace:day.txt", files)
