"""Who is to blame for a late answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from perfsuite.serving.lateness import late_client, late_share, sending_s
from perfsuite.serving.request import Record

Make = Callable[..., Record]


@pytest.fixture
def run(make_record: Make) -> Callable[..., list[Record]]:
    """Requests due 10 ms apart and sent so late; each is answered 1 s later, all in 4 s."""

    def make(*lateness_s: float) -> list[Record]:
        records = [
            make_record(
                intended_s=due,
                sent_s=due + late,
                token_s=[(due + late + 0.5, 1), (due + late + 1.0, 2)],
                finished_s=due + late + 1.0,
            )
            for late, due in zip(lateness_s, (10.0 + n / 100 for n in range(1, 99)), strict=False)
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
    assert "50% of 20 requests were sent over 200 ms later than due" in found
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
    quick = [
        make_record(intended_s=due, sent_s=due + 0.009, token_s=[(due + 0.01, 1)], finished_s=10.01)
        for due in (10.0, *[10.0001] * 19)
    ]
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


@pytest.fixture
def burst(make_record: Make) -> Callable[[int, float, float], list[Record]]:
    """Requests due at once, sent one after the other, each answered so long after its sending."""

    def make(count: int, each_s: float, answer_s: float) -> list[Record]:
        sent = [10.0 + each_s * (number + 1) for number in range(count)]
        return [
            make_record(sent_s=s, token_s=[(s + answer_s, 1)], finished_s=s + answer_s)
            for s in sent
        ]

    return make


Burst = Callable[[int, float, float], list[Record]]


def test_a_burst_takes_its_time_to_send(burst: Burst) -> None:
    """Sixty-four at 0.6 ms each, of a server that answers all within 0.1 s: nobody is late."""
    quick = burst(64, 0.0006, 0.06)
    assert sending_s(quick) == pytest.approx(0.0384)
    assert late_client(quick, 0.1) == ""
    assert late_client(burst(2000, 0.0006, 5.0), 0.1) == ""


def test_a_client_that_sends_slowly_is_late_in_a_burst_too(burst: Burst) -> None:
    """At 5 ms a request the last of 64 is sent 0.3 s late, and the server answers in 0.5 s."""
    found = late_client(burst(64, 0.005, 0.5), 0.1)
    assert (
        "requests were sent over 41 ms later than due, 5 % of the run, and 2 ms for each" in found
    )
    assert late_client(burst(2000, 0.005, 20.0), 0.1) != ""


def test_slow_sending_is_nothing_to_a_run_that_is_long(burst: Burst) -> None:
    """A third of a second of ten: 5 % of the figures at most."""
    assert late_client(burst(64, 0.005, 10.0), 0.1) == ""


def test_a_server_that_answers_within_the_time_of_sending_is_not_measured(burst: Burst) -> None:
    """What would be is how fast the client sends, however fast that is."""
    found = late_client(burst(64, 0.0006, 0.002), 0.1)
    assert "too fast for this client: of 64 requests that were due at once 75% were sent" in found
    assert "sending all took 38 ms" in found
    assert "--perf-clients" in found
    assert late_client(burst(2000, 0.0006, 0.3), 0.1) != ""
    assert late_client(burst(2000, 0.0006, 0.9), 0.1) == ""


def test_one_request_that_was_held_up_is_no_slow_client(burst: Burst) -> None:
    """The others were sent, and answered, long before."""
    records = burst(64, 0.0006, 0.06)
    records[-1].sent_s, records[-1].token_s = 10.5, [(10.56, 1)]
    assert late_client(records, 0.1) == ""


def after(records: list[Record], seconds: float) -> list[Record]:
    """The same so much later."""
    return [
        replace(
            record,
            intended_s=record.intended_s + seconds,
            sent_s=record.sent_s + seconds,
            token_s=[(at + seconds, known) for at, known in record.token_s],
            finished_s=record.finished_s + seconds,
        )
        for record in records
    ]


@pytest.mark.parametrize("apart_s", [0.001, 5.0])
def test_each_burst_of_a_trace_is_judged(burst: Burst, apart_s: float) -> None:
    """Two thousand in one moment and in the next, or five seconds later: sending is all there is.

    Where the server takes the larger part of each, nobody is to blame.
    """
    quick = burst(1000, 0.001, 0.002)
    assert "too fast" in late_client([*quick, *after(quick, apart_s)], 0.1)
    slow = burst(1000, 0.001, 3.0)
    assert late_client([*slow, *after(slow, apart_s)], 0.1) == ""


def test_one_request_before_the_others_excuses_no_burst(burst: Burst) -> None:
    quick = burst(64, 0.0006, 0.002)
    early = replace(quick[0], intended_s=9.9999)
    assert "too fast" in late_client([early, *quick], 0.1)


def test_a_small_burst_in_a_long_run_is_no_matter(burst: Burst) -> None:
    """Sixteen of a hundred requests; the others come one by one and are sent in time."""
    alone = [after(burst(1, 0.0006, 0.06), 1.0 + n / 10)[0] for n in range(84)]
    assert late_client([*burst(16, 0.0015, 0.002), *alone], 0.1) == ""


def test_a_high_rate_is_no_burst(make_record: Make) -> None:
    """A thousand a second, sent at half of that: nothing excuses it."""
    records = [
        make_record(
            intended_s=n / 1000, sent_s=n / 500, token_s=[(n / 500 + 0.05, 1)],
            finished_s=n / 500 + 0.05,
        )
        for n in range(1000)
    ]  # fmt: skip
    assert "the client was late" in late_client(records, 0.1)


def test_one_request_is_no_burst(burst: Burst) -> None:
    assert late_client(burst(1, 0.005, 0.001), 0.1) == ""
