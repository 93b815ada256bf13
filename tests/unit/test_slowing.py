"""What is slowed takes exactly the share longer, by a clock that the spinning loop reads too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from perfsuite.metrics import METRICS, ratio
from perfsuite.procedures import Call, procedure
from perfsuite.slowing import SlowedCalls, SlowedEngine, Spinning, slow_benchmark
from perfsuite.workloads import Workload

PREFILL, DECODE, WAIT, CALL = 1.0, 0.25, 0.125, 0.5
TICK = 2.0**-14  # one reading; a power of two, so that sums are exact


class Clock:
    """Time that passes when told to, and by a tick with each reading."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += TICK
        return self.now


class FakeEngine:
    """Queues work like a device: only a wait lets the time of what is queued pass.

    With `queues` off it works like a processor: a call takes its time before it returns.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock, self.queued, self.config = clock, 0.0, {"dtype": "float32"}
        self.fits, self.queues = 10**6, True
        self.calls: list[str] = []

    def prefill(self, token_ids: Sequence[Any]) -> Any:
        return self._step("prefill", len(token_ids), PREFILL)

    def prefill_shared(self, prefix_ids: Sequence[int], batch: int) -> Any:
        return self._step("prefill_shared", batch, PREFILL)

    def decode(self, step: Any) -> Any:
        return self._step("decode", step.batch, DECODE)

    def emptied(self) -> Any:
        return SimpleNamespace(tokens=[0] * 3)

    def prefill_one(self, token_ids: Sequence[int]) -> Any:
        return self._step("prefill_one", 1, PREFILL)

    def insert(self, prefix: Any, state: Any, slot: int) -> Any:
        return self._step("insert", 3, DECODE)

    def generate(self, state: Any) -> Any:
        return self._step("generate", 3, DECODE)

    def attention(self) -> Any:
        return self._step("attention", 3, DECODE)

    def flush(self) -> None:
        self.clock.now += WAIT

    def answer(self, questions: Sequence[Any], new_tokens: int) -> Any:
        self._step("answer", len(questions), DECODE)
        self.clock.now += self.queued
        self.queued = 0.0
        return [[0] * new_tokens] * len(questions)

    def _step(self, name: str, batch: int, seconds: float) -> Any:
        self.calls.append(name)
        if batch > self.fits:
            raise MemoryError("planted")
        if self.queues:
            self.queued += seconds
        else:
            self.clock.now += seconds
        return SimpleNamespace(tokens=[0] * batch, batch=batch)

    def wait(self, step: Any) -> None:
        self.calls.append("wait")
        self.clock.now += self.queued + WAIT
        self.queued = 0.0

    def close(self) -> None:
        self.calls.append("close")


@pytest.fixture
def clock() -> Clock:
    """A clock at 0."""
    return Clock()


@pytest.fixture
def engine(clock: Clock) -> FakeEngine:
    """An engine on that clock."""
    return FakeEngine(clock)


@pytest.fixture
def figures(
    clock: Clock, engine: FakeEngine, make_workload: Callable[..., Workload]
) -> Callable[..., dict[str, float]]:
    """The figures of a block, on the engine itself or slowed by a share."""

    def make(share: float | None, **changes: Any) -> dict[str, float]:
        slowed: Any = engine if share is None else SlowedEngine(engine, Spinning(share, clock))
        subject = procedure(slowed, make_workload(**changes), clock)
        subject.warm_up()
        return subject.block()

    return make


KINDS = (
    {"kind": "single_user", "batch": 1},
    {"kind": "generate"},
    {"kind": "generate", "document": "jetstream"},  # by its slots
    {"kind": "shared", "shared_tokens": 7},
    {"kind": "multi_user", "batch": 8},
    {"kind": "attention", "shared_tokens": 7},
    {"kind": "needles", "shared_tokens": 7},
)


@pytest.mark.parametrize("changes", KINDS, ids=lambda changes: changes["kind"])
@pytest.mark.parametrize("queues", [True, False], ids=["queueing", "working"])
@pytest.mark.parametrize("share", [0.0, 0.05, 1.0])
def test_every_figure_of_every_procedure_moves_by_the_share(
    figures: Callable[..., dict[str, float]],
    engine: FakeEngine,
    changes: dict[str, Any],
    share: float,
    queues: bool,
) -> None:
    """Whole, in phases or token by token, with one wait or many: all by the same factor."""
    engine.queues = queues
    plain, slowed = figures(None, **changes), figures(share, **changes)
    assert plain.keys() == slowed.keys()
    for name, value in plain.items():
        loss = ratio(METRICS[name.partition("@")[0]], slowed[name], value)
        assert loss == pytest.approx(1 + share, abs=0.002), name


def test_an_engine_whose_work_is_queued_is_slowed_at_its_wait(
    clock: Clock, engine: FakeEngine
) -> None:
    """Nothing passes while calls queue; the wait takes 1.375 s of work and a fifth of it."""
    spinning = Spinning(0.2, clock)
    slowed = SlowedEngine(engine, spinning)
    slowed.decode(slowed.prefill([[1]]))
    assert clock.now == pytest.approx(0, abs=4 * TICK)
    slowed.wait(SimpleNamespace())
    assert clock.now == pytest.approx(1.375 * 1.2, abs=8 * TICK)
    assert spinning.facts() == {"share": 0.2, "spun": pytest.approx(0.2, abs=0.001)}


def test_time_between_a_wait_and_the_next_call_is_not_slowed(
    clock: Clock, engine: FakeEngine
) -> None:
    """What the host does between two spans is its own; a wait without a call is too."""
    slowed = SlowedEngine(engine, Spinning(1.0, clock))
    slowed.wait(slowed.prefill([[1]]))
    clock.now += 100
    before = clock.now
    slowed.wait(SimpleNamespace())
    assert clock.now - before == WAIT
    slowed.wait(slowed.prefill([[1]]))
    assert clock.now - before == pytest.approx(WAIT + 2 * (PREFILL + WAIT), abs=8 * TICK)


@pytest.mark.parametrize("broken", ["prefill", "prefill_shared", "decode", "wait"])
def test_a_call_that_raises_begins_no_span(clock: Clock, engine: FakeEngine, broken: str) -> None:
    """A batch that did not fit must not lengthen the next one."""
    slowed = SlowedEngine(engine, Spinning(1.0, clock))

    def raises(*args: object) -> None:
        raise MemoryError

    step = slowed.prefill([[1]]) if broken in ("decode", "wait") else None
    original = getattr(engine, broken)
    setattr(engine, broken, raises)
    arguments = {"prefill": ([[1]],), "prefill_shared": ([1], 1)}.get(broken, (step,))
    with pytest.raises(MemoryError):
        getattr(slowed, broken)(*arguments)
    setattr(engine, broken, original)

    engine.queued, start = 0.0, clock.now + 100
    clock.now = start
    slowed.wait(slowed.prefill([[1]]))
    assert clock.now - start == pytest.approx(2 * (PREFILL + WAIT), abs=8 * TICK)


def test_a_search_that_ends_out_of_memory_is_slowed_truthfully(
    figures: Callable[..., dict[str, float]], engine: FakeEngine
) -> None:
    """The largest batch that fits is found, and its blocks take twice the time."""
    engine.fits = 4
    plain = figures(None, kind="multi_user", batch=64)
    slowed = figures(1.0, kind="multi_user", batch=64)
    assert [plain[name] / slowed[name] for name in plain] == [pytest.approx(2, abs=0.002)] * 2


def test_with_no_share_the_wrapping_changes_no_call(
    figures: Callable[..., dict[str, float]], engine: FakeEngine
) -> None:
    """0 %: the same calls in the same order."""
    figures(None, kind="single_user", batch=1)
    plain = engine.calls.copy()
    engine.calls.clear()
    figures(0.0, kind="single_user", batch=1)
    assert engine.calls == plain


def test_all_else_is_the_engines_own(clock: Clock, engine: FakeEngine) -> None:
    """Configuration as it is now, closing, and whatever an engine has of its own."""
    slowed = SlowedEngine(engine, Spinning(0.5, clock))
    assert slowed.config is engine.config
    engine.config = {"dtype": "float64"}
    assert slowed.config == {"dtype": "float64"}
    assert slowed.fits == 10**6
    slowed.close()
    assert engine.calls == ["close"]
    assert clock.now == 0
    assert not hasattr(slowed, "missing")


@pytest.mark.parametrize("share", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("seconds", [CALL, 0.0005], ids=["long", "short"])
def test_a_callable_moves_by_the_share(clock: Clock, share: float, seconds: float) -> None:
    """Also one so short that a block repeats it, and one whose work is done at the wait."""
    queued = 0.0

    def work() -> None:
        nonlocal queued
        queued += seconds

    def wait(result: object) -> None:
        nonlocal queued
        clock.now += queued
        queued = 0.0

    def block(slowed: bool) -> float:
        calls = SlowedCalls(wait, Spinning(share, clock))
        subject = Call(work, calls.clock, calls.wait) if slowed else Call(work, clock, wait)
        subject.warm_up()
        return subject.block()["call_time/per_call"]

    assert block(slowed=True) / block(slowed=False) == pytest.approx(1 + share, rel=0.03)


def test_a_callable_outside_its_clock_is_not_slowed(clock: Clock) -> None:
    """The memory pass calls and waits without a clock; what lies before it is no span."""
    spinning = Spinning(1.0, clock)
    calls = SlowedCalls(lambda result: None, spinning)
    subject = Call(lambda: None, calls.clock, calls.wait)
    subject.block()
    spun = spinning.spun_s
    clock.now += 100
    subject.once()()
    assert spinning.spun_s == spun


class FakeBenchmark:
    """The two public ways of pytest-benchmark's fixture, and the one through them."""

    def __init__(self) -> None:
        self.extra_info: dict[str, str] = {}

    def __call__(self, function_to_benchmark: Any, *args: Any, **kwargs: Any) -> Any:
        return function_to_benchmark(*args, **kwargs)

    def pedantic(self, target: Any, args: Any = (), kwargs: Any = None) -> Any:
        return target(*args, **(kwargs or {}))

    def weave(self, function: Any) -> Any:
        return self(function)


def test_a_benchmark_is_called_with_a_slowed_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """In each of its ways, for whoever holds it, with its own arguments and result."""
    clock = Clock()
    monkeypatch.setattr("perfsuite.slowing.Spinning", lambda share: Spinning(share, clock))

    def work(what: str, more: int = 0) -> tuple[str, int]:
        clock.now += 1.0
        return what, more

    fixture = FakeBenchmark()
    slow_benchmark(fixture, 0.25)
    ways: tuple[Callable[[], object], ...] = (
        lambda: fixture(work, "a", more=1),
        lambda: fixture.pedantic(work, args=("a",), kwargs={"more": 1}),
        lambda: fixture.weave(lambda: work("a", more=1)),
    )
    for way in ways:
        before = clock.now
        assert way() == ("a", 1)
        assert clock.now - before == pytest.approx(1.25, abs=8 * TICK)
    assert isinstance(fixture, FakeBenchmark)
    assert fixture.extra_info == {"perfsuite_self_test": "slowed by 25.00% on purpose"}


def test_a_function_that_raises_is_slowed_by_nothing_afterwards() -> None:
    """The exception is the function's; its span ends with it."""
    clock = Clock()
    spinning = Spinning(1.0, clock)
    with pytest.raises(ZeroDivisionError):
        spinning.around(lambda: 1 / 0)()
    clock.now += 100
    assert spinning.around(lambda: 7)() == 7
    assert spinning.spun_s < 10 * TICK


def test_without_a_share_or_a_fixture_nothing_is_touched() -> None:
    """An ordinary run leaves pytest-benchmark as it is."""
    fixture = FakeBenchmark()
    slow_benchmark(fixture, None)
    slow_benchmark(None, 0.1)
    assert type(fixture) is FakeBenchmark
    assert fixture.extra_info == {}
