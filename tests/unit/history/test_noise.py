"""Outliers are moved in, resemblance is estimated, and neither takes a step for noise."""

from __future__ import annotations

import pytest
from numpy import arange
from numpy.random import default_rng

from perfsuite.history import noise


def test_one_outlier_is_moved_in_and_the_others_stay() -> None:
    """A point among near ones comes to two deviations from their middle."""
    values = [100.0, 101.0, 99.0, 100.5, 140.0, 99.5, 100.0, 101.0, 99.0]

    steady = noise.without_outliers(values)

    assert steady[4] < 104
    assert steady[:4] + steady[5:] == values[:4] + values[5:]


def test_a_new_level_of_many_deviations_is_no_outlier_once_it_has_lasted() -> None:
    """Half of a neighbourhood is enough, at the end of a series too."""
    rng = default_rng(1)
    values = [float(v) for v in 100 + rng.standard_normal(40) + 30 * (arange(40) >= 34)]

    assert min(noise.without_outliers(values)[34:]) > 120
    assert noise.without_outliers(values[:38])[-1] > 120
    assert max(noise.without_outliers(values[:35])) < 110, "one point alone is no level"


def test_values_without_noise_stay() -> None:
    """A compiled fact that changed once is not moved back."""
    values = [5.0] * 10 + [6.0] + [5.0] * 10

    assert noise.spread(values) == 0
    assert noise.without_outliers(values) == values


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0]])
def test_too_few_values_tell_no_noise(values: list[float]) -> None:
    """They stay as they are, and nothing resembles anything."""
    assert noise.without_outliers(values) == values
    assert noise.inflation(values) == 1


def test_a_straight_line_resembles_nothing() -> None:
    """Its differences have no spread."""
    assert noise.inflation([float(v) for v in range(20)]) == 1


@pytest.mark.parametrize("step", [0.0, 30.0])
def test_resemblance_is_seen_with_and_without_a_step(step: float) -> None:
    """sqrt((1 + r) / (1 - r)) of r = 0.6 is 2, whatever the levels."""
    rng = default_rng(2)
    values, shape = [0.0], step * (arange(2001) >= 1000)
    for fresh in rng.standard_normal(2000):
        values.append(0.6 * values[-1] + 0.8 * float(fresh))

    assert noise.inflation([v + float(s) for v, s in zip(values, shape, strict=True)]) == (
        pytest.approx(2, rel=0.15)
    )


def test_independent_noise_is_not_taken_to_resemble() -> None:
    """What a short series shows by chance counts for nothing."""
    rng = default_rng(3)
    factors = [noise.inflation([float(v) for v in rng.standard_normal(40)]) for _ in range(200)]

    assert sum(factor == 1 for factor in factors) > 180


def test_p_values_keep_their_tail() -> None:
    """A deviate of 4.4 that is twice as far out is one in 10^18, not 0; nothing is above 1."""
    assert noise.rescaled(1e-5, 2.0) == pytest.approx(1e-18, rel=0.1)
    assert noise.rescaled(noise.rescaled(1e-5, 5.0), 0.2) == pytest.approx(1e-5)
    assert noise.rescaled(0.0, 0.2) == 0
    assert noise.rescaled(1.0, 3.0) == 1
