"""The load in virtual time: on schedule whatever the server does, and judged fairly."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from perfsuite.adapters import Event, RequestFailed
from perfsuite.errors import EngineUnavailable, OptionError
from perfsuite.serving import client
from perfsuite.serving.arrivals import ClosedLoop, Schedule, at_once, constant, poisson, trace
from perfsuite.serving.client import CUT_OFF, PROBE_S, Outcome
from perfsuite.serving.request import Request

Offered = Callable[..., Outcome]
Requests = Callable[..., list[Request]]


def lateness(outcome: Outcome) -> list[float]:
    return [record.sent_s - record.intended_s for record in outcome.records]


@pytest.mark.parametrize(
    "schedule", [at_once(40), constant(40, 20.0), poisson(40, 20.0, seed=1), trace([0, 0, 5])]
)
def test_an_open_loop_keeps_its_schedule(
    engine: Any, requests: Requests, offered: Offered, schedule: Schedule
) -> None:
    """Each request is sent when it is due, though every answer takes 100 s."""
    engine.first_s = 100.0
    asked = requests(len(schedule.times_s))
    outcome = offered(engine, asked, schedule)
    start = outcome.records[0].intended_s - schedule.times_s[0]
    due = [record.intended_s - start for record in outcome.records]
    assert due == pytest.approx(list(schedule.times_s))
    assert lateness(outcome) == pytest.approx([0.0] * len(asked), abs=1e-6)
    assert engine.most_under_way == len(asked)
    assert (outcome.void, outcome.ended, outcome.unsent) == ("", "", 0)
    assert outcome.arrivals == schedule.name


def test_answers_are_recorded(engine: Any, requests: Requests, offered: Offered) -> None:
    """A stamp for each event with the tokens known after it, the end, and the server's counts."""
    (record,) = offered(engine, requests(1, tokens=3), at_once(1)).records
    stamps, tokens = zip(*record.token_s, strict=True)
    since = [stamp - record.sent_s for stamp in stamps]
    assert since == pytest.approx([0.05, 0.055, 0.06])
    assert tokens == (1, 2, 3)
    assert record.finished_s == stamps[-1]
    assert (record.input_tokens, record.output_tokens, record.failure) == (2, 3, "")


def test_a_stall_shows_in_every_request_that_was_due_in_it(
    engine: Any, requests: Requests, offered: Offered
) -> None:
    """An open loop does not wait with the server; a closed one meets it once for each user."""
    engine.stall = (1001.0, 1003.0)
    outcome = offered(engine, requests(100), constant(100, 20.0))
    inside = [r for r in outcome.records if 1001.0 <= r.intended_s < 1003.0]
    assert len(inside) == 40
    assert all(record.token_s[0][0] >= 1003.0 for record in inside)
    assert outcome.void == ""
    spared = offered(engine, requests(100), ClosedLoop(2))
    assert sum(r.finished_s - r.intended_s > 1.0 for r in spared.records) == 2


def test_a_closed_loop_is_never_more_than_its_users(
    engine: Any, requests: Requests, offered: Offered
) -> None:
    """Each takes the next request when it is free, without a pause."""
    outcome = offered(engine, requests(20), ClosedLoop(4))
    assert engine.most_under_way == 4
    assert [record.request.id for record in outcome.records] == list(range(20))
    assert lateness(outcome) == pytest.approx([0.0] * 20, abs=1e-6)
    assert offered.took_s == pytest.approx(5 * 0.065, abs=1e-3)


def test_requests_are_sent_in_the_order_of_their_arrivals(
    engine: Any, requests: Requests, offered: Offered
) -> None:
    """Equal moments keep the dataset's order."""
    outcome = offered(engine, requests(4), trace([0.0, 1.0, 1.0, 2.0]))
    assert [record.request.id for record in outcome.records] == [0, 1, 2, 3]


def test_a_failure_is_recorded_and_not_tried_again(
    engine: Any, requests: Requests, offered: Offered
) -> None:
    """With its kind and what came before it; the others are answered."""
    engine.fails = lambda r: RequestFailed("http 503", "full") if r.id % 3 == 0 else None
    outcome = offered(engine, requests(9), constant(9, 10.0))
    failures = [record.failure for record in outcome.records]
    assert failures == ["http 503: full", "", ""] * 3
    assert outcome.records[0].kind_of_failure == "http 503"
    assert outcome.records[0].finished_s >= outcome.records[0].sent_s
    assert len(engine.sent) == 9
    assert outcome.ended == ""


def test_a_server_that_dies_ends_the_run_with_what_was_measured(
    engine: Any, requests: Requests, offered: Offered
) -> None:
    """A thousand seconds of schedule are left; those under way are cut off or reset."""
    engine.gone_at = 1010.0
    engine.first_s = 2.0
    outcome = offered(engine, requests(1000), constant(1000, 1.0))
    assert offered.took_s < 15.0
    assert "the server is gone: nobody listens" in outcome.ended
    assert "connection: reset by peer" in outcome.ended
    answered = [record for record in outcome.records if not record.failure]
    assert len(answered) >= 7
    assert all(len(record.token_s) == 4 for record in answered)
    assert outcome.unsent == 1000 - len(outcome.records) > 900
    failed = {record.kind_of_failure for record in outcome.records if record.failure}
    assert failed == {"connection", CUT_OFF}


def test_an_answer_that_was_whole_is_not_cut_off(
    engine: Any, requests: Requests, offered: Offered
) -> None:
    """Its end came; only its connection was still being read."""
    answer = engine.send

    async def lingering(request: Request) -> Any:
        async for event in answer(request):
            yield event
        await asyncio.sleep(1000.0)

    engine.send = lingering
    engine.gone_at = 1002.0
    outcome = offered(engine, requests(50), constant(50, 1.0))
    assert outcome.ended
    failures = [record.failure for record in outcome.records]
    assert failures == ["", "", "connection: reset by peer"]


def test_a_server_that_dies_ends_a_closed_loop(
    engine: Any, requests: Requests, offered: Offered
) -> None:
    """Users do not burn through the dataset with refused requests."""
    engine.gone_at = 1001.0
    outcome = offered(engine, requests(1000), ClosedLoop(3))
    assert outcome.ended
    failed = [record for record in outcome.records if record.failure]
    assert len(failed) <= 2 * 3
    assert outcome.unsent > 900


def test_a_server_that_hangs_when_asked_for_a_sign_is_gone(
    engine: Any, requests: Requests, offered: Offered
) -> None:
    """It dropped a request and does not answer."""

    async def hang() -> None:
        await asyncio.sleep(1000.0)

    engine.fails = lambda r: RequestFailed("silence") if r.id == 2 else None
    engine.open = hang
    outcome = offered(engine, requests(500), constant(500, 1.0))
    assert f"no answer within {PROBE_S:g} s" in outcome.ended
    assert offered.took_s < 2 + PROBE_S + 1


def test_one_dropped_connection_is_a_failure_and_not_the_end(
    engine: Any, requests: Requests, offered: Offered
) -> None:
    """The server answers when it is asked for a sign."""
    engine.fails = lambda r: RequestFailed("connection", "reset") if r.id == 2 else None
    outcome = offered(engine, requests(10), constant(10, 10.0))
    assert outcome.ended == ""
    assert [bool(record.failure) for record in outcome.records].count(True) == 1


def test_a_late_client_makes_the_run_void(
    engine: Any, requests: Requests, offered: Offered
) -> None:
    """A client that needs 50 ms to send a request can not send a hundred a second."""
    cost_s = 0.05

    async def busy(request: Request) -> None:
        asyncio.get_running_loop().now += cost_s  # as computing would

    engine.before = busy
    outcome = offered(engine, requests(60), constant(60, 100.0))
    assert "of 60 requests were sent over" in outcome.void
    assert max(lateness(outcome)) > 1.0
    cost_s = 0.001
    assert offered(engine, requests(60), constant(60, 100.0)).void == ""


def test_a_busy_client_makes_a_closed_loop_void(
    engine: Any, requests: Requests, offered: Offered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no schedule to miss."""
    monkeypatch.setattr(time, "thread_time", lambda: asyncio.get_running_loop().time())
    outcome = offered(engine, requests(20), ClosedLoop(2))
    assert outcome.busy_share == pytest.approx(1.0)
    assert "used 100% of a processor" in outcome.void


def test_counts_come_from_usage_or_events_and_are_else_unknown(
    engine: Any, requests: Requests, offered: Offered
) -> None:
    """An unknown count is None, and no number of events."""
    engine.usage = False
    (record,) = offered(engine, requests(1), at_once(1)).records
    assert (record.output_tokens, record.input_tokens) == (4, None)
    engine.counted = False
    (record,) = offered(engine, requests(1), at_once(1)).records
    assert (record.output_tokens, record.input_tokens) == (None, None)
    assert [known for _, known in record.token_s] == [None] * 4


@pytest.mark.parametrize(
    ("events", "kind"),
    [
        ([Event(tokens=0), Event(tokens=1)], "early end"),
        ([Event(tokens=0)], "early end"),
        ([], "early end"),
        ([Event(tokens=0), Event(done=True, usage=(3, 0))], "empty answer"),
    ],
)
def test_an_answer_has_output_and_an_end(
    engine: Any, requests: Requests, offered: Offered, events: list[Event], kind: str
) -> None:
    """Whatever an adapter let through."""

    async def send(request: Request) -> Any:
        for event in events:
            yield event

    engine.send = send
    (record,) = offered(engine, requests(1), at_once(1)).records
    assert record.kind_of_failure == kind
    assert record.finished_s > 0


def test_an_event_that_brought_nothing_is_no_stamp(
    engine: Any, requests: Requests, offered: Offered
) -> None:
    """A count that did not grow is none of a token."""

    async def send(request: Request) -> Any:
        for tokens in (0, 1, 1, 3, 2, 4):
            yield Event(tokens, "a")
        yield Event(done=True)

    engine.send = send
    (record,) = offered(engine, requests(1), at_once(1)).records
    assert [known for _, known in record.token_s] == [1, 3, 4]
    assert record.output_tokens == 4


def test_an_answer_without_end_is_given_up(
    engine: Any, requests: Requests, offered: Offered
) -> None:
    """After four times as many events as tokens were asked for."""

    async def send(request: Request) -> Any:
        while True:
            await asyncio.sleep(0.01)
            yield Event(None, "a")

    engine.send = send
    (record,) = offered(engine, requests(1, tokens=20), at_once(1)).records
    assert record.failure == "endless: over 80 events"


@pytest.mark.parametrize("arrivals", [constant(3, 1.0), ClosedLoop(2)])
def test_a_defect_of_an_adapter_is_raised_as_it_is(
    engine: Any, requests: Requests, offered: Offered, arrivals: Any
) -> None:
    """It is no failure of a request, and no group of one."""

    async def wrong(request: Request) -> None:
        raise OptionError("chat takes text")

    engine.before = wrong
    with pytest.raises(OptionError, match="chat takes text"):
        offered(engine, requests(3), arrivals)


def test_a_load_has_requests(engine: Any, offered: Offered) -> None:
    """None would be a run in which nothing was measured."""
    with pytest.raises(OptionError, match="no requests"):
        offered(engine, [], at_once(0))


def test_too_few_arrivals_are_an_error(engine: Any, requests: Requests, offered: Offered) -> None:
    """The rest of the requests would silently not be sent."""
    with pytest.raises(OptionError, match="2 arrivals for 3 requests"):
        offered(engine, requests(3), at_once(2))


def test_without_uvloop_nothing_else_runs_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for by name, with the way to get it."""

    async def main() -> int:
        return 3

    monkeypatch.setitem(sys.modules, "uvloop", None)
    with pytest.raises(EngineUnavailable, match=r"perfsuite\[serving\]"):
        client.run(main())
    monkeypatch.undo()
    pytest.importorskip("uvloop")
    assert client.run(main()) == 3


def test_an_adapters_own_stamp_is_kept(engine: Any, requests: Requests, offered: Offered) -> None:
    """It was taken when the bytes came, before the parsing that may take as long as a token."""
    plain = engine.send

    async def stamped(request: Request) -> Any:
        async for event in plain(request):
            arrived = asyncio.get_running_loop().time()
            await asyncio.sleep(0.003)  # parses
            yield replace(event, arrived_s=arrived)

    engine.send = stamped
    (record,) = offered(engine, requests(1, tokens=3), at_once(1)).records
    since = [stamp - record.intended_s for stamp, _ in record.token_s]
    assert since == pytest.approx([0.053, 0.061, 0.069])
    assert record.sent_s == record.intended_s


def test_what_was_said_is_kept(engine: Any, requests: Requests, offered: Offered) -> None:
    """As text, and as token ids where the wire tells them."""
    plain = engine.send

    async def told(request: Request) -> Any:
        async for event in plain(request):
            yield replace(event, token_ids=(7,) if event.tokens else ())

    engine.send = told
    (record,) = offered(engine, requests(1, tokens=3), at_once(1)).records
    assert record.texts == ["a", "a", "a"]
    assert record.token_ids == [7, 7, 7]


def test_a_load_starts_at_the_moment_it_is_told(
    engine: Any, requests: Requests, offered: Offered
) -> None:
    """So that several processes start one schedule together."""
    outcome = offered(engine, requests(3), constant(3, 2.0), start_s=1005.0)
    assert [r.intended_s for r in outcome.records] == pytest.approx([1005.0, 1005.5, 1006.0])
    assert lateness(outcome) == pytest.approx([0.0] * 3, abs=1e-6)
    users = offered(engine, requests(3), ClosedLoop(3), start_s=1005.0)
    assert [r.intended_s for r in users.records] == pytest.approx([1005.0] * 3)


def test_users_without_a_request_are_no_tasks(
    engine: Any, requests: Any, offered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred thousand of them would be the load of the client, not of the server."""
    started = []
    user = client._Load._user
    monkeypatch.setattr(
        client._Load, "_user", lambda self, waiting: started.append(1) or user(self, waiting)
    )
    outcome = offered(engine, requests(3), ClosedLoop(100_000))
    assert (len(outcome.records), len(started)) == (3, 3)
