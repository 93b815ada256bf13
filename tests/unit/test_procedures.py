"""What a block is, with a clock and an engine whose figures can be computed by hand."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from perfsuite.errors import Void
from perfsuite.procedures import Call, procedure
from perfsuite.workloads import Workload

PREFILL, DECODE, WAIT = 1.0, 0.25, 0.125


class Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class FakeEngine:
    """Queues work like a device; a wait lets the time of what is queued pass, and its own.

    tokens, logits   what a step holds, where a test wants something wrong
    seconds          time of a prefill by its batch; a decode step takes a quarter of it
    fits             the largest batch, beyond which `problem` is raised
    """

    def __init__(self, clock: Clock) -> None:
        self.clock, self.config = clock, {"dtype": "float32"}
        self.tokens: Callable[[int], Any] = lambda batch: [0] * batch
        self.logits: Any = None
        self.seconds: Callable[[int], float] = lambda _: PREFILL
        self.fits, self.problem = 10**6, MemoryError("too large")
        self.calls: list[str] = []
        self.prompts: list[list[list[int]]] = []
        self.was_collecting: set[bool] = set()
        self._queued = 0.0

    def prefill(self, token_ids: Sequence[Sequence[int]]) -> Any:
        self.prompts.append([list(row) for row in token_ids])
        return self._first("prefill", len(token_ids))

    def prefill_shared(self, prefix_ids: Sequence[int], batch: int) -> Any:
        self.prompts.append([list(prefix_ids)])
        return self._first("prefill_shared", batch)

    def _first(self, name: str, batch: int) -> Any:
        if batch > self.fits:
            raise self.problem
        return self._step(name, batch, self.seconds(batch))

    def decode(self, step: Any) -> Any:
        return self._step("decode", step.batch, self.seconds(step.batch) / 4)

    def _step(self, name: str, batch: int, seconds: float) -> Any:
        self.calls.append(name)
        self.was_collecting.add(gc.isenabled())
        self._queued += seconds
        return SimpleNamespace(tokens=self.tokens(batch), logits=self.logits, batch=batch)

    def wait(self, step: Any) -> None:
        self.calls.append("wait")
        self.clock.now += self._queued + WAIT
        self._queued = 0.0

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
def measured(
    make_workload: Callable[..., Workload], clock: Clock, engine: FakeEngine
) -> Callable[..., Any]:
    """The procedure of a workload, warmed up."""

    def make(**changes: Any) -> Any:
        subject = procedure(engine, make_workload(**changes), clock)  # type: ignore[arg-type]
        subject.warm_up()
        return subject

    return make


def test_a_single_user_by_hand(measured: Callable[..., Any]) -> None:
    """Whole: 1 + 3 quarters + one wait = 1.875 s; token by token: 1.125 s, then 0.375 s each."""
    assert measured(kind="single_user", batch=1).block() == {
        "time_to_first_token/prefill_until_first_token": 1.125,
        "time_per_output_token/excluding_first_token": 0.375,
        "inter_token_latency/median_step": 0.375,
        "single_user_throughput/output_tokens": 4 / 1.875,
        "single_user_throughput/prompt_and_output_tokens": 9 / 1.875,
    }


def test_throughput_waits_once_and_latency_at_every_token(
    measured: Callable[..., Any], engine: FakeEngine
) -> None:
    """The wait itself costs time: the two passes are apart."""
    subject = measured(kind="single_user", batch=1)
    engine.calls.clear()
    subject.block()
    whole = ["prefill", "decode", "decode", "decode", "wait"]
    assert engine.calls == [*whole, "prefill", "wait", *["decode", "wait"] * 3]


def test_one_output_token_has_no_time_between_tokens(measured: Callable[..., Any]) -> None:
    """Neither TPOT nor ITL: there is nothing to divide by."""
    figures = measured(kind="single_user", batch=1, output_tokens=1).block()
    assert not [name for name in figures if "output_token/" in name or "inter_token" in name]
    assert figures["single_user_throughput/output_tokens"] == 1 / 1.125


def test_a_batch_by_hand(measured: Callable[..., Any]) -> None:
    """Prefill of 3 x 5 tokens in 1.125 s; 3 x 3 tokens decoded in 0.75 s and a wait."""
    subject = measured(kind="generate")
    assert subject.block() == {
        "prompt_throughput/batch": 15 / 1.125,
        "decode_throughput/decode_steps": 9 / 0.875,
    }
    assert subject.facts() == {"config": {"dtype": "float32"}, "batch": 3}


def test_a_batch_without_decode_has_only_its_prompt(measured: Callable[..., Any]) -> None:
    """One output token comes from the prefill."""
    assert set(measured(kind="generate", output_tokens=1).block()) == {"prompt_throughput/batch"}


def test_a_shared_prefix_by_hand(measured: Callable[..., Any], engine: FakeEngine) -> None:
    """One prefix for all: its time to the first tokens, and the decode of the batch."""
    subject = measured(kind="shared", mode="hydragen", shared_tokens=6, input_tokens=0)
    assert subject.block() == {
        "time_to_first_token/prefill_until_first_token": 1.125,
        "decode_throughput/decode_steps": 9 / 0.875,
        "decode_throughput/all_less_first_token": 9 / (1.875 - 1.125),
    }
    assert "prefill" not in engine.calls
    assert {(len(prompt), len(prompt[0])) for prompt in engine.prompts} == {(1, 6)}


def test_a_difference_below_0_gives_no_rate(
    measured: Callable[..., Any], engine: FakeEngine
) -> None:
    """A prefill that was interrupted took longer than the whole: that block has no such figure."""
    subject = measured(kind="shared", mode="hydragen", shared_tokens=6, input_tokens=0)
    seconds = iter([5.0, *[PREFILL] * 7])
    engine.seconds = lambda _: next(seconds)
    assert subject.block().keys() == {
        "time_to_first_token/prefill_until_first_token", "decode_throughput/decode_steps"
    }  # fmt: skip


def test_every_block_repeats_the_same_prompts(
    measured: Callable[..., Any], engine: FakeEngine
) -> None:
    """As many rows and ids as the workload says, the same each time."""
    subject = measured(kind="generate")
    subject.block()
    subject.block()
    assert [len(row) for row in engine.prompts[0]] == [5, 5, 5]
    assert all(prompt == engine.prompts[0] for prompt in engine.prompts)


def test_no_garbage_is_collected_inside_the_clock(
    measured: Callable[..., Any], engine: FakeEngine
) -> None:
    """And afterwards it is as it was."""
    measured(kind="single_user", batch=1).block()
    assert engine.was_collecting == {False}
    assert gc.isenabled()


@pytest.mark.parametrize("kind", ["single_user", "generate", "multi_user"])
@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (lambda batch: [0] * (batch - 1), "tokens, "),
        (lambda batch: [0] * (batch + 1), "tokens, "),
        (lambda batch: SimpleNamespace(shape=(batch, 1)), "expected [batch]"),
        (lambda batch: SimpleNamespace(shape=()), "expected [batch]"),
    ],
)
def test_a_missing_token_voids_the_measurement(
    measured: Callable[..., Any],
    engine: FakeEngine,
    kind: str,
    tokens: Callable[[int], Any],
    words: str,
) -> None:
    """A sequence that ended early, or one too many, was another workload."""
    engine.tokens = tokens
    with pytest.raises(Void) as broken:
        measured(kind=kind, batch=1 if kind == "single_user" else 4)
    assert words in str(broken.value)


def test_tokens_may_be_an_array(measured: Callable[..., Any], engine: FakeEngine) -> None:
    """Anything with a shape of one dimension."""
    engine.tokens = lambda batch: SimpleNamespace(shape=(batch,))
    assert measured(kind="generate").block()["prompt_throughput/batch"] == 15 / 1.125


GOOD = [[0.5] * 10] * 3


@pytest.mark.parametrize(
    "logits",
    [None, lambda: None, GOOD, lambda: GOOD, lambda: SimpleNamespace(tolist=lambda: GOOD)],
)
def test_good_logits_pass(measured: Callable[..., Any], engine: FakeEngine, logits: Any) -> None:
    """Absent, values or a call, nested lists or an array; padded to a wider vocabulary too."""
    engine.logits = logits
    measured(kind="generate").finish()
    engine.logits = [[0.5] * 12] * 3
    measured(kind="generate").finish()


@pytest.mark.parametrize(
    ("logits", "words"),
    [
        ([[0.5] * 10] * 2, "2 sequences, expected 3"),
        ([[0.5] * 9] * 3, "expected 3 x 10"),
        ([[[0.5] * 10]] * 3, "expected 3 x 10"),
        ([0.5] * 3, "expected 3 x 10"),
        ([[0.5] * 10, [0.5] * 10, [*[0.5] * 9, math.nan]], "NaN or infinity"),
        ([[0.5] * 10, [0.5] * 10, [math.inf, *[0.5] * 9]], "NaN or infinity"),
    ],
)
def test_wrong_logits_void_the_measurement(
    measured: Callable[..., Any], engine: FakeEngine, logits: Any, words: str
) -> None:
    """Of the wrong shape, or no numbers."""
    engine.logits = logits
    subject = measured(kind="generate")
    with pytest.raises(Void, match=words):
        subject.finish()


def test_the_search_stops_where_it_no_longer_grows(
    measured: Callable[..., Any], engine: FakeEngine
) -> None:
    """As fast up to 8 sequences, then slower by the square of the batch: 8 is the best of both."""
    engine.seconds = lambda batch: PREFILL * max(1, (batch / 8) ** 2)
    subject = measured(kind="multi_user", batch=0)
    assert subject.facts() == {
        "config": {"dtype": "float32"},
        "prompt_batch": 8,
        "batch": 8,
        "search_ended": "batch 16 no longer grows",
    }
    assert subject.block() == {
        "max_prompt_throughput/best_batch": 40 / 1.125,
        "multi_user_throughput/prompt_and_output_tokens_best_batch": 72 / 1.875,
    }


def test_the_two_maxima_may_be_at_different_batches(
    measured: Callable[..., Any], engine: FakeEngine
) -> None:
    """Decoding that gets slow before the prefill does: each maximum keeps its own batch."""
    slow_decode = engine.decode

    def decode(step: Any) -> Any:
        engine.clock.now += 0.25 * max(0, step.batch - 4)
        return slow_decode(step)

    engine.decode = decode  # type: ignore[method-assign]
    engine.seconds = lambda batch: PREFILL * max(1, (batch / 16) ** 2)
    facts = measured(kind="multi_user", batch=0).facts()
    # all tokens of 4 in 1.875 s: 19.2 a second; of 8 in 4.875 s: 14.8; prompts grow up to 16
    assert (facts["prompt_batch"], facts["batch"]) == (16, 4)


def test_a_search_without_end_has_a_largest_batch(measured: Callable[..., Any]) -> None:
    """An engine that takes no longer for more is asked for 4096 sequences at most."""
    facts = measured(kind="multi_user", batch=0, input_tokens=1, output_tokens=1).facts()
    assert (facts["batch"], facts["search_ended"]) == (4096, "batch 4096 is the largest to try")


def test_the_search_stops_at_the_workloads_largest_batch(measured: Callable[..., Any]) -> None:
    """2, 4, 8 and no more."""
    facts = measured(kind="multi_user", batch=8).facts()
    assert (facts["batch"], facts["search_ended"]) == (8, "batch 8 is the largest to try")


class OutOfMemoryError(RuntimeError):
    """As torch.cuda names its own."""


@pytest.mark.parametrize(
    "problem",
    [
        MemoryError("4 GB"),
        OutOfMemoryError("CUDA out of memory: 4 GB"),
        RuntimeError("RESOURCE_EXHAUSTED: 4 GB"),
    ],
)
def test_the_search_stops_where_memory_ends(
    measured: Callable[..., Any], engine: FakeEngine, problem: Exception
) -> None:
    """However the framework calls it; the largest that fitted is measured."""
    engine.fits, engine.problem = 4, problem  # type: ignore[assignment]
    subject = measured(kind="multi_user", batch=0)
    facts = subject.facts()
    assert (facts["batch"], facts["prompt_batch"]) == (4, 4)
    assert facts["search_ended"].startswith("batch 8 no longer fits")
    assert "4 GB" in facts["search_ended"]
    assert subject.block()["max_prompt_throughput/best_batch"] == 20 / 1.125


def test_another_failure_is_no_end_of_memory(
    measured: Callable[..., Any], engine: FakeEngine
) -> None:
    """A defect of the engine is not a result of the search."""
    engine.fits, engine.problem = 4, ValueError("a defect")  # type: ignore[assignment]
    with pytest.raises(ValueError, match="a defect"):
        measured(kind="multi_user", batch=0)


def test_a_search_that_finds_nothing_is_void(
    measured: Callable[..., Any], engine: FakeEngine
) -> None:
    """Not even two sequences fit."""
    engine.fits = 1
    with pytest.raises(Void, match="no batch above 1 could run: batch 2 no longer fits"):
        measured(kind="multi_user", batch=0)


@pytest.mark.parametrize("kind", ["single_user", "generate", "multi_user"])
def test_the_memory_pass_runs_the_work_of_a_block(
    measured: Callable[..., Any], engine: FakeEngine, kind: str
) -> None:
    """One generation of the batch that is measured."""
    subject = measured(kind=kind, batch=1 if kind == "single_user" else 4)
    engine.calls.clear()
    engine.prompts.clear()
    subject.once()()
    assert engine.calls.count("prefill") == 1
    assert engine.calls.count("decode") == 3


def spinning(clock: Clock, seconds: float) -> Callable[[], object]:
    """A callable that takes that long."""

    def call() -> object:
        clock.now += seconds
        return "result"

    return call


@pytest.mark.parametrize(
    ("seconds", "least", "most"),
    [(1.0, 1, 1), (0.01, 1, 1), (0.004, 3, 3), (0.001, 10, 12), (0.000_01, 1000, 1200)],
)
def test_short_calls_are_repeated_until_a_block_is_10_ms(
    clock: Clock, seconds: float, least: int, most: int
) -> None:
    """The sample is the time of one call, whatever the count."""
    subject = Call(spinning(clock, seconds), clock)
    subject.warm_up()
    assert subject.block() == {"call_time/per_call": pytest.approx(seconds)}
    assert least <= subject.facts()["calls_per_block"] <= most


def test_tokens_of_a_call_make_a_throughput(clock: Clock) -> None:
    """Eight tokens in a quarter of a second."""
    subject = Call(spinning(clock, 0.25), clock, tokens=8)
    subject.warm_up()
    assert subject.block()["call_throughput/tokens_per_call"] == 32


def test_a_call_is_waited_for_inside_the_clock(clock: Clock) -> None:
    """Once, with the last result; also in the memory pass."""
    waited: list[object] = []

    def wait(result: object) -> None:
        waited.append(result)
        clock.now += 0.5

    subject = Call(spinning(clock, 0.25), clock, wait)
    subject.warm_up()
    waited.clear()
    assert subject.block() == {"call_time/per_call": 0.75}
    subject.once()()
    assert waited == ["result", "result"]


def test_a_call_that_takes_no_time_ends_its_warm_up(clock: Clock) -> None:
    """The count is bounded where the clock never moves."""
    subject = Call(lambda: None, clock)
    subject.warm_up()
    assert subject.facts()["calls_per_block"] >= 1_000_000


class Backwards(Clock):
    """A clock that is set back by `jump` just before the reading of this number."""

    readings, reading, jump = 0, 0, 0.0

    def __call__(self) -> float:
        self.readings += 1
        self.now -= self.jump if self.readings == self.reading else 0.0
        return self.now


# A single user's block reads at 1 and 2 around the whole, at 3 and then at every token; a batch's
# at 1, 2 and 3; the two maxima's at 1 and 2 around the prefill, at 3 and 4 around the whole.
@pytest.mark.parametrize(
    ("kind", "reading"),
    [
        ("single_user", 2),
        ("single_user", 4),
        ("single_user", 6),
        ("generate", 2),
        ("generate", 3),
        ("multi_user", 2),
        ("multi_user", 4),
    ],
)
def test_a_clock_that_goes_backwards_voids_the_block(
    make_workload: Callable[..., Workload], kind: str, reading: int
) -> None:
    """Whichever interval it is: no median hides it."""
    clock = Backwards()
    workload = make_workload(kind=kind, batch=1 if kind == "single_user" else 4)
    subject = procedure(FakeEngine(clock), workload, clock)  # type: ignore[arg-type]
    subject.warm_up()
    clock.readings, clock.reading, clock.jump = 0, reading, 9.0
    with pytest.raises(Void, match=r"the clock went back by \d"):
        subject.block()


@pytest.mark.parametrize("kind", ["single_user", "generate", "multi_user"])
def test_a_clock_that_stands_still_voids_the_measurement(
    make_workload: Callable[..., Workload], kind: str
) -> None:
    """Work that takes no time at all has no throughput."""
    clock = Clock()
    workload = make_workload(kind=kind, batch=1 if kind == "single_user" else 4)
    subject = procedure(FakeEngine(clock), workload, lambda: 5.0)  # type: ignore[arg-type]
    with pytest.raises(Void, match="the clock stood still"):
        subject.warm_up()


def test_without_a_decode_no_time_need_pass_for_it(
    make_workload: Callable[..., Workload], clock: Clock, engine: FakeEngine
) -> None:
    """A second wait for the same token may return at once."""
    waits: list[object] = []

    def wait(step: Any) -> None:
        clock.now += 0.0 if waits and waits[-1] is step else 1.0
        waits.append(step)

    engine.wait = wait  # type: ignore[method-assign]
    workload = make_workload(kind="generate", output_tokens=1)
    subject = procedure(engine, workload, clock)  # type: ignore[arg-type]
    subject.warm_up()
    assert set(subject.block()) == {"prompt_throughput/batch"}


@pytest.mark.parametrize(("jump", "words"), [(9.0, "went back by"), (1.0, "stood still")])
def test_a_call_by_a_clock_that_does_not_go_forward_is_void(jump: float, words: str) -> None:
    """In its warm-up a call may be too short for the clock, in a block it may not."""
    clock = Backwards()
    subject = Call(spinning(clock, 1.0), clock)
    subject.warm_up()
    clock.readings, clock.reading, clock.jump = 0, 2, jump
    with pytest.raises(Void, match=f"the clock {words}"):
        subject.block()


def test_a_call_is_not_repeated_by_a_clock_that_goes_backwards() -> None:
    """It would look too short for ever."""
    clock = Backwards()
    clock.reading, clock.jump = 4, 9.0  # the second of the first block whose length counts
    subject = Call(spinning(clock, 1.0), clock)
    with pytest.raises(Void, match="the clock went back by 8 s"):
        subject.warm_up()
