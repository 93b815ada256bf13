"""Who is to blame for a late answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from perfsuite.serving.lateness import late_client, late_share
from perfsuite.serving.request import Record

Make = Callable[..., Record]


@pytest.fixture
def run(make_record: Make) -> Callable[..., list[Record]]:
    """Requests that were due at once and sent so late; each is answered 1 s later, all in 4 s."""

    def make(*lateness_s: float) -> list[Record]:
        records = [
            make_record(
                sent_s=10.0 + late,
                token_s=[(10.5 + late, 1), (11.0 + late, 2)],
                finished_s=11.0 + late,
            )
            for late in lateness_s
        ]
        return [make_record(finished_s=14.0), *records]

    return make


Run = Callable[..., list[Record]]


def test_a_punctual_client_is_not_to_blame(run: Run) -> None:
    """Nor one that is late by less than 5 % of the run."""
    assert late_client(run(*[0.0] * 19), 0.1) == ""
    assert late_client(run(*[0.19] * 19), 0.1) == ""


def test_a_late_client_is(run: Run) -> None:
    """The words say how many, how late and what to do."""
    found = late_client(run(*[0.0] * 9, *[0.21] * 9, 0.5), 0.1)
    assert "50% of 20 requests were sent over 200 ms after they were due" in found
    assert "the latest by 0.50 s" in found
    assert "lower the load" in found


def test_a_quarter_may_be_late(run: Run) -> None:
    """A hiccup of the machine is no slow client."""
    assert late_client(run(*[0.0] * 14, *[2.0] * 5), 0.1) == ""
    assert late_client(run(*[0.0] * 13, *[2.0] * 6), 0.1) != ""


def test_a_rate_that_is_not_reached_is_late(make_record: Make) -> None:
    """A thousand requests at 100 a second of a client that sends 90: it falls behind for good."""

    def sent_at(rate: float) -> list[Record]:
        return [
            make_record(
                intended_s=n / 100, sent_s=n / rate, token_s=[(n / rate + 1, 1)],
                finished_s=n / rate + 1,
            )
            for n in range(1000)
        ]  # fmt: skip

    assert late_client(sent_at(90.0), 0.1) != ""
    assert late_client(sent_at(99.0), 0.1) == ""


def test_a_few_milliseconds_are_anybodys(make_record: Make) -> None:
    """An engine that answers within a millisecond does not void every run."""
    quick = [make_record(sent_s=10.009, token_s=[(10.0095, 1)], finished_s=10.01)] * 20
    assert late_client(quick, 0.1) == ""
    assert late_share(quick) == 0.0


def test_a_request_is_late_by_a_part_of_an_answer(run: Run) -> None:
    """Which takes 1 s here, from sending: lateness itself does not lengthen it."""
    assert late_share(run(*[0.04] * 19)) == 0.0
    assert late_share(run(*[0.04] * 9, *[0.052] * 10)) == 0.5
    assert late_share(run(*[100.0] * 19)) == 0.95


def test_a_client_that_is_never_idle_is_to_blame(make_record: Make) -> None:
    """In a closed loop nothing else would tell."""
    records = [make_record()] * 20
    assert late_client(records, busy_share=0.89) == ""
    assert "used 95% of a processor" in late_client(records, busy_share=0.95)


@pytest.mark.parametrize("failure", ["connection: refused", "http 500: no"])
def test_a_run_without_answers_is_judged_by_the_floor(make_record: Make, failure: str) -> None:
    """What failed says nothing about how long an answer takes."""
    failed = [make_record(failure=failure, token_s=[]) for _ in range(20)]
    assert late_client(failed, 0.1) == ""
    assert late_share(failed) == 0.0
    assert late_client([], 0.0) == ""
    assert late_share([]) == 0.0
