"""Steps are found, noise is none, a slope is a drift; and each guard is needed.

Rates are measured by bench/change_points.py; here are clear cases with fixed seeds.
"""

from __future__ import annotations

from typing import Any

import pytest
from numpy import arange, ndarray
from numpy.random import default_rng

pytest.importorskip("otava.analysis", reason="needs Apache Otava: tox run -e changes")

from perfsuite.errors import PerfError
from perfsuite.history import change_points, noise
from perfsuite.history.change_points import FEWEST, find


def noisy(shape: ndarray, seed: int = 1) -> list[float]:
    return [float(v) for v in 100 + shape + default_rng(seed).standard_normal(len(shape))]


def places(values: list[float], **how: Any) -> list[int]:
    return [point.index for point in find(values, **how).points]


def with_outliers(seed: int) -> list[float]:
    rng = default_rng(seed)
    return [float(v) for v in 100 + rng.standard_normal(200) + 20 * (rng.random(200) < 0.05)]


def correlated(seed: int) -> list[float]:
    values = [0.0]
    for fresh in default_rng(seed).standard_normal(399):
        values.append(0.7 * values[-1] + 0.51**0.5 * float(fresh))
    return [100 + value for value in values]


def growing(seed: int) -> list[float]:
    """Noise of five times the size since the sixtieth point, of one level."""
    size = 1 + 4 * (arange(200) >= 60)
    return [float(v) for v in 100 + size * default_rng(seed).standard_normal(200)]


SLOPE = 5 * arange(200) / 200
STAIRS = 0.5 * (arange(220) // 20)


def test_a_step_has_its_place_its_levels_and_its_confidence() -> None:
    """3 % in noise of 1 %."""
    (point,) = find(noisy(3.0 * (arange(120) >= 70))).points

    assert abs(point.index - 70) <= 2
    assert point.before == pytest.approx(100, abs=0.5)
    assert point.after == pytest.approx(103, abs=0.5)
    assert 0 < point.p_value < 1e-10


@pytest.mark.parametrize("direction", [3.0, -3.0])
def test_a_step_at_the_end_is_found_within_ten_points(direction: float) -> None:
    """Of twenty series all but two at most, up and down."""
    shape = direction * (arange(60) >= 50)

    found = [any(abs(at - 50) <= 2 for at in places(noisy(shape, seed))) for seed in range(20)]

    assert sum(found) >= 18


def test_quiet_points_have_none() -> None:
    """5,000 of them, with a slope in none."""
    for seed in range(10):
        found = find(noisy(0.0 * arange(500), seed))
        assert found.points == ()
        assert found.drift is None


def test_a_large_step_has_one_place_whatever_its_size() -> None:
    """Noise is a share of the level, a hundred times the level too."""
    for size in (1.5, 100.0, 0.01):
        shares = 1 + 0.01 * default_rng(5).standard_normal(60)
        values = [float(v) for v in shares * (1 + (size - 1) * (arange(60) >= 40))]

        assert places(values) == [40]
        assert places(values[:46]) == [40]


def test_noise_that_grows_makes_no_levels() -> None:
    """Of twenty series one at most has a point."""
    assert sum(len(places(growing(seed))) for seed in range(20)) <= 1


def test_two_steps_near_each_other_are_two() -> None:
    """Up, and up again or down, fifteen points later."""
    x = arange(200)
    up, down = 4.0 * (x >= 100) + 4.0 * (x >= 115), 4.0 * ((x >= 100) & (x < 115))

    for shape in (up, down):
        first, second = places(noisy(shape))
        assert abs(first - 100) <= 2
        assert abs(second - 115) <= 2


def test_one_bad_run_is_no_change() -> None:
    """Twice the time, once, in the middle or at the end."""
    for at in (60, 119):
        assert places(noisy(100.0 * (arange(120) == at))) == []


@pytest.mark.parametrize("shape", [SLOPE, -SLOPE, STAIRS])
def test_slow_losses_are_one_drift_and_no_steps(shape: ndarray) -> None:
    """A slope and ten losses of 0.5 % are told as what they are."""
    found = find(noisy(shape))

    assert found.points == ()
    assert found.drift is not None
    assert found.drift.after - found.drift.before == pytest.approx(shape[-1], abs=1)


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("exact", [False, True])
def test_smooth_growth_is_a_drift(direction: int, exact: bool) -> None:
    """Without any noise, as of bytes that are allocated: no run resembles the one before."""
    found = find([1000.0 + 50 * at for at in range(200)][::direction], exact=exact)

    assert found.points == ()
    assert found.drift is not None
    assert (found.drift.after > 5 * found.drift.before) is (direction == 1)
    assert (found.drift.before > 5 * found.drift.after) is (direction == -1)


def test_a_step_on_a_slope_is_told_beside_it() -> None:
    """Both are there, so both are told."""
    found = find(noisy(SLOPE + 8.0 * (arange(200) >= 80)))

    assert [abs(point.index - 80) <= 2 for point in found.points] == [True]
    assert found.drift is not None


def test_of_an_exact_figure_every_change_is_one() -> None:
    """An episode of one run too, with which noise would have been blamed."""
    values = [5.0] * 20 + [6.0] + [5.0] * 20

    assert places(values, exact=True) == [20, 21]
    levels = [(p.before, p.after, p.p_value) for p in find(values, exact=True).points]
    assert levels == [(5.0, 6.0, 0.0), (6.0, 5.0, 0.0)]
    assert places(values) == []


def test_an_exact_figure_that_flickers_is_noise() -> None:
    """A count that is 100 or 101 by chance has no change points, and one when its level moves."""
    flicker = default_rng(4).integers(0, 2, 100)

    assert places([100.0 + float(f) for f in flicker], exact=True) == []
    moved = [100.0 + float(f) + 9 * (at >= 50) for at, f in enumerate(flicker)]
    assert places(moved, exact=True) == [50]


@pytest.mark.parametrize("values", [[], [1.0], [1.0] * (FEWEST - 1), [7.0] * 50, [0.0] * 9])
def test_few_and_equal_values_show_nothing(values: list[float]) -> None:
    """Nor do they warn or fail."""
    assert find(values) == change_points.Found()


def test_counts_may_come_from_zero() -> None:
    """No division by the level before."""
    assert places([0.0] * 20 + [3.0] * 5) == [20]


def test_without_otava_the_error_has_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install, and why elsewhere."""
    monkeypatch.setattr(change_points, "find_spec", lambda _: None)

    with pytest.raises(PerfError, match=r"pip install 'perfsuite\[history,changes\]'"):
        find([1.0] * 10)


class TestPlantedBugs:
    """What each part is there for shows when it is taken out."""

    def test_an_inverted_p_value_finds_no_step(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The smaller, the surer."""
        values = noisy(3.0 * (arange(120) >= 70))
        assert len(places(values)) == 1

        monkeypatch.setattr(change_points, "MAX_P", 1e-300)

        assert places(values) == []

    def test_otavas_own_p_value_finds_changes_in_quiet(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """About one in a thousand points."""
        monkeypatch.setattr(change_points, "MAX_P", 1e-3)

        assert any(places(noisy(0.0 * arange(500), seed)) for seed in range(10))

    def test_without_the_slope_a_drift_is_steps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Which no commit made."""
        monkeypatch.setattr(change_points, "_beside_a_slope", lambda _, points: points)

        assert places(noisy(SLOPE))

    def test_without_fresh_p_values_noise_that_grows_makes_levels(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Otava leaves the p value of a shorter level where it takes the next point back."""
        from otava.analysis import merge

        def once(points: Any, values: Any, max_p: float) -> Any:
            return merge(list(points), values, max_pvalue=max_p, min_magnitude=0.0)

        monkeypatch.setattr(change_points, "_merged", once)

        assert sum(len(places(growing(seed))) for seed in range(20)) >= 2

    def test_without_the_clip_outliers_are_levels(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One busy run of twenty is enough."""
        assert sum(len(places(with_outliers(seed))) for seed in range(10)) <= 1

        monkeypatch.setattr(noise, "_FARTHEST", 1e9)
        monkeypatch.setattr(change_points, "MAX_P", 1e-3)

        assert sum(len(places(with_outliers(seed))) for seed in range(10)) >= 3

    def test_without_the_resemblance_states_of_a_machine_are_changes(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Runs that resemble the run before make levels of their own."""
        assert sum(len(places(correlated(seed))) for seed in range(5)) <= 3

        monkeypatch.setattr(noise, "_STRONGEST", 0.0)

        assert sum(len(places(correlated(seed))) for seed in range(5)) >= 10


def test_an_otava_that_can_not_be_imported_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an installation whose numpy does not fit."""

    def broken(name: str) -> None:
        raise ImportError(f"{name}: numpy 1 was asked for")

    monkeypatch.setattr(change_points, "import_module", broken)
    with pytest.raises(
        PerfError, match=r"(?s)can not be imported \(ImportError: otava.*environment"
    ):
        find([1.0] * 2 * FEWEST)
