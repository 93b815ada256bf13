"""Workflow commands for failed tests: escaped, at the right place, the worst ten."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from perfsuite.report.annotations import Failure, failure, lines
from perfsuite.results import Result, Row
from perfsuite.verdict import Verdict


def command(line: str) -> tuple[str, dict[str, str], str]:
    """A workflow command as GitHub's runner reads it: its name, its properties, its message."""
    head, _, message = line.removeprefix("::").partition("::")
    name, _, rest = head.partition(" ")
    properties = dict(part.split("=", 1) for part in rest.split(",")) if rest else {}
    return name, {k: _back(v, prop=True) for k, v in properties.items()}, _back(message)


def _back(text: str, *, prop: bool = False) -> str:
    more = (("%3A", ":"), ("%2C", ",")) if prop else ()
    for coded, plain in (("%0D", "\r"), ("%0A", "\n"), *more, ("%25", "%")):
        text = text.replace(coded, plain)
    return text


def test_a_failure_stands_at_its_tests_line(
    make_result: Callable[..., Result], tmp_path: Path
) -> None:
    """The file as the repository has it, below which pytest's root may be a folder."""
    root = tmp_path / "sub"
    told = failure("tests/test_a.py::test_a", ("tests/test_a.py", 6, "test_a"), "WORSE: TTFT")
    (line,) = lines({"tests/test_a.py::test_a": told}, [make_result()], root, str(tmp_path))
    assert command(line) == (
        "error",
        {"file": "sub/tests/test_a.py", "line": "7", "title": "perf: test_a"},
        "WORSE: TTFT",
    )


def test_a_function_of_another_file_is_shown_where_the_test_is_collected() -> None:
    """The documents' suite lies in the installed package, which no repository has."""
    location = ("../site-packages/perfsuite/suite/__init__.py", 20, "test_llm")
    assert failure("tests/test_d.py::test_llm[x]", location, "").line is None


def test_a_file_outside_of_the_checkout_is_not_named(
    make_result: Callable[..., Result], tmp_path: Path
) -> None:
    """GitHub would show the annotation nowhere; without a file it is shown with the job."""
    result = make_result()
    failures = {result.nodeid: Failure("../other/test_a.py", 3, "WORSE")}
    (line,) = lines(failures, [result], tmp_path / "w", str(tmp_path / "w"))
    assert command(line)[1] == {"title": "perf: test_a"}


def test_nothing_in_a_name_or_message_ends_the_command(
    make_result: Callable[..., Result], tmp_path: Path
) -> None:
    """Percent signs, line breaks, colons and commas come back as they were."""
    name, text = "a,line=1::b%0A\r\nc", "100%\r\n::error::planted\n%0A"
    result = make_result(workload=name)
    (line,) = lines({result.nodeid: Failure("a:b,c.py", 3, text)}, [result], tmp_path, "")
    assert "\n" not in line
    assert "\r" not in line
    assert command(line) == (
        "error", {"file": "a:b,c.py", "line": "3", "title": f"perf: {name}"}, text
    )  # fmt: skip


def test_of_many_the_worst_ten_are_told(
    make_result: Callable[..., Result], make_row: Callable[..., Row], tmp_path: Path
) -> None:
    """GitHub shows ten of a step; a broken contract comes before any loss, a doubt after all."""
    rows = {f"w{i:02}": make_row(ratio=1.1 + i) for i in range(20)}
    rows["void"] = Row("contract", Verdict.VOID, note="wrong tokens")
    rows["unsure"] = make_row(verdict=Verdict.UNSURE, ratio=99.0)
    results = [make_result(nodeid=name, workload=name, rows=(row,)) for name, row in rows.items()]
    failures = {name: Failure("test_a.py", 1, "text") for name in rows}

    told = [command(line) for line in lines(failures, results, tmp_path, "")]

    titles = [properties["title"] for name, properties, _ in told if name == "error"]
    worst = ["void", *(f"w{i:02}" for i in range(19, 10, -1))]
    assert titles == [f"perf: {name}" for name in worst]
    assert told[-1] == (
        "notice", {"title": "perf"}, "12 more perf tests failed; the log has them all"
    )  # fmt: skip


def test_a_passed_test_has_no_annotation(
    make_result: Callable[..., Result], tmp_path: Path
) -> None:
    """Only what failed, whatever its verdict: a waived loss passes."""
    assert list(lines({}, [make_result()], tmp_path, "")) == []
