"""The document's serving protocol on an endpoint that answers as it is told."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("uvloop", reason="needs the extra serving")

from perfsuite.adapters import RequestFailed
from perfsuite.errors import Void
from perfsuite.serving import lateness
from perfsuite.serving.procedure import ServingLoad
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


@pytest.fixture
def load(endpoint: Endpoint, make_workload: Callable[..., Workload]) -> ServingLoad:
    """Twelve prompts of 64 tokens at most."""
    workload = make_workload(kind="serving", input_tokens=64, output_tokens=8,
                             options=(("num_prompts", "12"),))  # fmt: skip
    return ServingLoad(endpoint, workload, time.perf_counter)


def test_a_block_is_a_load_at_once_and_a_user_who_is_alone(
    load: ServingLoad, endpoint: Endpoint
) -> None:
    figures = load.block()
    assert len(endpoint.engine.sent) == 12 + 8
    assert endpoint.engine.most_under_way == 12
    assert figures["failed_requests/all"] == 0
    assert figures["served_time_to_first_token/low_load_median"] >= 0.002
    assert load.facts()["load"] == "all at once"


def test_the_same_lengths_and_never_the_same_words(load: ServingLoad, endpoint: Endpoint) -> None:
    """Another process draws the same lengths in its rounds, and finds nothing in a cache."""
    load.warm_up()
    load.block()
    mine, endpoint.engine.sent = endpoint.engine.sent, []
    again = ServingLoad(endpoint, load._workload, load._clock)
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
