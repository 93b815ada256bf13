"""How a load is dealt out to several processes, and what they say together. No process starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from perfsuite.errors import OptionError
from perfsuite.pipe import PipeClosed
from perfsuite.serving import clients
from perfsuite.serving.arrivals import ClosedLoop, at_once, constant, poisson
from perfsuite.serving.client import Outcome
from perfsuite.serving.request import Record, Request
from perfsuite.serving.sender import as_list, from_list

Make = Callable[..., Record]
Requests = Callable[..., list[Request]]


def outcome(records: list[Record], **changes: Any) -> Outcome:
    fields: dict[str, Any] = {"unsent": 0, "ended": "", "busy_share": 0.1, "void": ""}
    return Outcome("constant", tuple(records), **(fields | changes))


@pytest.mark.parametrize(
    ("tokens", "rate", "count"), [(4, 400.0, 1), (4, 1600.0, 4), (64, 50.0, 1), (64, 200.0, 3)]
)
def test_as_many_as_the_planned_rate_needs(
    requests: Requests, tokens: int, rate: float, count: int
) -> None:
    """By requests or by tokens a second, whichever asks for more."""
    assert clients.needed(requests(1000, tokens), constant(1000, rate)) == count


def test_one_where_no_rate_is_planned(requests: Requests) -> None:
    """A burst is sent as fast as it can be, a closed loop waits for its answers."""
    assert clients.needed(requests(5000), at_once(5000)) == 1
    assert clients.needed(requests(5000), ClosedLoop(500)) == 1
    assert clients.needed(requests(1), poisson(1, 1e6, seed=1)) == 1


def test_no_process_has_a_handful_of_requests(requests: Requests) -> None:
    """Its start would be a large part of what it sends: fifty at least."""
    assert clients.needed(requests(64), constant(64, 5000.0)) == 1
    assert clients.needed(requests(199), constant(199, 5000.0)) == 3


def test_what_the_others_sent_is_kept_where_one_breaks(
    monkeypatch: pytest.MonkeyPatch, make_record: Make
) -> None:
    """Planted: a process that answers one request, and is gone."""
    record = make_record()
    said = iter([{"say": "record", "record": as_list(record)}])

    class Broken:
        def receive(self, timeout_s: float | None) -> dict[str, Any]:
            try:
                return next(said)
            except StopIteration:
                raise PipeClosed from None

    sender = clients._Sender()
    monkeypatch.setattr(sender, "_pipe", Broken(), raising=False)
    monkeypatch.setattr(sender, "_tail", lambda: "it printed nothing")
    monkeypatch.setattr(sender, "_requests", {0: record.request, 1: record.request}, raising=False)
    found = clients.together([outcome([make_record()] * 2), sender.outcome("constant")])
    assert len(found.records) == 3
    assert found.unsent == 1
    assert "a process that sends the load is gone or silent" in found.ended


def test_every_request_is_dealt_once_and_keeps_its_moment(requests: Requests) -> None:
    """In turn, so that each process has the rate's share all the time."""
    schedule = poisson(10, 5.0, seed=3)
    shares = clients._dealt(requests(10), schedule, 3)
    assert [[request.id for request in share] for share, _ in shares] == [
        [0, 3, 6, 9], [1, 4, 7], [2, 5, 8],
    ]  # fmt: skip
    due = {request.id: request.arrival_s for share, _ in shares for request in share}
    assert [due[number] for number in range(10)] == list(schedule.times_s)


def test_users_are_dealt_too(requests: Requests) -> None:
    shares = clients._dealt(requests(20), ClosedLoop(7), 3)
    assert [users for _, users in shares] == [3, 2, 2]
    assert sorted(request.id for share, _ in shares for request in share) == list(range(20))
    assert len(clients._dealt(requests(20), ClosedLoop(2), 5)) == 2


def test_late_requests_are_counted_over_all_processes(make_record: Make) -> None:
    """A few in one process are a hiccup of the machine; half of the load is a slow client."""
    due = [10.0 + number / 100 for number in range(20)]
    good = outcome([make_record(intended_s=at, sent_s=at) for at in due], busy_share=0.3)
    slow = [make_record(intended_s=at, sent_s=at + 0.5, finished_s=11.0) for at in due]
    assert clients.together([good, good]).void == ""
    few = clients.together([good, outcome(slow[:4], void="in its own eyes")])
    assert few.void == ""
    assert (few.clients, few.busy_share, len(few.records)) == (2, 0.3, 24)
    found = clients.together([good, outcome(slow)])
    assert "the client was late: 50% of 40 requests" in found.void


def test_a_process_that_is_never_idle_makes_the_run_void(make_record: Make) -> None:
    good, busy = outcome([make_record()]), outcome([make_record()], busy_share=0.95)
    assert "used 95% of a processor" in clients.together([good, busy]).void


def test_a_load_that_is_late_as_a_whole_is_void_too(make_record: Make) -> None:
    """Each process may excuse its own burst; the load is one."""
    slow = [make_record(sent_s=10.2, token_s=[(10.21, 1)], finished_s=10.21) for _ in range(20)]
    assert clients.together([outcome(slow), outcome(slow)]).void != ""


def test_the_first_process_that_lost_the_server_tells(make_record: Make) -> None:
    found = clients.together([
        outcome([make_record()] * 2), outcome([make_record()], ended="the server is gone", unsent=3)
    ])  # fmt: skip
    assert (found.ended, found.unsent, len(found.records)) == ("the server is gone", 3, 3)


def test_an_adapter_that_has_no_elsewhere_is_refused(engine: Any, requests: Requests) -> None:
    with pytest.raises(OptionError, match="--perf-clients=2: FakeEngine can not be opened"):
        clients.offered(engine, requests(4), at_once(4), 2)


def test_a_record_goes_through_the_pipe_whole(make_record: Make) -> None:
    """All but the request, which this side has."""
    record = make_record(texts=["a"], token_ids=[1, 2], failure="http 503: busy")
    assert from_list(as_list(record), {0: record.request}) == record
