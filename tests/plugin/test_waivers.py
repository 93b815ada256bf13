"""Waivers from outside: what they let pass and show, and that an expired one fails."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import pytest

FOREVER, OVER = "9999-12-31", "2000-01-31"  # no test of waivers may expire itself
TEXT = f"waived until {FOREVER} by ana: known"


def file_of(test: str, until: str = FOREVER, more: str = "") -> str:
    """A file of one waiver."""
    return f"""
[[waiver]]
test = "{test}"
reason = "known"
owner = "ana"
until = {until}
{more}
"""


def marked(until: str) -> str:
    """Two tests, the first of which has a waiver in its marker."""
    return f"""
import pytest
from spinning import spin

@pytest.mark.perf(waiver={{"reason": "known", "owner": "ana", "until": "{until}"}})
def test_one(perf):
    perf(lambda: spin("one"))

def test_two(perf):
    perf(lambda: spin("two"))
"""


def first_rows(project: Any) -> dict[str, dict[str, Any]]:
    """The row of each test's time."""
    return {name: result["rows"][0] for name, result in project.results.items()}


@pytest.fixture
def slowed(two_tests: Any) -> Any:
    """Two tests with baselines, both a hundred times slower by now."""
    assert two_tests.perf("--perf-save").ret == 0
    two_tests.seconds(one=0.2, two=0.2)
    return two_tests


@pytest.mark.parametrize("place", ["file", "marker"])
def test_a_waived_loss_keeps_its_verdict_and_fails_nothing(slowed: Any, place: str) -> None:
    """In the table, JSON, markdown and JUnit, through pytest-xdist too; other tests stay red."""
    if place == "file":
        text = file_of("test_it.py::test_one", more='metric = "time"')
        slowed.write("baselines/waivers.toml", text)
    else:
        slowed.write("test_it.py", marked(FOREVER))

    result = slowed.perf("-n", "2", "--perf-markdown=out.md", "--junitxml=junit.xml")

    assert result.ret == 1
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines([f"      {TEXT}", "2 WORSE (1 waived)*"])
    rows = first_rows(slowed)
    assert {name: (row["verdict"], row["waiver"]) for name, row in rows.items()} == {
        "test_one": ("WORSE", TEXT),
        "test_two": ("WORSE", ""),
    }
    assert f"WORSE, {TEXT} |" in (slowed.path / "out.md").read_text()
    suite = ET.parse(slowed.path / "junit.xml").getroot()
    properties = {p.get("name"): p.get("value") for p in suite.iter("property")}
    assert properties["perf call_time/per_call waiver"] == TEXT

    assert slowed.perf("test_it.py::test_one").ret == 0


@pytest.mark.parametrize("place", ["file", "marker"])
def test_an_expired_waiver_fails_its_test_whatever_the_verdict(two_tests: Any, place: str) -> None:
    """With owner, reason and where it stands; a loss is told as well. Other tests are green."""
    assert two_tests.perf("--perf-save").ret == 0
    file = "baselines/waivers.toml" if place == "file" else "test_it.py"
    text = file_of("*::test_one", OVER) if place == "file" else marked(OVER)
    two_tests.write(file, text)
    name = "[*]::test_one" if place == "file" else "test_it.py::test_one"
    expiry = f"the waiver of {name} in {file} expired on {OVER}: ana, known; remove or renew it *"

    result = two_tests.perf()
    assert result.ret == 1
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines([expiry])
    assert two_tests.verdicts["test_one"] in ("SAME", "BETTER", "UNSURE")

    two_tests.slow_down("one")
    slow = two_tests.perf("test_it.py::test_one")
    slow.stdout.fnmatch_lines([expiry, "WORSE: time/call *"])


def test_a_broken_contract_is_never_waived(project: Any) -> None:
    """Nothing was measured that anybody could have accepted."""
    project.write("test_it.py", "def test_it(perf):\n    pass\n")
    project.write("baselines/waivers.toml", file_of("*"))
    assert project.perf("--perf-processes=1").ret == 1
    assert project.verdicts == {"test_it": "VOID"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (file_of("test_it.py::*") + file_of("test_it.py::*"), "*waiver 2: is for the same as *"),
        (file_of("*", "soon"), "*waivers.toml: cannot read the waivers: *line 5*"),
        (file_of("*", more="ticket = 5"), "*waivers.toml, waiver 1: unknown ticket; known: *"),
    ],
)
def test_a_wrong_file_ends_the_run_before_it_measures(
    two_tests: Any, text: str, words: str
) -> None:
    """In the second of two folders as well."""
    two_tests.write("common/waivers.toml", text)
    result = two_tests.perf("--perf-baselines=own", "--perf-baselines=common")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([words])
    assert not (two_tests.path / "out.json").exists()


def test_a_wrong_marker_ends_the_run_before_it_measures(two_tests: Any) -> None:
    """It names the test."""
    two_tests.write("test_it.py", marked("31.12.2026"))
    result = two_tests.perf()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_it.py::test_one: perf marker: waiver: until is *"])


def test_what_is_no_longer_needed_or_for_no_test_is_told(two_tests: Any) -> None:
    """A note; nothing fails. A selection can not know that a waiver has no test."""
    lists = ("--perf-processes=2", "--perf-limit=call_time:5000%")
    assert two_tests.perf("--perf-save", *lists).ret == 0
    two_tests.write("baselines/waivers.toml", file_of("*::test_one") + file_of("*::test_none"))
    over = "the waiver of [*]::test_one in baselines/waivers.toml is no longer needed: *"
    idle = "the waiver of [*]::test_none in baselines/waivers.toml is for no test of this run: *"

    for more in ((), ("-n", "2")):
        result = two_tests.perf(*lists, *more)
        assert result.ret == 0
        result.stdout.fnmatch_lines([over, idle])
        result.stdout.no_fnmatch_line("*::test_one * is for no test*")
    two_tests.perf("-k", "one", *lists).stdout.no_fnmatch_line(idle)


def test_under_strict_what_is_new_or_gone_can_be_waived(two_tests: Any) -> None:
    """A renamed test: with a waiver for its old and its new name the run is green."""
    project = two_tests
    lists = ("--perf-strict", "--perf-limit=call_time:5000%")
    assert project.perf("--perf-save").ret == 0
    test = project.path / "test_it.py"
    test.write_text(test.read_text().replace("test_two", "test_renamed"))
    both = file_of("test_it.py::test_renamed") + file_of("test_it.py::test_two")

    project.write("baselines/waivers.toml", file_of("test_it.py::test_renamed"))
    gone = project.perf(*lists)
    assert gone.ret == 1
    gone.stdout.fnmatch_lines(["baselines without a test fail under --perf-strict"])
    assert first_rows(project)["test_renamed"]["waiver"] == TEXT

    project.write("baselines/waivers.toml", both)
    result = project.perf(*lists)
    assert result.ret == 0
    result.stdout.fnmatch_lines([f"GONE: test_two | measured: {TEXT}"])
    result.stdout.no_fnmatch_line("*for no test of this run*")


def test_a_waiver_of_a_workload_is_for_its_engine(engine_test: Any) -> None:
    """Full-size workloads may be collected elsewhere: a smoke run says nothing about those."""
    engine_test.engines("Offer('one'), Offer('two')")
    engine_test.seconds(prefill=0.0001, decode=0.0001)
    waivers = {
        "llm-smoke-llama2_13b-*": 'engine = "one"',  # of this run
        "llm-smoke-llama2_13b-single*": 'engine = "three"',
        "llm-llama2_13b-*": "",  # of the other scale
        "llm-smoke-llama9-*": "",
    }
    text = "".join(file_of(test, more=more) for test, more in waivers.items())
    engine_test.write("baselines/waivers.toml", text)

    result = engine_test.perf("--perf-strict", "--perf-processes=1")

    idle = [line for line in result.outlines if "is for no test of this run" in line]
    assert [line.split()[3:5] for line in idle] == [
        ["llm-smoke-llama2_13b-single*", "(three)"],
        ["llm-smoke-llama9-*", "in"],
    ]
    waived = {r["engine"]: {row["waiver"] for row in r["rows"] if row["verdict"] == "NEW"}
              for r in engine_test.results.values()}  # fmt: skip
    assert waived == {"one": {TEXT}, "two": {""}}
