"""Waivers: what can be written, which tests and figures they are for, and their last day."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from perfsuite.errors import OptionError
from perfsuite.judging import void
from perfsuite.results import Result, Row
from perfsuite.verdict import Verdict
from perfsuite.waivers import FILE, Waiver, idle, of_gone, of_marker, read_all, waived

LAST = date(2026, 12, 31)
AFTER = date(2027, 1, 1)
TTFT = "time_to_first_token/prefill_until_first_token"
MEMORY = "peak_memory/allocator"

GOOD = """
[[waiver]]
test = "llm-*"
metric = "ttft"
engine = "torch_llama"
reason = "slower until the kernel lands"
owner = "ana"
until = 2026-12-31

[[waiver]]
test = "tests/test_a.py::test_a[1]"
reason = "known"
owner = "bo"
until = "2026-01-31"
"""


def written(folder: Path, text: str) -> list[Waiver]:
    """The waivers of a folder with that file."""
    folder.mkdir(exist_ok=True)
    (folder / FILE).write_text(text)
    return read_all([folder])


def waiver(**changes: Any) -> Waiver:
    """A waiver for everything; any field may be given."""
    fields = {"reason": "known", "owner": "ana", "until": LAST, "test": "*", "file": "w.toml"}
    return Waiver(**{**fields, **changes})


# --- what can be written ---


def test_a_file_of_waivers(tmp_path: Path) -> None:
    """Every field is taken, days as TOML's own and as text; the file is named."""
    first, second = written(tmp_path, GOOD)
    assert (first.test, first.engine, first.metrics) == ("llm-*", "torch_llama", {TTFT})
    assert first.text == "waived until 2026-12-31 by ana: slower until the kernel lands"
    assert (second.until, second.file) == (date(2026, 1, 31), str(tmp_path / FILE))
    assert {TTFT, MEMORY} < second.metrics


def test_a_folder_without_a_file_has_none(tmp_path: Path) -> None:
    """Nor has an empty file; the waivers of several folders are taken together."""
    assert read_all([tmp_path / "none"]) == []
    assert written(tmp_path / "empty", "# nothing\n") == []
    written(tmp_path / "a", GOOD)
    written(tmp_path / "b", GOOD.replace("llm-*", "b").replace("test_a[1]", "b"))
    folders = [tmp_path / name for name in ("a", "none", "b", "a")]
    assert [w.test for w in read_all(folders)][::2] == ["llm-*", "b"]
    assert len(read_all(folders)) == 4


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[[waiver]]", "[[waiver", ["cannot read", "line 1"]),
        ("[[waiver]]\ntest = \"llm-*\"", "x = 1\n[[waiver]]\ntest = \"llm-*\"", ["found x"]),
        ("[[waiver]]", "[[waivers]]", ["[[waiver]]", "found waivers"]),
        ("test = \"llm-*\"", "tset = \"llm-*\"", ["waiver 1", "unknown tset", "known: test,"]),
        ("test = \"llm-*\"\n", "", ["waiver 1", "test is missing"]),
        ("reason = \"known\"\n", "", ["waiver 2", "reason is missing", "owner, until"]),
        ("owner = \"bo\"\nuntil = \"2026-01-31\"", "", ["waiver 2", "owner, until is missing"]),
        ("\"known\"", "\" \"", ["waiver 2", "reason is ' '", "not empty"]),
        ("\"bo\"", "5", ["waiver 2", "owner is 5"]),
        ("\"torch_llama\"", "\"\"", ["waiver 1", "engine is ''"]),
        ("\"ttft\"", "\"ttfft\"", ["waiver 1", "'ttfft'", "time_to_first_token"]),
        ("\"ttft\"", "\"resident_memory\"", ["waiver 1", "never judged"]),
        ("\"2026-01-31\"", "\"2026-02-31\"", ["waiver 2", "2026-02-31", "like 2026-12-31"]),
        ("\"2026-01-31\"", "\"31.1.2026\"", ["waiver 2", "31.1.2026"]),
        ("\"2026-01-31\"", "\"20260131\"", ["waiver 2", "20260131"]),
        ("\"2026-01-31\"", "2026-01-31T12:00:00", ["waiver 2", "until is"]),
        ("\"2026-01-31\"", "20260131", ["waiver 2", "until is 20260131"]),
    ],
)  # fmt: skip
def test_what_cannot_be_used_names_file_and_entry(
    tmp_path: Path, old: str, new: str, words: list[str]
) -> None:
    """A typing error must not leave a loss unseen."""
    text = GOOD.lstrip().replace(old, new, 1)
    assert text != GOOD.lstrip()
    with pytest.raises(OptionError) as refused:
        written(tmp_path, text)
    expected = [str(tmp_path / FILE), *words]
    assert [word for word in expected if word not in str(refused.value)] == []


@pytest.mark.parametrize("text", ["waiver = 1", "waiver = [1]", "[waiver]\ntest = 'a'"])
def test_what_is_no_list_of_tables_is_refused(tmp_path: Path, text: str) -> None:
    """One table with single brackets is a likely slip."""
    with pytest.raises(OptionError, match=r"expected \[\[waiver\]\]"):
        written(tmp_path, text)


@pytest.mark.parametrize("word", ["ttft", "TTFT", "time_to_first_token"])
def test_two_for_the_same_are_refused(tmp_path: Path, word: str) -> None:
    """In one file or in two, however the metric is written; both places are named."""
    first = GOOD.partition("\n\n")[0]
    again = first.replace('"ttft"', f'"{word}"').replace("ana", "bo")
    with pytest.raises(OptionError, match=r"waiver 2: is for the same as .*waiver 1"):
        written(tmp_path, first + again)
    written(tmp_path / "a", first)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / FILE).write_text(again)
    with pytest.raises(OptionError, match=r"b/waivers.toml, waiver 1: .*a/waivers.toml, waiver 1"):
        read_all([tmp_path / "a", tmp_path / "b"])


def test_a_marker_takes_a_text_or_a_date() -> None:
    """And no test or engine, which it stands on."""
    values = {"reason": "known", "owner": "ana", "until": LAST, "metric": "memory"}
    assert of_marker(values) == of_marker({**values, "until": "2026-12-31"})
    assert MEMORY in of_marker(values).metrics
    assert TTFT not in of_marker(values).metrics


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ("known", ["'known'", "'owner'"]),
        ({"reason": "a", "owner": "b"}, ["until is missing"]),
        ({"reason": "a", "owner": "b", "until": "soon"}, ["'soon'"]),
        ({"reason": "a", "owner": "b", "until": datetime(2026, 12, 31)}, ["until is"]),
        ({"reason": "a", "owner": "b", "until": LAST, "test": "x"}, ["unknown test"]),
    ],
)
def test_a_wrong_marker_is_refused(values: object, words: list[str]) -> None:
    """With what was found and what is known."""
    with pytest.raises(OptionError) as refused:
        of_marker(values)
    expected = ["perf marker: waiver", *words]
    assert [word for word in expected if word not in str(refused.value)] == []


# --- what they are for ---


@pytest.mark.parametrize(
    ("test", "covers"),
    [
        ("tests/test_a.py::test_a[x-1]", True),  # brackets are the test's own at first
        ("tests/test_a.py::test_a*", True),
        ("llm-*", True),
        ("llm-1", True),
        ("LLM-1", False),
        ("llm", False),
        ("tests/test_a.py::test_a[y-1]", False),
    ],
)
def test_a_waiver_covers_node_ids_and_workloads(test: str, covers: bool) -> None:
    """By their whole name or by a glob."""
    names = {"tests/test_a.py::test_a[x-1]", "llm-1"}
    assert waiver(test=test).covers(names, "torch_llama") is covers
    assert not waiver(test=test, engine="other").covers(names, "torch_llama")


def test_a_waiver_without_a_test_is_idle() -> None:
    """By its place in the list."""
    waivers = [waiver(test="a*"), waiver(test="b"), waiver(test="a1", engine="x")]
    tests = [({"a1", "f::a1"}, "x"), ({"a2"}, "")]
    assert idle(waivers, iter(tests)) == [1]
    assert idle(waivers, []) == [0, 1, 2]


def test_a_stored_test_that_is_gone_is_covered_by_what_named_it() -> None:
    """By node id or workload; one for a single metric or an expired one is not enough."""
    own = [waiver(test="tests/test_a.py::test_a[ | ]")]
    assert of_gone(own, "test_a[ | ] | measured", "tests/test_a.py", LAST) is own[0]
    assert of_gone(own, "test_a[ | ] | measured", "tests/test_a.py", AFTER) is None
    of_document = [waiver(test="llm-*", engine="e")]
    key = "llm-1 | e | smoke | measured"
    assert of_gone(of_document, key, "tests/test_a.py", LAST) is of_document[0]
    assert of_gone(of_document, key.replace("| e", "| f"), "tests/test_a.py", LAST) is None
    assert of_gone([waiver(metric="ttft")], key, "tests/test_a.py", LAST) is None


# --- what they do ---


@pytest.mark.parametrize(
    ("verdict", "plain", "strict"),
    [
        (Verdict.WORSE, True, True),
        (Verdict.UNSURE, False, True),
        (Verdict.NEW, False, True),
        (Verdict.FOREIGN, False, True),
        (Verdict.GONE, False, True),
        (Verdict.SAME, False, False),
        (Verdict.BETTER, False, False),
        (Verdict.SHOWN, False, False),
    ],
)
def test_what_would_fail_is_waived(
    make_result: Callable[..., Result],
    make_row: Callable[..., Row],
    verdict: Verdict,
    plain: bool,
    strict: bool,
) -> None:
    """The verdict stays; strict has more to waive."""
    result = make_result(rows=(make_row(verdict=verdict),))
    for is_strict, expected in ((False, plain), (True, strict)):
        (row,) = waived(result, [waiver()], LAST, strict=is_strict).rows
        assert row.verdict is verdict
        assert row.waiver == ("waived until 2026-12-31 by ana: known" if expected else "")


def test_a_broken_contract_is_never_waived(
    make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """There is no figure that anybody could have accepted, also where it has a name."""
    rows = (void("no"), make_row(verdict=Verdict.VOID, value=None))
    result = waived(make_result(rows=rows), [waiver()], LAST, strict=True)
    assert [row.waiver for row in result.rows] == ["", ""]
    assert result.waivers == {}


def test_a_waiver_of_one_metric_leaves_the_others(
    make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """Of several waivers the first that is for a figure stands beside it."""
    rows = (make_row(), make_row(figure=MEMORY), make_row(figure=f"{TTFT}@part"))
    memory = waiver(metric="memory", metrics=frozenset({MEMORY}), owner="bo")
    ttft = waiver(metric="ttft", metrics=frozenset({TTFT}))
    result = make_result(rows=rows)
    alone = waived(result, [ttft], LAST, strict=False)
    assert [bool(row.waiver) for row in alone.rows] == [True, False, True]
    both = waived(result, [memory, waiver()], LAST, strict=False)
    assert ["by bo" in row.waiver for row in both.rows] == [False, True, False]


def test_the_last_day_is_the_last(make_result: Callable[..., Result]) -> None:
    """The day after, the loss is one again and the test is told so."""
    result = make_result()
    assert waived(result, [waiver()], LAST, strict=False).expired == ()
    after = waived(result, [waiver(test="llm-*", metric="ttft")], AFTER, strict=False)
    assert [row.waiver for row in after.rows] == [""]
    assert after.waivers == {}
    assert after.expired == (
        "the waiver of llm-* (ttft) in w.toml expired on 2026-12-31: ana, known;"
        " remove or renew it in w.toml",
    )


def test_a_waiver_is_needed_until_all_is_good(
    make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """Only of its own figures; what is shown does not count; without a figure nobody knows."""
    same, shown = make_row(verdict=Verdict.SAME), make_row(verdict=Verdict.SHOWN)
    better = make_row(figure=MEMORY, verdict=Verdict.BETTER)
    unsure = make_row(figure=MEMORY, verdict=Verdict.UNSURE)
    ttft = waiver(metric="ttft", metrics=frozenset({TTFT}))

    def needed(one: Waiver, *rows: Row) -> list[bool]:
        return list(waived(make_result(rows=rows), [one], LAST, strict=False).waivers.values())

    assert needed(waiver(), same, better, shown) == [False]
    assert needed(waiver(), same, unsure) == [True]
    assert needed(ttft, same, unsure) == [False]
    assert needed(ttft, unsure) == []
    assert needed(waiver(), shown) == []
