"""Slow changes: many small losses are one drift, steps and noise are none."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from numpy import arange, ndarray
from numpy.random import default_rng

from perfsuite.history.drift import drift


def noisy(shape: ndarray, seed: int = 1) -> list[float]:
    return [float(v) for v in 100 + shape + default_rng(seed).standard_normal(len(shape))]


def _mann_kendall(values: Sequence[float]) -> int:
    """The plainest form: later values that are larger, less those that are smaller."""
    return sum(
        (later > earlier) - (later < earlier)
        for at, earlier in enumerate(values)
        for later in values[at + 1 :]
    )


def test_the_test_is_scipys_and_the_slope_too() -> None:
    """Against Kendall's tau and Theil's slopes as scipy has them."""
    stats = pytest.importorskip("scipy.stats")
    values = noisy(0.01 * arange(60))

    found = drift(values, [], 1.0)

    kendall = stats.kendalltau(range(60), values, method="asymptotic").pvalue
    assert found.p_value == pytest.approx(kendall, rel=0.05)  # scipy has no continuity correction
    slope = stats.theilslopes(values, range(60)).slope
    assert found.after - found.before == pytest.approx(59 * slope)
    assert _mann_kendall(values) > 0, "the planted slope is upwards"
    assert found.after > found.before


def test_ten_losses_of_half_a_percent_are_a_drift_of_five() -> None:
    """Each of them is half of the noise."""
    found = drift(noisy(0.5 * (arange(220) // 20)), [], 1.0)

    assert found.p_value < 1e-20
    assert found.after / found.before == pytest.approx(1.05, abs=0.01)


def test_a_step_that_is_known_is_no_drift_and_hides_none() -> None:
    """Pairs on both sides of a step tell nothing; those on one side do."""
    step = 10.0 * (arange(200) >= 90)

    assert drift(noisy(step), [], 1.0).p_value < 1e-20
    assert drift(noisy(step), [90], 1.0).p_value > 0.001
    sloped = drift(noisy(step - 5 * arange(200) / 200), [90], 1.0)
    assert sloped.p_value < 1e-5
    assert sloped.after - sloped.before == pytest.approx(-5, abs=1)


def test_noise_that_resembles_itself_is_believed_less() -> None:
    """The deviate shrinks by the factor."""
    values = noisy(0.02 * arange(60))

    assert drift(values, [], 2.0).p_value > drift(values, [], 1.0).p_value


def test_quiet_series_do_not_drift() -> None:
    """P values are as likely as they say."""
    p_values = [drift(noisy(0.0 * arange(40), seed), [], 1.0).p_value for seed in range(400)]

    assert 8 <= sum(p < 0.05 for p in p_values) <= 34
    assert min(p_values) > 1e-5


def test_short_levels_and_equal_values_tell_nothing() -> None:
    """No pairs, no drift; ties are no rises."""
    for values in ([1.0, 2.0, 3.0, 4.0], [7.0] * 50):
        found = drift(values, [], 1.0)
        assert found.p_value == 1
        assert found.before == found.after


def test_a_long_series_is_taken_in_means() -> None:
    """The slope stays that of the runs, and memory small."""
    found = drift(noisy(5 * arange(20_000) / 20_000), [], 1.0)

    assert found.p_value < 1e-20
    assert found.after / found.before == pytest.approx(1.05, abs=0.005)
