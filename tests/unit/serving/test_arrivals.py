"""When requests are due: named as what it is, seeded, at the rate that was asked for."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import fmean, pstdev

import pytest

from perfsuite.errors import OptionError
from perfsuite.serving import arrivals
from perfsuite.serving.arrivals import ClosedLoop, Schedule
from perfsuite.serving.request import Request

MANY = 20_000


def gaps(schedule: Schedule) -> list[float]:
    return [after - before for before, after in pairwise((0.0, *schedule.times_s))]


def test_names_say_what_a_load_is() -> None:
    """Nobody may take a closed loop for Poisson."""
    assert arrivals.at_once(3).name == "all at once"
    assert arrivals.poisson(3, 2.5, seed=0).name == "Poisson, 2.5 requests/s"
    assert arrivals.gamma(3, 2, 0.5, seed=0).name == "gamma, 2 requests/s, shape 0.5"
    assert arrivals.constant(3, 2).name == "constant, 2 requests/s"
    assert arrivals.trace([1.0]).name == "trace"
    assert ClosedLoop(8).name == "closed loop of 8 users"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_poisson_gaps_are_exponential(seed: int) -> None:
    """Mean and spread of the gaps are 1 / rate; a share of exp(-1) is longer than the mean."""
    found = gaps(arrivals.poisson(MANY, 50.0, seed))
    assert fmean(found) == pytest.approx(0.02, rel=0.05)
    assert pstdev(found) == pytest.approx(0.02, rel=0.05)
    assert sum(gap > 0.02 for gap in found) / MANY == pytest.approx(math.exp(-1), abs=0.02)


def test_poisson_is_not_rescaled_to_end_on_time() -> None:
    """The last arrivals of many seeds spread as a sum of exponentials does."""
    ends = [arrivals.poisson(100, 1.0, seed).times_s[-1] for seed in range(200)]
    assert pstdev(ends) == pytest.approx(10.0, rel=0.25)


@pytest.mark.parametrize("shape", [0.25, 1.0, 4.0])
def test_burstiness_is_the_shape_of_a_gamma_distribution(shape: float) -> None:
    """The mean stays, the spread is mean / sqrt(shape)."""
    found = gaps(arrivals.gamma(MANY, 50.0, shape, seed=3))
    assert fmean(found) == pytest.approx(0.02, rel=0.08)
    assert pstdev(found) == pytest.approx(0.02 / math.sqrt(shape), rel=0.08)


def test_a_constant_rate_and_a_burst() -> None:
    """Both start at 0."""
    assert arrivals.constant(4, 2.0).times_s == (0.0, 0.5, 1.0, 1.5)
    assert arrivals.at_once(3).times_s == (0.0, 0.0, 0.0)


def test_a_trace_starts_with_its_first_arrival() -> None:
    """Whatever zero it was recorded from; simultaneous arrivals are one moment."""
    assert arrivals.trace([100.0, 100.5, 100.5, 103.0]).times_s == (0.0, 0.5, 0.5, 3.0)


def test_a_seed_is_a_schedule() -> None:
    """The same seed gives the same moments, another one others."""
    assert arrivals.poisson(9, 1.0, 7) == arrivals.poisson(9, 1.0, 7)
    assert arrivals.poisson(9, 1.0, 7) != arrivals.poisson(9, 1.0, 8)


@pytest.mark.parametrize("times", [[], [2.0, 1.0], [0.0, math.nan], [0.0, math.inf], [math.nan]])
def test_a_trace_that_is_none_is_refused(times: list[float]) -> None:
    """It would be another load than was recorded."""
    with pytest.raises(OptionError, match="trace"):
        arrivals.trace(times)


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_a_rate_is_finite_and_above_zero(rate: float) -> None:
    """All at once has a name of its own."""
    for make in (arrivals.constant, lambda n, r: arrivals.poisson(n, r, 0)):
        with pytest.raises(OptionError, match="requests/s"):
            make(3, rate)


@pytest.mark.parametrize("shape", [0.0, -1.0, math.inf, math.nan])
def test_burstiness_is_finite_and_above_zero(shape: float) -> None:
    """An infinite one would be a constant rate, which has a name of its own."""
    with pytest.raises(OptionError, match="burstiness"):
        arrivals.gamma(3, 1.0, shape, seed=0)


def test_a_closed_loop_has_users() -> None:
    """None would never end."""
    with pytest.raises(OptionError, match="0 users"):
        ClosedLoop(0)


def test_requests_get_their_moments() -> None:
    """In their order; more requests than moments are refused."""
    asked = [Request(number, (1,), 1) for number in range(3)]
    due = arrivals.on_schedule(asked, arrivals.constant(3, 2.0))
    assert [(request.id, request.arrival_s) for request in due] == [(0, 0.0), (1, 0.5), (2, 1.0)]
    with pytest.raises(OptionError, match="2 arrivals for 3 requests"):
        arrivals.on_schedule(asked, arrivals.constant(2, 2.0))
