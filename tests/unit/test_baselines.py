"""The baseline files: round trips, all that can be wrong with one, and how they are saved."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import perfsuite
from perfsuite import baselines
from perfsuite.accepted import Best
from perfsuite.baselines import Baselines, Key, check_writable, dump, file_name, read, save
from perfsuite.errors import BaselineError

MACHINE, SUITE = "cpu-model-2x-x86_64", "tests/test_a.py"
TTFT = "time_to_first_token/prefill_until_first_token"
OPERATORS = "static_operators/dispatched"
KEY = Key("test_a")
KILLS = 40


@pytest.fixture(autouse=True)
def own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lock files below the test's own folder."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def entry(values: list[float], figure: str = TTFT, **changes: Any) -> dict[str, Any]:
    """An entry of one figure as it stands in a file."""
    head = {"test": SUITE, "date": "2026-01-31", "commit": "abc", "toolchain": "python 3.11.7"}
    figures = {figure: {"unit": "s", "processes": values}}
    return {**head, "config": {"dtype": "float32"}, "figures": figures, **changes}


def saved(folder: Path, values: list[float], mode: str = "all", **changes: Any) -> Path:
    """The file after one entry was saved under the usual key."""
    return save(folder, MACHINE, SUITE, {KEY.text: entry(values, **changes)}, mode)[0]


def found(folder: Path, key: Key = KEY) -> Any:
    """What stands under a key, the folder read afresh."""
    return Baselines([folder]).find(MACHINE, SUITE, key)


def test_what_was_saved_is_found_again(tmp_path: Path) -> None:
    """Every field of an entry survives, and the file it came from is named."""
    path = saved(tmp_path, [0.01, 0.011])
    back = found(tmp_path)
    assert back.figures == {TTFT: [0.01, 0.011]}
    assert (back.file, back.test, back.date) == (path, SUITE, "2026-01-31")
    assert (back.commit, back.toolchain) == ("abc", "python 3.11.7")
    assert back.config == {"dtype": "float32"}
    assert path == tmp_path / MACHINE / "tests.test_a.json"


def test_a_key_leaves_out_what_it_has_not() -> None:
    """A test of one's own has a name and a tier, a document's cell four parts."""
    assert Key("test_a").text == "test_a | measured"
    assert Key("llm-x", "torch_llama", "smoke", "static").text == (
        "llm-x | torch_llama | smoke | static"
    )


def test_without_a_file_there_is_no_entry(tmp_path: Path) -> None:
    """A missing file is an empty one."""
    assert found(tmp_path) is None
    assert read(tmp_path / "none.json") == {}


def test_a_dump_is_short(tmp_path: Path) -> None:
    """Five digits, whole numbers whole, the numbers of a list on one line, keys sorted."""
    path = saved(tmp_path, [0.012345678, 123456789, 1.0], config={"b": 1, "a": [1, 2]})
    text = path.read_text()
    assert '"processes": [0.012346, 123456789, 1.0]' in text
    assert '"a": [1, 2]' in text
    assert text.index('"a"') < text.index('"b"')
    assert text.endswith("}\n")


def test_a_dump_leaves_texts_alone() -> None:
    """Brackets and blanks inside a name are part of it."""
    document = {"test[ a,  b ]": ["x [ 1,  2 ]", [1, 2]], "[\n 3\n]": [3]}
    assert json.loads(dump(document)) == document


def test_a_dump_read_back_is_the_same_dump() -> None:
    """A file that is rewritten without change has no difference in git."""
    source = random.Random(1)
    values = [source.uniform(-1, 1) * 10 ** source.randint(-12, 12) for _ in range(500)]
    text = dump({"entries": {f"k{i}": {"v": [v, i]} for i, v in enumerate(values)}})
    assert dump(json.loads(text)) == text
    back = [json.loads(text)["entries"][f"k{i}"]["v"][0] for i in range(500)]
    assert back == pytest.approx(values, rel=5e-5)


def test_a_configuration_without_end_can_be_read_back(tmp_path: Path) -> None:
    """An infinite or undefined value of an engine's configuration must not break the file."""
    saved(tmp_path, [1.0], config={"limit": float("inf"), "scale": float("nan")})
    assert found(tmp_path).config == {"limit": "inf", "scale": "nan"}


# --- broken files ---


def valid() -> str:
    """The text of a good file, of the time before entries had a history."""
    head = {"format": 1, "machine": MACHINE, "suite": SUITE}
    return dump({**head, "entries": {KEY.text: entry([0.01])}})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: "", ["line 1"]),
        (lambda text: text[: len(text) // 2], ["line"]),
        (lambda text: "<<<<<<< HEAD\n" + text, ["line 1"]),
        (lambda text: text.replace('"date": "2026-01-31",', '"date": "2026-01-31"'), ["line 9"]),
        (lambda text: text.replace("0.01", "NaN"), ["NaN", "line 10"]),
        (lambda text: text.replace("0.01", "Infinity"), ["Infinity", "line 10"]),
        (lambda text: text.replace("0.01", "-Infinity"), ["-Infinity", "line 10"]),
        (lambda text: text.replace("abc", "NaN").replace("0.01", "NaN"), ["line 10"]),
        (lambda text: text.replace("0.01", "1e999"), [KEY.text, TTFT, "inf"]),
        (lambda text: text.replace("0.01", "1" + "0" * 400), [KEY.text, "Overflow"]),
        (lambda text: text.replace("0.01", "1" * 5000), ["digits"]),
        (lambda text: text.replace("0.01", "0"), [TTFT, "above zero"]),
        (lambda text: text.replace("0.01", "-1"), [TTFT, "above zero"]),
        (lambda text: text.replace("0.01", "true"), [TTFT, "True"]),
        (lambda text: text.replace("0.01", '"x"'), [TTFT, "x"]),
        (lambda text: text.replace("0.01", "null"), [TTFT, "None"]),
        (lambda text: text.replace("[0.01]", "[]"), [TTFT, "expected numbers"]),
        (lambda text: text.replace("[0.01]", "0.01"), [KEY.text]),
        (lambda text: text.replace("processes", "process"), [KEY.text, "processes"]),
        (lambda text: text.replace("figures", "figure"), [KEY.text, "figures", "line 3"]),
        (lambda text: text.replace('"2026-01-31"', "20260131"), [KEY.text, "date"]),
        (lambda text: text.replace('"abc"', "null"), [KEY.text, "commit"]),
        (lambda text: text.replace('{\n    "dtype": "float32"\n   }', "[]"), ["config"]),
        (lambda text: text.replace("entries", "entry"), ['"entries"']),
        (lambda text: '{"format": 1, "entries": []}', ['"entries"']),
        (lambda text: '{"format": 1, "entries": {"a": 1}}', ["'a'"]),
        (lambda text: '{"format": 1, "entries": {"a": {"figures": []}}}', ["'a'"]),
        (lambda text: text.replace('"format": 1', '"format": "1"'), ['"format"']),
        (lambda text: text.replace('"format": 1', '"format": 0'), ['"format"']),
        (lambda text: text.replace('"format": 1', '"format": true'), ['"format"']),
        (lambda text: "[]", ['"format"']),
        (lambda text: "[" * 100_000, []),
    ],
)
def test_a_broken_file_is_an_error_that_names_it_and_stays(
    tmp_path: Path, change: Callable[[str], str], words: list[str]
) -> None:
    """File, place and remedy; neither reading nor saving touches it."""
    path = saved(tmp_path, [0.01])
    broken = change(valid())
    assert broken != valid()
    path.write_text(broken)
    for attempt in (lambda: found(tmp_path), lambda: saved(tmp_path, [0.02])):
        with pytest.raises(BaselineError) as refused:
            attempt()
        text, expected = str(refused.value), [str(path), "git checkout", "--perf-save", *words]
        assert [word for word in expected if word not in text] == []
        assert path.read_text() == broken


def test_a_file_that_is_no_text_is_broken(tmp_path: Path) -> None:
    """Bytes that are no UTF-8, and a folder in the file's place."""
    path = saved(tmp_path, [0.01])
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(BaselineError, match="cannot read this baseline"):
        found(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(BaselineError, match="cannot read this baseline"):
        found(tmp_path)


def test_a_newer_format_is_not_guessed_at(tmp_path: Path) -> None:
    """The remedy is an update; the file stays."""
    path = saved(tmp_path, [0.01])
    newer = valid().replace('"format": 1', '"format": 2')
    path.write_text(newer)
    with pytest.raises(BaselineError, match=r"format 2 is newer .*update perfsuite"):
        saved(tmp_path, [0.02])
    assert path.read_text() == newer


def test_only_a_count_may_be_zero(tmp_path: Path) -> None:
    """A program may have no operators; it never took no time."""
    saved(tmp_path, [0], figure=OPERATORS)
    assert found(tmp_path).figures == {OPERATORS: [0]}


def test_figures_of_an_unknown_definition_are_kept(tmp_path: Path) -> None:
    """A file of a newer or older perfsuite loses nothing by being saved to."""
    saved(tmp_path, [-5.0], figure="time_to_first_token/redefined")
    saved(tmp_path, [0.01])
    assert found(tmp_path).figures == {"time_to_first_token/redefined": [-5.0], TTFT: [0.01]}


# --- history ---


def save_at(folder: Path, value: float, day: int, mode: str = "all", **changes: Any) -> Path:
    """The file after a save of that day of January."""
    date, commit = f"2026-01-{day:02}", f"c{day}"
    return saved(folder, [value], mode=mode, date=date, commit=commit, **changes)


def test_a_review_reads_a_save_and_a_best_on_a_line(tmp_path: Path) -> None:
    """The whole text of an entry that was saved twice, of two sessions at last."""
    save_at(tmp_path, 0.01, 1)
    entry_of_two = entry([0.0101, 0.0102, 0.0103], date="2026-01-02", commit="c2")
    entry_of_two["figures"][TTFT]["sessions"] = [1, 2]
    path, _ = save(tmp_path, MACHINE, SUITE, {KEY.text: entry_of_two}, "all")
    assert path.read_text().splitlines()[2:-5] == [
        '  "test_a | measured": {',
        '   "best": {',
        f'    "{TTFT}": {{"commit": "c1", "date": "2026-01-01", "value": 0.01}}',
        "   },",
        '   "commit": "c2",',
        '   "config": {',
        '    "dtype": "float32"',
        "   },",
        '   "date": "2026-01-02",',
        '   "figures": {',
        f'    "{TTFT}": {{"processes": [0.0101, 0.0102, 0.0103], "sessions": [1, 2], "unit": "s"}}',
        "   },",
        '   "history": [',
        f'    {{"commit": "c1", "date": "2026-01-01", "figures": {{"{TTFT}": 0.01}}}},',
        f'    {{"commit": "c2", "date": "2026-01-02", "figures": {{"{TTFT}": 0.0102}}}}',
        "   ],",
        '   "test": "tests/test_a.py",',
        '   "toolchain": "python 3.11.7"',
        "  }",
    ]


def test_each_save_goes_on_the_history(tmp_path: Path) -> None:
    """Levels and dates, oldest first; the level is the middle of the processes."""
    for day, value in enumerate([0.01, 0.012, 0.011], start=1):
        save_at(tmp_path, value, day)
    saved(tmp_path, [0.02, 0.01, 0.09], date="2026-01-04")
    back = found(tmp_path)
    assert back.levels(TTFT) == [0.01, 0.012, 0.011, 0.02]
    assert back.saves == ["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"]
    assert back.best == {TTFT: Best(0.01, "2026-01-01", "c1")}
    assert back.levels("peak_memory/allocator") == []


def test_the_history_is_short_and_the_best_is_never_lost(tmp_path: Path) -> None:
    """Thirty saves, the second of which was the best: twenty are kept, and that one."""
    values = [0.011, 0.01, *(0.012 + 0.001 * i for i in range(28))]
    for day, value in enumerate(values, start=1):
        save_at(tmp_path, value, day)
    back = found(tmp_path)
    assert back.levels(TTFT) == pytest.approx(values[-20:])
    assert back.best == {TTFT: Best(0.01, "2026-01-02", "c2")}


def test_the_best_throughput_is_the_largest(tmp_path: Path) -> None:
    """An equal one later is none; what is never judged and an unknown definition have no best."""
    decode = "decode_throughput/decode_steps"
    for day, value in enumerate([90.0, 100.0, 100.0, 95.0], start=1):
        for figure in (decode, "resident_memory/process_peak", "decode_throughput/redefined"):
            save_at(tmp_path, value, day, figure=figure)
    assert found(tmp_path).best == {decode: Best(100.0, "2026-01-02", "c2")}


def test_saving_new_starts_a_history_and_leaves_that_of_others(tmp_path: Path) -> None:
    """A figure that an entry has not yet gets a save of its own; the old ones are not saved."""
    save_at(tmp_path, 0.01, 1, mode="new")
    both = entry([0.9], date="2026-01-02", commit="c2")
    both["figures"][OPERATORS] = {"unit": "calls", "processes": [3]}
    save(tmp_path, MACHINE, SUITE, {KEY.text: both}, "new")
    back = found(tmp_path)
    assert back.levels(TTFT) == [0.01]
    assert back.levels(OPERATORS) == [3]
    assert back.saves == ["2026-01-01", "2026-01-02"]
    assert back.best[OPERATORS] == Best(3, "2026-01-02", "c2")


def test_a_file_without_a_history_is_its_first_save(tmp_path: Path) -> None:
    """Read as before, with one level; the next save keeps it, as the best too."""
    path = saved(tmp_path, [0.01])
    path.write_text(valid())
    back = found(tmp_path)
    assert (back.levels(TTFT), back.saves) == ([0.01], ["2026-01-31"])
    assert (back.best, back.sessions) == ({}, {TTFT: [1]})
    save_at(tmp_path, 0.02, 1)
    assert found(tmp_path).levels(TTFT) == [0.01, 0.02]
    assert found(tmp_path).best == {TTFT: Best(0.01, "2026-01-31", "abc")}


def test_a_best_that_was_removed_starts_at_the_present_level(tmp_path: Path) -> None:
    """The way to accept an intended loss: a review sees the line go."""
    save_at(tmp_path, 0.01, 1)
    path = save_at(tmp_path, 0.02, 2)
    document = json.loads(path.read_text())
    del document["entries"][KEY.text]["best"]
    path.write_text(dump(document))
    assert found(tmp_path).best == {}
    save_at(tmp_path, 0.03, 3)
    assert found(tmp_path).best == {TTFT: Best(0.02, "2026-01-02", "c2")}


def test_a_save_of_the_same_level_is_no_new_best(tmp_path: Path) -> None:
    """The file's five digits must not make equal levels differ."""
    save_at(tmp_path, 0.0123458, 1)
    save_at(tmp_path, 0.0123458, 2)
    assert found(tmp_path).best[TTFT].date == "2026-01-01"


def test_processes_belong_to_sessions(tmp_path: Path) -> None:
    """As many as were written; one session where nothing is."""
    sessions = entry([0.01] * 10)
    sessions["figures"][TTFT]["sessions"] = [5, 5]
    sessions["figures"][OPERATORS] = {"unit": "calls", "processes": [3]}
    save(tmp_path, MACHINE, SUITE, {KEY.text: sessions}, "all")
    assert found(tmp_path).sessions == {TTFT: [5, 5], OPERATORS: [1]}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("history", {}, ["history"]),
        ("history", [1], []),
        ("history", [{"date": "2026-01-31", "commit": "abc"}], ["figures"]),
        ("history", [{"date": 1, "figures": {}}], ["date"]),
        ("history", [{"commit": None, "figures": {}}], ["commit"]),
        ("history", [{"figures": {TTFT: 0}}], [TTFT, "above zero"]),
        ("history", [{"figures": {TTFT: [0.1]}}], [TTFT, "expected numbers"]),
        ("history", [{"figures": []}], []),
        ("best", [], ["best"]),
        ("best", {TTFT: 0.1}, []),
        ("best", {TTFT: {"date": "", "commit": ""}}, ["value"]),
        ("best", {TTFT: {"value": True}}, [TTFT, "True"]),
        ("best", {TTFT: {"value": 0.1, "date": 5}}, ["date"]),
        ("sessions", [2, 2], [TTFT, "[2, 2]", "3 processes"]),
        ("sessions", [0, 3], [TTFT]),
        ("sessions", [-1, 4], [TTFT]),
        ("sessions", [1.0, 2], [TTFT]),
        ("sessions", [True, 2], [TTFT]),
        ("sessions", [], [TTFT]),
        ("sessions", 3, []),
    ],
)
def test_a_malformed_history_is_an_error_like_any_other(
    tmp_path: Path, name: str, value: object, words: list[str]
) -> None:
    """File, line of the entry and remedy; the file stays."""
    path = saved(tmp_path, [0.01, 0.02, 0.03])
    document = json.loads(path.read_text())
    stored = document["entries"][KEY.text]
    (stored["figures"][TTFT] if name == "sessions" else stored)[name] = value
    path.write_text(broken := dump(document))
    for attempt in (lambda: found(tmp_path), lambda: saved(tmp_path, [0.02])):
        with pytest.raises(BaselineError) as refused:
            attempt()
        text, expected = str(refused.value), [f"{path}, line 3", KEY.text, "git checkout", *words]
        assert [word for word in expected if word not in text] == []
        assert path.read_text() == broken


# --- names ---


@pytest.mark.parametrize(
    ("suite", "name"),
    [
        ("jetstream", "jetstream.json"),
        ("tests/perf/test_a.py", "tests.perf.test_a.json"),
    ],
)
def test_a_plain_suite_keeps_its_name(suite: str, name: str) -> None:
    """So that a reader finds the file."""
    assert file_name(suite) == name


STRANGE = [
    "tests/a.b.py", "tests/a/b.py", "tests/A/b.py", "../../etc/passwd.py", "..", ".", "", "/abs.py",
    "a/../b.py", "tests/tëst_ä.py", "tests/日本.py", "tests/月本.py", "a b.py", "a-b.py",
    "a--b.py",
    "x" * 300 + ".py", "x" * 301 + ".py", "tests\\test_a.py", "cpu.py", "a@b.py", "a@c.py",
    "a\n.py",
    "con:aux?.py", "*.py",
]  # fmt: skip


def test_strange_suites_have_files_of_their_own() -> None:
    """Slashes, dots, other alphabets and very long names: no two share a file."""
    names = [file_name(suite) for suite in STRANGE]
    assert len(set(names)) == len(names)
    assert max(len(name.encode()) for name in names) <= 100


@pytest.mark.parametrize("suite", STRANGE)
def test_a_strange_suite_stays_in_its_folder(tmp_path: Path, suite: str) -> None:
    """Whatever it is called, its file is in the machine's folder and is found again."""
    path, _ = save(tmp_path, MACHINE, suite, {KEY.text: entry([0.5])}, "all")
    assert path.resolve().parent == (tmp_path / MACHINE).resolve()
    back = Baselines([tmp_path]).find(MACHINE, suite, KEY)
    assert back is not None
    assert back.figures == {TTFT: [0.5]}


@pytest.mark.parametrize("name", ["test_x[ a | b ]", 'test_x["]', "test_x[\\]", "test_ü[日]"])
def test_a_strange_test_is_found_again(tmp_path: Path, name: str) -> None:
    """A key with brackets, quotes, bars and other alphabets."""
    save(tmp_path, MACHINE, SUITE, {Key(name).text: entry([0.5])}, "all")
    assert found(tmp_path, Key(name)).figures == {TTFT: [0.5]}


# --- folders ---


def test_the_first_folder_that_has_a_key_decides(tmp_path: Path) -> None:
    """An overlay over a shared folder; what it has not comes from below."""
    over, under = tmp_path / "over", tmp_path / "under"
    other = Key("test_b").text
    saved(over, [0.1])
    save(under, MACHINE, SUITE, {KEY.text: entry([0.2]), other: entry([0.3])}, "all")
    both = Baselines([over, under])
    first = both.find(MACHINE, SUITE, KEY)
    second = both.find(MACHINE, SUITE, Key("test_b"))
    assert first is not None
    assert second is not None
    assert first.figures == {TTFT: [0.1]}
    assert second.figures == {TTFT: [0.3]}
    listed = {text: e.figures[TTFT] for text, e in both.entries(MACHINE)}
    assert listed == {KEY.text: [0.1], other: [0.3]}


def test_other_machine_classes_that_have_a_key_are_named_once(tmp_path: Path) -> None:
    """Also where two folders have it; one's own class and the documents' figures are none."""
    for folder in (tmp_path / "a", tmp_path / "b"):
        for machine in ("gpu-1", "gpu-2", MACHINE):
            save(folder, machine, "jetstream", {KEY.text: entry([0.2])}, "all")
    (tmp_path / "a/published").mkdir()
    (tmp_path / "a/published/jetstream.json").write_text('{"document": "jetstream"}')
    both = Baselines([tmp_path / "a", tmp_path / "b"])
    assert both.elsewhere(MACHINE, "jetstream", KEY) == ["gpu-1", "gpu-2"]
    assert both.elsewhere(MACHINE, "jetstream", Key("test_b")) == []


def test_a_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking up ten thousand keys, missing ones included, opens one file one time."""
    many = {Key(f"test_{i}").text: entry([0.1]) for i in range(10_000)}
    path, _ = save(tmp_path, MACHINE, SUITE, many, "all")
    opened: list[Path] = []

    def counted(file: Path) -> Any:
        opened.append(file)
        return read(file)

    monkeypatch.setattr(baselines, "read", counted)
    stored = Baselines([tmp_path])
    hits = [stored.find(MACHINE, SUITE, Key(f"test_{i}")) for i in range(10_500)]
    assert sum(hit is not None for hit in hits) == 10_000
    assert stored.elsewhere(MACHINE, SUITE, KEY) == []
    assert opened == [path]


# --- saving ---


def test_saving_all_replaces_what_was_measured_and_deletes_nothing(tmp_path: Path) -> None:
    """Other keys and other figures of the same key stay."""
    saved(tmp_path, [0.1])
    save(tmp_path, MACHINE, SUITE, {"b": entry([0.3]), KEY.text: entry([7], OPERATORS)}, "all")
    path, changed = save(tmp_path, MACHINE, SUITE, {KEY.text: entry([0.2], commit="new")}, "all")
    entries = read(path)
    assert changed == [KEY.text]
    assert entries[KEY.text].figures == {TTFT: [0.2], OPERATORS: [7]}
    assert entries[KEY.text].commit == "new"
    assert entries["b"].figures == {TTFT: [0.3]}


def test_saving_new_adds_only_what_is_missing(tmp_path: Path) -> None:
    """Neither figure nor date of what was there changes; an unchanged file is not written."""
    path = saved(tmp_path, [0.1])
    before = path.read_text()
    assert save(tmp_path, MACHINE, SUITE, {KEY.text: entry([0.9])}, "new") == (path, [])
    assert path.read_text() == before
    both = entry([0.9], date="later")
    both["figures"][OPERATORS] = {"unit": "calls", "processes": [3]}
    _, changed = save(tmp_path, MACHINE, SUITE, {KEY.text: both, "b": entry([0.3])}, "new")
    assert changed == [KEY.text, "b"]
    assert found(tmp_path).figures == {TTFT: [0.1], OPERATORS: [3]}
    assert found(tmp_path).date == "2026-01-31"


def test_a_read_only_file_is_not_replaced(tmp_path: Path) -> None:
    """Write protection is meant, also where the user could replace the file (as root)."""
    path = saved(tmp_path, [0.1])
    path.chmod(0o444)
    with pytest.raises(BaselineError, match="read-only"):
        saved(tmp_path, [0.2])
    assert found(tmp_path).figures == {TTFT: [0.1]}
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """The message says why; nothing half-written stays behind."""
    path = saved(tmp_path, [0.1])

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(BaselineError, match=r"No space left.*unchanged"):
            saved(tmp_path, [0.2])
    assert found(tmp_path).figures == {TTFT: [0.1]}
    assert os.listdir(path.parent) == [path.name]


def test_a_folder_that_cannot_be_written_is_known_before_measuring(tmp_path: Path) -> None:
    """A file in the folder's place; a folder that can be written is made and left empty."""
    check_writable(tmp_path / "new/deep")
    assert os.listdir(tmp_path / "new/deep") == []
    (tmp_path / "file").write_text("")
    with pytest.raises(BaselineError, match="Nothing was measured"):
        check_writable(tmp_path / "file/below")
    with pytest.raises(BaselineError, match="cannot be made"):
        saved(tmp_path / "file", [0.1])


def test_the_next_save_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    """Only the temporary files of this very baseline, which no reader takes for one."""
    path = saved(tmp_path, [0.1])
    path.with_name(f".{path.name}.4242.tmp").write_text("{")
    path.with_name(".other.json.4242.tmp").write_text("{")
    assert [text for text, _ in Baselines([tmp_path]).entries(MACHINE)] == [KEY.text]
    saved(tmp_path, [0.2])
    assert sorted(os.listdir(path.parent)) == [".other.json.4242.tmp", path.name]


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    """A fresh interpreter that can import this perfsuite."""
    root = str(Path(perfsuite.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


ENTRY = (
    'def entry(v): return {"figures": {"call_time/per_call": {"unit": "s", "processes": [v]}}}\n'
)


def test_two_processes_that_save_at_once_keep_both(tmp_path: Path) -> None:
    """Sixty interleaved saves of different keys into one file: none is lost."""
    code = (
        "import sys; from pathlib import Path; from perfsuite.baselines import save\n" + ENTRY +
        "for i in range(30):\n"
        f"    save(Path(sys.argv[1]), {MACHINE!r}, {SUITE!r},"
        " {f'{sys.argv[2]}{i}': entry(i + 1)}, 'all')\n"
    )  # fmt: skip
    processes = [python(code, str(tmp_path), name) for name in ("a", "b")]
    assert [process.communicate()[0] for process in processes] == ["", ""]
    assert [process.returncode for process in processes] == [0, 0]
    path = tmp_path / MACHINE / file_name(SUITE)
    assert set(read(path)) == {f"{name}{i}" for name in "ab" for i in range(30)}
    assert os.listdir(path.parent) == [path.name]


def test_a_kill_at_any_moment_leaves_the_old_or_the_new_file(tmp_path: Path) -> None:
    """Forty saving processes are killed: each file is whole, leftovers go with the next save."""
    code = (
        "import sys; from pathlib import Path; from perfsuite.baselines import save\n" + ENTRY +
        "print('ready', flush=True)\n"
        "for n in range(1, 100000):\n"
        f"    save(Path(sys.argv[1]), {MACHINE!r}, {SUITE!r},"
        " {f'k{i}': entry(n) for i in range(60)}, 'all')\n"
    )  # fmt: skip
    path = tmp_path / MACHINE / file_name(SUITE)
    source, seen = random.Random(1), 0
    for _ in range(KILLS):
        process = python(code, str(tmp_path))
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(source.uniform(0, 0.05))
        process.kill()
        process.communicate()
        entries = read(path)
        values = {value for e in entries.values() for value in e.figures["call_time/per_call"]}
        assert (len(entries), len(values)) in {(0, 0), (60, 1)}
        seen += len(values)
    assert seen > KILLS // 2
    saved(tmp_path, [0.1])
    assert os.listdir(path.parent) == [path.name]
    assert len(read(path)) == 61
