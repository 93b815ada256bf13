"""Intervals of ratios: against scipy's quantiles, by hand, and by simulation."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import pytest

from perfsuite.statistics import (
    PRIOR_FREEDOM,
    PRIOR_SPREAD,
    Interval,
    drift_allowance,
    exact,
    median_interval,
    process_medians,
    ratio_interval,
    t_99,
)
from perfsuite.verdict import Verdict, judge

RUNS = 4000


@pytest.mark.parametrize("freedom", [*range(1, 41), 60, 120, 1000])
def test_t_quantiles_agree_with_scipy(freedom: int) -> None:
    """The table to its last digit, the series beyond it to a thousandth."""
    stats = pytest.importorskip("scipy.stats", reason="scipy has the quantiles to compare with")
    assert t_99(freedom) == pytest.approx(stats.t.ppf(0.99, freedom), abs=0.0011)


def test_t_quantiles_fall() -> None:
    """More processes never make an interval wider, also where the table ends."""
    quantiles = [t_99(freedom) for freedom in range(1, 200)]
    assert quantiles == sorted(quantiles, reverse=True)


def test_one_process_against_one_has_the_width_of_the_prior() -> None:
    """Without a spread of its own the margin is t(4) * 3 % * sqrt(2)."""
    found = ratio_interval([2.0], [1.0])
    margin = 3.747 * 0.03 * math.sqrt(2)
    assert found.estimate == pytest.approx(2.0)
    assert math.log(found.high / 2) == pytest.approx(margin)
    assert math.log(2 / found.low) == pytest.approx(margin)


def test_the_spread_is_moderated_as_in_the_formula() -> None:
    """By hand: two and two processes, deviations of +-0.1 and +-0.2 in logarithms."""
    over = [math.exp(0.1), math.exp(-0.1)]
    under = [math.exp(0.2), math.exp(-0.2)]
    squares = 2 * 0.01 + 2 * 0.04
    pooled = (4 * 0.0009 + squares) / (4 + 2)
    margin = 3.143 * math.sqrt(pooled * (1 / 2 + 1 / 2))
    assert math.log(ratio_interval(over, under).high) == pytest.approx(margin)


def test_the_level_of_one_side_is_the_geometric_middle() -> None:
    """1 and 4 have their middle at 2; the margin is that of one side."""
    found = median_interval([1.0, 4.0])
    deviation = math.log(2)
    pooled = (4 * 0.0009 + 2 * deviation**2) / 5
    assert found.estimate == pytest.approx(2.0)
    assert math.log(found.high / 2) == pytest.approx(3.365 * math.sqrt(pooled / 2))


def test_a_ratio_upside_down_is_the_reciprocal_interval() -> None:
    """What a throughput lost is what its time won: the bounds change places."""
    over, under = [1.0, 1.1, 0.95], [2.0, 2.1]
    one, other = ratio_interval(over, under), ratio_interval(under, over)
    assert other.estimate == pytest.approx(1 / one.estimate)
    assert other.low == pytest.approx(1 / one.high)
    assert other.high == pytest.approx(1 / one.low)


def test_the_unit_does_not_matter() -> None:
    """Seconds or milliseconds: the interval of the ratio is the same."""
    over, under = [1.0, 1.1, 0.95], [2.0, 2.1]
    scaled = ratio_interval([v * 1e3 for v in over], [v * 1e3 for v in under])
    assert scaled.low == pytest.approx(ratio_interval(over, under).low)


def test_more_processes_narrow_the_interval() -> None:
    """Five on each side know more than one."""
    one = ratio_interval([1.0], [1.0])
    five = ratio_interval([1.0] * 5, [1.0] * 5)
    assert five.half_width < one.half_width / 2


def test_exact_figures_are_points() -> None:
    """A compiled fact has no width, even where it is infinite."""
    assert exact(7.0) == Interval(7.0, 7.0, 7.0)
    assert exact(7.0).half_width == 0


def test_half_width_is_relative_to_the_estimate() -> None:
    """0.02 reads "give or take 2 %"."""
    assert Interval(98.0, 100.0, 102.0).half_width == pytest.approx(0.02)
    assert Interval(0.0, 0.0, 0.0).half_width == 0


def test_the_samples_of_a_process_count_as_their_median() -> None:
    """An outlier inside a process moves nothing; a process without samples is none."""
    assert process_medians([[1.0, 2.0, 900.0], [], [4.0]]) == [2.0, 4.0]


def simulated(spread: float, count: int, seed: int, slower: float = 1.0) -> Iterator[Interval]:
    """Intervals of the ratio of two sides of `count` processes, log-normal with that spread."""
    source = random.Random(seed)
    for _ in range(RUNS):
        over = [slower * math.exp(source.gauss(0, spread)) for _ in range(count)]
        under = [math.exp(source.gauss(0, spread)) for _ in range(count)]
        yield ratio_interval(over, under)


@pytest.mark.parametrize("count", [1, 2, 5, 10])
def test_with_the_priors_spread_the_interval_covers_the_truth(count: int) -> None:
    """At least 98 % of the intervals hold the true ratio, less three binomial errors."""
    covered = sum(i.low <= 1 <= i.high for i in simulated(PRIOR_SPREAD, count, seed=4))
    error = math.sqrt(0.98 * 0.02 / RUNS)
    assert covered / RUNS >= 0.98 - 3 * error


@pytest.mark.parametrize("count", [1, 2, 5])
def test_equal_sides_are_hardly_ever_worse(count: int) -> None:
    """With the prior's spread and a limit of 5 %, false alarms stay below 1 %."""
    alarms = [judge(i, 1.05).verdict is Verdict.WORSE for i in simulated(PRIOR_SPREAD, count, 5)]
    assert sum(alarms) / RUNS < 0.01


@pytest.mark.parametrize("count", [2, 5])
def test_also_on_a_machine_twice_as_noisy(count: int) -> None:
    """The sides' own spread takes over from the prior before false alarms reach 2 %."""
    noisy = simulated(2 * PRIOR_SPREAD, count, seed=6)
    alarms = [judge(i, 1.05).verdict is Verdict.WORSE for i in noisy]
    assert sum(alarms) / RUNS < 0.02


def test_a_loss_of_a_quarter_is_found() -> None:
    """Five processes a side with the prior's spread see 1.25 against 1.05 in nine of ten runs."""
    found = simulated(PRIOR_SPREAD, 5, seed=7, slower=1.25)
    losses = [judge(i, 1.05).verdict is Verdict.WORSE for i in found]
    assert sum(losses) / RUNS > 0.9


def test_the_prior_gives_way_to_many_processes() -> None:
    """A hundred quiet processes make the interval narrower than the prior alone would."""
    source = random.Random(8)
    sides = [[math.exp(source.gauss(0, 0.001)) for _ in range(100)] for _ in range(2)]
    prior_alone = t_99(PRIOR_FREEDOM + 198) * PRIOR_SPREAD * math.sqrt(2 / 100)
    assert ratio_interval(*sides).half_width < prior_alone / 3


def test_the_allowance_for_drift_holds_in_one_of_a_hundred_comparisons() -> None:
    """Two sessions whose levels spread by 10 % pass it about once in a hundred times."""
    generator = random.Random(3)
    allowance = drift_allowance(0.10)
    passed = sum(
        generator.gauss(0, 0.10) - generator.gauss(0, 0.10) > math.log(allowance)
        for _ in range(100_000)
    )
    # the binomial standard deviation of 1,000 in 100,000 is 31
    assert abs(passed - 1000) < 4 * 31
    assert drift_allowance(0.0) == 1.0
