"""Pairs of processes that took turns: ratios of neighbouring blocks, one value a pair."""

from __future__ import annotations

import math

import pytest

from perfsuite.crew import ItemRun
from perfsuite.pairing import Duel, Pair, _does_not_fit
from perfsuite.sampling import Measured

TIME = "call_time/per_call"
RATE = "call_throughput/tokens_per_call"
PEAK = "peak_memory/allocator"


def ran(part: str = "", once: float | None = None, **blocks: list[float]) -> ItemRun:
    named = {"time": TIME, "rate": RATE}
    names = list(blocks)
    rows = [
        {named[name]: value for name, value in zip(names, values, strict=True)}
        for values in zip(*blocks.values(), strict=True)
    ]
    kept = {} if once is None else {PEAK: once}
    return ItemRun(measured={part: Measured(blocks=rows, once=kept)})


def test_a_drift_of_the_machine_cancels() -> None:
    """Both sides slow down tenfold meanwhile; neighbours still differ by a tenth."""
    pace = [1.0, 2.0, 4.0, 7.0, 10.0]
    head, base = ran(time=[1.1 * p for p in pace]), ran(time=pace)
    found = Duel([Pair(head, base)]).gathered("base")
    assert found.log_ratios[TIME] == [pytest.approx(math.log(1.1))]
    assert found.levels[TIME] == [4.0]


def test_a_lost_throughput_is_a_ratio_above_one() -> None:
    """Half the tokens a second are twice the cost."""
    found = Duel([Pair(ran(rate=[50.0, 50.0]), ran(rate=[100.0, 100.0]))]).gathered("base")
    assert found.log_ratios[RATE] == [pytest.approx(math.log(2))]


def test_every_pair_gives_one_value_and_names_keep_their_part() -> None:
    """Three pairs, three values; what one side alone measured is named."""
    pairs = [Pair(ran("x", time=[1.0], once=9.0), ran("x", time=[1.0])) for _ in range(3)]
    found = Duel(pairs).gathered("base")
    assert found.log_ratios == {f"{TIME}@x": [0.0] * 3}
    assert found.only_base == ()
    turned = [Pair(pair.base, pair.head) for pair in pairs]
    assert Duel(turned).gathered("base").only_base == (f"{PEAK}@x",)


def test_unequal_numbers_of_blocks_are_compared_by_their_middle() -> None:
    """Whole processes in turn have no neighbours."""
    found = Duel([Pair(ran(time=[3.0, 2.0, 2.0]), ran(time=[1.0, 1.0]))]).gathered("base")
    assert found.log_ratios[TIME] == [pytest.approx(math.log(2))]


def test_counts_of_zero_are_equal_or_infinitely_apart() -> None:
    """No logarithm of zero is taken."""

    def ratio(head: float, base: float) -> float:
        pair = Pair(ran(once=head, time=[1.0]), ran(once=base, time=[1.0]))
        return Duel([pair]).gathered("base").log_ratios[PEAK][0]

    assert ratio(0.0, 0.0) == 0.0
    assert ratio(1.0, 0.0) == math.inf
    assert ratio(0.0, 1.0) == -math.inf


@pytest.mark.parametrize(
    "text",
    [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB",
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate",
        "MemoryError",
        "the worker was killed by SIGKILL (out of memory, most likely) while running the test",
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate",
    ],
)
def test_what_does_not_fit_is_known_by_its_words(text: str) -> None:
    """Then whole processes alternate."""
    assert _does_not_fit(ItemRun(void=text))
    failed = {"outcome": "failed", "xfail": False, "text": text}
    assert _does_not_fit(ItemRun(reports=[failed]))
    assert not _does_not_fit(ItemRun(void="ValueError: wrong shape"))
