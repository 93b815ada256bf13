"""What makes the answers of a test's processes unusable, and how a test's own end is told."""

from __future__ import annotations

from typing import Any

import pytest

from perfsuite.contract import broken, facts_of, gist, raise_worker_outcome
from perfsuite.crew import ItemRun
from perfsuite.sampling import Measured

SAMPLES = {"call_time/per_call": [[1.0]]}


def report(outcome: str = "passed", text: str = "", *, xfail: bool = False, **more: Any) -> Any:
    """A phase of a test as a worker tells it."""
    return {"outcome": outcome, "text": text, "xfail": xfail, "sections": [], **more}


def ran(config: Any = None, *parts: str) -> ItemRun:
    """A process that measured these calls under that configuration."""
    facts = {"config": config, "batch": 4}
    return ItemRun(measured={part: Measured(facts=facts) for part in parts or ("",)})


class Item:
    """What is needed of a pytest.Item: its report sections."""

    def __init__(self) -> None:
        self.sections: list[tuple[str, str, str]] = []

    def add_report_section(self, when: str, key: str, content: str) -> None:
        self.sections.append((when, key, content))


# --- unusable ---


def test_processes_that_agree_are_usable() -> None:
    """Also a single one, and one whose test skipped itself."""
    assert broken([ran({"threads": 2}), ran({"threads": 2})], SAMPLES) == ""
    assert broken([ran()], SAMPLES) == ""
    assert broken([ran(), ItemRun(reports=[report("skipped", "no weights")])], {}) == ""


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (ItemRun(void="killed by signal 9"), "killed by signal 9"),
        (
            ItemRun(reports=[report(), report("failed", "def test():\nE   assert 1 == 2\na.py:3")]),
            "the test failed: assert 1 == 2",
        ),
        (ItemRun(reports=[report("skipped", "x", xfail=True)]), "the test failed: x"),
        (ItemRun(void="lost", reports=[report("failed", "E   ValueError")]), "lost"),
    ],
)
def test_the_last_process_says_why_nothing_is_used(last: ItemRun, reason: str) -> None:
    """What came before it was measured for nothing; a lost process comes before its failure."""
    assert broken([ran(), last], SAMPLES) == reason


def test_a_test_that_measured_nothing_is_told_so() -> None:
    """It passed, and gave no figure: no green without a measurement."""
    assert "never called perf" in broken([ItemRun(reports=[report()])], {})


def test_an_engine_that_ran_differently_in_two_processes_can_not_be_pooled() -> None:
    """Both configurations are named, whichever call it was and however late."""
    for parts in ((), ("load", "run")):
        same, other = ran({"threads": 2}, *parts), ran({"threads": 2}, *parts)
        other.measured[(parts or ("",))[-1]].facts = {"config": {"threads": 1}}
        text = broken([same, ran({"threads": 2}, *parts), other], SAMPLES)
        assert "differs between processes" in text
        assert "{'threads': 2} and {'threads': 1}" in text


def test_what_else_a_process_tells_may_differ() -> None:
    """The batch that a search found, a ceiling: only the configuration has to agree."""
    other = ran({"threads": 2})
    other.measured[""].facts["batch"] = 8
    assert broken([ran({"threads": 2}), other], SAMPLES) == ""


def test_the_facts_are_those_of_the_first_process() -> None:
    """Of its first call; nothing where nothing was measured."""
    assert facts_of([ran({"threads": 2}), ran({"threads": 9})])["config"] == {"threads": 2}
    assert facts_of([]) == {}
    assert facts_of([ItemRun(void="died")]) == {}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "def test():\n>   f()\nE   ValueError: old\nE    more\na.py:3: ValueError",
            "ValueError: old",
        ),
        ("Traceback\n  File a\nEOFError: end", "EOFError: end"),  # an E of its own stays
        ("Expected three tokens\n\n", "Expected three tokens"),
        ("  short  ", "short"),
        ("\n\n", ""),
        ("", ""),
    ],
)
def test_the_gist_of_a_traceback_is_what_happened(text: str, line: str) -> None:
    """The first line that pytest marked, else the last one that says anything."""
    assert gist(text) == line


# --- the test's own end ---


def test_the_output_of_all_processes_is_attached() -> None:
    """Under the call, by what was captured."""
    sections = [["Captured stdout call", "hello"], ["Captured log call", "warn"]]
    item = Item()
    runs = [ItemRun(reports=[report(sections=sections[:1])]),
            ItemRun(reports=[report(), report(sections=sections[1:])])]  # fmt: skip
    raise_worker_outcome(item, runs)
    assert item.sections == [("call", "stdout call", "hello"), ("call", "log call", "warn")]


def test_a_failure_in_a_worker_fails_the_test_with_its_text() -> None:
    """As it stands; an expected failure is refused with words."""
    failed = ItemRun(reports=[report("failed", "E   assert False")])
    with pytest.raises(pytest.fail.Exception, match="assert False"):
        raise_worker_outcome(Item(), [ran(), failed])
    expected = ItemRun(reports=[report("skipped", "", xfail=True)])
    with pytest.raises(pytest.fail.Exception, match="xfail is refused on a perf test"):
        raise_worker_outcome(Item(), [expected])


def test_a_skip_in_a_worker_skips_the_test_with_its_reason() -> None:
    """In whichever process it happened last."""
    with pytest.raises(pytest.skip.Exception, match="no weights"):
        raise_worker_outcome(Item(), [ran(), ItemRun(reports=[report("skipped", "no weights")])])


def test_a_lost_process_is_left_to_the_verdict() -> None:
    """Even where it had failed before: VOID tells why."""
    raise_worker_outcome(Item(), [ItemRun(void="died", reports=[report("failed", "E   x")])])
    raise_worker_outcome(Item(), [ran()])
