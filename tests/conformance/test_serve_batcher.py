"""The batch: nothing lost, nothing twice, slots freed, a bounded queue, an orderly end."""

from __future__ import annotations

import gc
import queue
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from engines.serve.batcher import Batcher, Closed, Full, News, Ticket
from tests.conformance.serve_runs import STOP, Fake, answer_to

NEVER: frozenset[int] = frozenset()


@contextmanager
def running(engine: Fake, places: int = 8) -> Iterator[Batcher]:
    """A batch whose news go to each ticket's own queue."""

    def tell(news: list[News]) -> None:
        for each in news:
            each.ticket.mailbox.put(each)

    batcher = Batcher(engine, places, tell)
    batcher.begin()
    try:
        yield batcher
    finally:
        if engine.gate is not None:
            engine.gate.release(10_000)
        batcher.abort("the test is over")
        batcher.join()


def ticket(prompt: Any = (1, 2, 3), tokens: int = 5, stops: frozenset[int] = NEVER) -> Ticket:
    return Ticket(tuple(prompt), tokens, stops, mailbox=queue.Queue())


def answer(one: Ticket) -> tuple[list[int], str]:
    """Its tokens and how it ended; fails where news come after the end."""
    tokens = []
    while True:
        news = one.mailbox.get(timeout=20)
        if news.token is not None:
            tokens.append(news.token)
        if news.finish:
            assert one.mailbox.empty()
            return tokens, news.finish


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def many(batcher: Batcher, count: int, seed: int) -> None:
    """Ask for answers of random lengths and check each; some are given up on the way."""
    random_ = random.Random(seed)
    for _ in range(count):
        prompt = [random_.randrange(10, 900) for _ in range(random_.randrange(1, 30))]
        one = ticket(prompt, random_.randrange(1, 12))
        while True:
            try:
                batcher.submit(one)
                break
            except Full:
                time.sleep(0.0005)
        if random_.random() < 0.1:
            batcher.give_up(one)
            continue
        assert answer(one) == (answer_to(prompt, one.max_tokens), "length")


def test_thousands_of_requests_are_answered_once_each() -> None:
    engine = Fake(slots=5)
    failures: list[BaseException] = []

    def client(seed: int) -> None:
        try:
            many(batcher, 400, seed)
        except BaseException as problem:  # noqa: BLE001  (shown by the test)
            failures.append(problem)

    with running(engine, places=3) as batcher:
        clients = [threading.Thread(target=client, args=(seed,)) for seed in range(12)]
        for each in clients:
            each.start()
        for each in clients:
            each.join()
        until(lambda: not batcher.running and not batcher.waiting)
    assert not failures
    assert not engine.seats


def test_planted_tokens_of_another_slot_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Fake.step
    monkeypatch.setattr(Fake, "step", lambda self: [step(self)[-1]] * self.slots)
    with running(Fake()) as batcher, pytest.raises(AssertionError):
        many(batcher, 50, seed=1)


def test_answered_requests_leave_nothing_behind() -> None:
    with running(Fake()) as batcher:
        alive = []
        for number in range(500):
            one = ticket([number % 900], 2)
            alive.append(weakref.ref(one))
            batcher.submit(one)
            answer(one)
        del one
        batcher.submit(last := ticket())
        answer(last)
        until(lambda: not batcher.running)
        gc.collect()
        assert sum(each() is not None for each in alive) <= 1  # the thread's last locals


def test_a_stop_token_ends_an_answer_and_is_counted() -> None:
    with running(Fake(stop_after=3)) as batcher:
        batcher.submit(one := ticket(stops=frozenset({STOP})))
        assert answer(one) == ([*answer_to((1, 2, 3), 2), STOP], "stop")
        batcher.submit(one := ticket())  # as ignore_eos asks
        assert answer(one)[1] == "length"


def given_up_is_freed(
    batcher: Batcher, engine: Fake, gate: threading.Semaphore, within_s: float = 20
) -> bool:
    """Whether a request gets the one slot when the request in it has been given up."""
    batcher.submit(first := ticket(tokens=1000))
    until(lambda: engine.seats)
    batcher.submit(second := ticket([9], 1))
    batcher.give_up(first)
    gate.release(3)
    try:
        return second.mailbox.get(timeout=within_s).finish == "length"
    except queue.Empty:
        return False


def test_a_request_given_up_frees_its_slot() -> None:
    gate = threading.Semaphore(0)
    with running(engine := Fake(slots=1, gate=gate)) as batcher:
        assert given_up_is_freed(batcher, engine, gate)


def test_planted_a_slot_that_is_not_freed_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Batcher, "_free_given_up", lambda self: None)
    gate = threading.Semaphore(0)
    with running(engine := Fake(slots=1, gate=gate)) as batcher:
        assert not given_up_is_freed(batcher, engine, gate, within_s=1)


def test_a_request_given_up_while_it_waits_frees_its_place() -> None:
    gate = threading.Semaphore(0)
    with running(Fake(slots=1, gate=gate), places=1) as batcher:
        batcher.submit(ticket(tokens=1000))
        batcher.submit(waits := ticket())
        with pytest.raises(Full, match="1 slots are busy and 1 requests wait: try again later"):
            batcher.submit(ticket())
        batcher.give_up(waits)
        batcher.submit(ticket())
        assert waits.mailbox.empty()


def test_free_slots_take_requests_without_a_queue() -> None:
    gate = threading.Semaphore(0)
    with running(Fake(slots=2, gate=gate), places=0) as batcher:
        batcher.submit(ticket(tokens=1000))
        batcher.submit(ticket(tokens=1000))
        with pytest.raises(Full):
            batcher.submit(ticket())


def test_long_prompts_do_not_start_all_at_once() -> None:
    """Between two starts there is a step, for those under way."""
    gate = threading.Semaphore(0)
    with running(engine := Fake(slots=4, gate=gate)) as batcher:
        batcher.submit(first := ticket(tokens=1))
        answer(first)
        engine.calls.clear()
        with batcher._changed:  # the thread sees them together
            for number in range(4):
                batcher._waiting.append(ticket([number + 1] * 900, 50))
            batcher._changed.notify()
        gate.release(50)
        until(lambda: len([name for name, _ in engine.calls if name == "start"]) == 2)
        starts = [call for call in engine.calls if call[0] == "start"]
        assert starts == [("start", [0, 1]), ("start", [2, 3])]
        between = engine.calls[engine.calls.index(starts[0]) + 1 : engine.calls.index(starts[1])]
        assert ("step", [0, 1]) in between


def test_an_engine_that_fails_fails_every_request_once() -> None:
    ended = threading.Event()
    with running(Fake(slots=2, fails_at=3)) as batcher:
        batcher.ended = ended.set
        tickets = [ticket([number + 1], 50) for number in range(5)]
        for each in tickets:
            try:
                batcher.submit(each)
            except Closed:
                each.mailbox.put(News(each, None, "refused"))
        found = [answer(each)[1] for each in tickets]
        assert set(found) <= {"error: the engine failed: RuntimeError: planted", "refused"}
        assert ended.wait(20)
        with pytest.raises(Closed, match="RuntimeError: planted"):
            batcher.submit(ticket())


def test_closing_answers_what_was_taken_and_takes_no_more() -> None:
    gate = threading.Semaphore(0)
    with running(Fake(slots=1, gate=gate)) as batcher:
        tickets = [ticket([number + 1], 3) for number in range(3)]
        for each in tickets:
            batcher.submit(each)
        batcher.close()
        with pytest.raises(Closed, match="the server is stopping"):
            batcher.submit(ticket())
        gate.release(100)
        assert [answer(each)[1] for each in tickets] == ["length"] * 3
        batcher.join()


def test_aborting_ends_all_with_the_reason() -> None:
    gate = threading.Semaphore(0)
    with running(engine := Fake(slots=1, gate=gate)) as batcher:
        tickets = [ticket([number + 1], 300) for number in range(3)]
        for each in tickets:
            batcher.submit(each)
        until(lambda: engine.seats)
        batcher.abort("planted end")
        gate.release(100)
        assert [answer(each)[1] for each in tickets] == ["error: planted end"] * 3
