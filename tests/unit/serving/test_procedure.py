"""The document's serving protocol on an endpoint that answers as it is told."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvloop", reason="needs the extra serving")

from perfsuite.adapters import RequestFailed
from perfsuite.errors import Void
from perfsuite.serving import clients, lateness
from perfsuite.serving.client import Outcome
from perfsuite.serving.procedure import ServingLoad
from perfsuite.serving.request import Record
from perfsuite.workloads import Workload


class Endpoint:
    """The conftest's engine behind all adapters."""

    def __init__(self, engine: Any) -> None:
        self.config, self.engine = {"endpoint": "fake"}, engine
        engine.first_s, engine.each_s = 0.002, 0.0001

    def adapter(self) -> Any:
        return self.engine

    def close(self) -> None:
        pass


@pytest.fixture
def endpoint(engine: Any, monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    """On a machine that may be busy: the client may be late."""
    monkeypatch.setattr(lateness, "LATE_FLOOR_S", 100.0)
    monkeypatch.setattr(lateness, "BUSY_SHARE", 100.0)
    return Endpoint(engine)


def loads(endpoint: Any, make_workload: Callable[..., Workload], **options: str) -> ServingLoad:
    asked = tuple(sorted({"num_prompts": "12", **options}.items()))
    workload = make_workload(kind="serving", input_tokens=64, output_tokens=8, options=asked)
    return ServingLoad(endpoint, workload, time.perf_counter)


@pytest.fixture
def load(endpoint: Endpoint, make_workload: Callable[..., Workload]) -> ServingLoad:
    """Twelve prompts of 64 tokens at most."""
    return loads(endpoint, make_workload)


def test_a_block_is_a_load_at_once_and_a_user_who_is_alone(
    load: ServingLoad, endpoint: Endpoint
) -> None:
    figures = load.block()
    assert len(endpoint.engine.sent) == 12 + 8
    assert endpoint.engine.most_under_way == 12
    assert figures["failed_requests/all"] == 0
    assert figures["served_time_to_first_token/low_load_median"] >= 0.002
    assert load.facts()["load"] == "all at once"


def test_the_same_lengths_and_never_the_same_words(
    load: ServingLoad, endpoint: Endpoint, make_workload: Callable[..., Workload]
) -> None:
    """Another process draws the same lengths in its rounds, and finds nothing in a cache."""
    load.warm_up()
    load.block()
    mine, endpoint.engine.sent = endpoint.engine.sent, []
    again = loads(endpoint, make_workload)
    again.warm_up()
    again.block()
    theirs = endpoint.engine.sent

    def lengths(requests: Any) -> list[tuple[int, int]]:
        return sorted((len(request.prompt), request.max_tokens) for request in requests)

    assert lengths(mine) == lengths(theirs)
    long = [tuple(request.prompt) for request in [*mine, *theirs] if len(request.prompt) > 8]
    assert len(set(long)) == len(long) > 8


def test_a_server_that_answers_nothing_is_no_measurement(
    load: ServingLoad, endpoint: Endpoint
) -> None:
    """Otherwise the count of failures would be the baseline, and equal the next time."""
    endpoint.engine.fails = lambda request: RequestFailed("http 503", "busy")
    with pytest.raises(Void, match="none of 12 requests was answered; the first: http 503: busy"):
        load.block()


def test_one_failure_of_many_is_counted(load: ServingLoad, endpoint: Endpoint) -> None:
    endpoint.engine.fails = lambda request: RequestFailed("http 500") if request.id == 3 else None
    figures = load.block()
    assert figures["failed_requests/all"] == 1
    assert load.facts()["failures"] == {"http 500": 1}


def test_arrivals_are_the_workloads(
    endpoint: Endpoint, make_workload: Callable[..., Workload]
) -> None:
    """Of the load; the user who is alone stays alone."""
    load = loads(endpoint, make_workload, arrivals="users:3")
    load.block()
    assert endpoint.engine.most_under_way == 3
    facts = load.facts()
    assert facts["load"] == facts["config"]["arrivals"] == "closed loop of 3 users"
    assert "sending" not in facts


def test_a_burst_says_how_long_sending_took(load: ServingLoad) -> None:
    """A part of what the client, not the server, took."""
    load.block()
    assert re.fullmatch(r"took \d+ ms, \d+% of the load", load.facts()["sending"])


def test_requests_are_logged_also_where_the_run_is_void(
    endpoint: Endpoint, make_workload: Callable[..., Workload], tmp_path: Path
) -> None:
    """That is when somebody wants to see them."""
    load = loads(endpoint, make_workload, requests_folder=str(tmp_path))
    endpoint.engine.fails = lambda request: RequestFailed("http 503", "busy")
    with pytest.raises(Void):
        load.block()
    (file,) = tmp_path.iterdir()
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["failure"] for row in rows] == ["http 503: busy"] * 12
    assert load.facts()["requests_file"] == str(file)


def test_a_folder_that_can_not_be_written_is_told_before_anything_is_sent(
    endpoint: Endpoint, make_workload: Callable[..., Workload], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Void, match="can not be written"):
        loads(endpoint, make_workload, requests_folder=str(tmp_path / "file" / "below"))
    assert endpoint.engine.sent == []


def test_an_adapter_that_others_can_not_open_is_not_sent_by_two(
    endpoint: Endpoint, make_workload: Callable[..., Workload]
) -> None:
    """What was asked for is refused; what the rate alone would need is sent by one."""
    with pytest.raises(Void, match="can not be opened in another process"):
        loads(endpoint, make_workload, clients="2").block()
    load = loads(endpoint, make_workload, arrivals="constant:5000")
    load.block()
    assert load.facts()["clients"] == 1


def test_a_schedule_that_outlasts_the_timeout_is_told_before_anything_is_sent(
    endpoint: Endpoint, make_workload: Callable[..., Workload]
) -> None:
    """Otherwise the process that waits would give the worker up in the middle of it."""
    options = (("arrivals", "constant:0.01"), ("num_prompts", "12"))
    workload = make_workload(kind="serving", input_tokens=64, output_tokens=8, options=options)
    load = ServingLoad(endpoint, workload, time.perf_counter, timeout_s=600.0)
    with pytest.raises(Void, match=r"due after 1100 s, a block may take 600 s\ngive a --perf-time"):
        load.block()
    assert endpoint.engine.sent == []


def test_what_several_sent_is_logged_where_one_broke(
    endpoint: Endpoint,
    make_workload: Callable[..., Workload],
    make_record: Callable[..., Record],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = Outcome("all at once", (make_record(),), 11, "a process is gone", 0.1, "", clients=2)
    monkeypatch.setattr(clients, "offered", lambda *_: left)
    load = loads(endpoint, make_workload, requests_folder=str(tmp_path), clients="2")
    with pytest.raises(Void, match="a process is gone"):
        load.block()
    (file,) = tmp_path.iterdir()
    assert len(file.read_text().splitlines()) == 1
