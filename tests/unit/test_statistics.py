"""Spreads, margins and intervals: against scipy in another way, by properties, by simulation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import stdev

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from scipy.optimize import brentq
from scipy.special import polygamma

from perfsuite import statistics
from perfsuite.statistics import (
    ALARMS,
    LOOKS,
    PAIR_LOOKS,
    PRIOR_FREEDOM,
    PRIOR_SPREAD,
    UNKNOWN_SESSION,
    Comparison,
    Interval,
    Spread,
    between_sessions,
    compare,
    compare_pairs,
    exact,
    known_drift,
    level,
    level_interval,
    process_medians,
    spent,
    spreads,
)

FIVE = [0.99, 1.0, 1.0, 1.0, 1.01]
CALIBRATED = Spread(sessions=10, processes=5, common=0.02, own=0.01, freedom=20.0, process=0.012)
CERTAIN = Spread(sessions=10**6, processes=5, common=0.02, own=0.01, freedom=1e6, process=0.012)

repeatable = settings(derandomize=True, deadline=None, max_examples=60)
values = st.floats(1e-9, 1e12)
sessions = st.lists(st.lists(values, min_size=1, max_size=6), min_size=1, max_size=4)


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def figures(seed: int, count: int, common: float = 0.02, own: float = 0.01) -> dict[str, list]:
    """Figures of ten sessions of five processes, whose noise beside the sessions' is 1 %."""
    effects = common * noise(seed, 1, 10, 1) + own * noise(seed + 1, count, 10, 1)
    logs = effects + 0.01 * noise(seed + 2, count, 10, 5)
    return {f"figure {n}": of.tolist() for n, of in enumerate(np.exp(logs))}


# --- levels ---


def test_the_samples_of_a_process_count_as_their_median() -> None:
    """An outlier inside a process moves nothing; a process without samples is none."""
    assert process_medians([[1.0, 2.0, 900.0], [], [4.0]]) == [2.0, 4.0]


def test_the_level_of_one_side_is_the_geometric_middle() -> None:
    """Over all processes, whatever session they belong to."""
    assert level([[1.0, 4.0]]) == pytest.approx(math.log(2))
    assert level([[1.0], [8.0, 8.0]]) == pytest.approx(math.log(4))


def test_the_interval_of_a_level_is_moderated_as_in_the_formula() -> None:
    """1 and 4 have their middle at 2; four degrees of freedom are the prior's, one theirs."""
    found = level_interval([1.0, 4.0])
    pooled = (4 * 0.03**2 + 2 * math.log(2) ** 2) / 5
    half = stats.t(5).ppf(0.95) * math.sqrt(pooled / 2)
    assert found.estimate == pytest.approx(2.0)
    assert math.log(found.high / 2) == pytest.approx(half)
    assert math.log(2 / found.low) == pytest.approx(half)


def test_one_process_has_the_priors_width() -> None:
    """Nothing else is known of it."""
    half = stats.t(PRIOR_FREEDOM).ppf(0.95) * PRIOR_SPREAD
    assert math.log(level_interval([7.0]).high / 7) == pytest.approx(half)


def test_exact_figures_are_points() -> None:
    """A compiled fact has no width, even where it is infinite."""
    assert exact(7.0) == Interval(7.0, 7.0, 7.0)
    assert exact(math.inf) == Interval(math.inf, math.inf, math.inf)


def test_the_plain_spread_between_sessions_is_the_deviation_of_their_levels() -> None:
    """Whatever the processes inside differ by."""
    of = [[1.0, 1.1], [1.2, 1.0], [0.9, 1.0]]
    levels = [math.log(math.prod(session)) / 2 for session in of]
    assert between_sessions(of) == pytest.approx(stdev(levels))


# --- the looks ---


@pytest.mark.parametrize("looks", [LOOKS, PAIR_LOOKS])
def test_the_looks_spend_all_of_the_alarms_and_no_more(looks: tuple[float, ...]) -> None:
    """Each a positive part, as Pocock's function has it."""
    parts = [spent(0.01, looks, look) for look in range(len(looks))]
    assert math.fsum(parts) == pytest.approx(0.01)
    assert min(parts) > 0
    assert parts[0] == pytest.approx(0.01 * math.log(1 + (math.e - 1) * looks[0]))


# --- spreads ---


def test_a_single_figure_has_the_plain_spread_of_its_levels() -> None:
    """No other figure lends it freedom or shares an effect."""
    one = figures(1, 1)["figure 0"]
    found = spreads({"a": one})["a"]
    levels = np.log(one).mean(axis=1)
    within = math.sqrt(np.log(one).var(axis=1, ddof=1).mean())
    assert (found.sessions, found.processes, found.freedom, found.common) == (10, 5, 9, 0.0)
    assert found.own == pytest.approx(levels.std(ddof=1))
    assert found.process == pytest.approx(within)


def test_fewer_than_five_figures_share_nothing() -> None:
    """Four figures that moved together: each has all of it as its own, unmoderated."""
    of = figures(2, 4)
    for name, found in spreads(of).items():
        assert (found.common, found.freedom) == (0.0, 9)
        assert found.own == pytest.approx(np.log(of[name]).mean(axis=1).std(ddof=1))
    assert all(found.common > 0 for found in spreads(figures(2, 5)).values())


def test_what_a_session_does_to_all_is_told_from_each_figures_own() -> None:
    """As in a two-way analysis of variance, the residuals' degrees of freedom as they are."""
    of = figures(3, 40)
    levels = np.log(list(of.values())).mean(axis=2)
    residuals = levels - levels.mean(axis=0) - levels.mean(axis=1, keepdims=True) + levels.mean()
    found = list(spreads(of).values())
    assert found[0].common == pytest.approx(levels.mean(axis=0).std(ddof=1))
    raw = residuals.var(axis=1, ddof=1) * 40 / 39
    prior, freedom = moderation(raw.tolist(), 9)
    moderated = (freedom * prior + 9 * raw) / (freedom + 9)
    assert [s.own for s in found] == pytest.approx(np.sqrt(moderated).tolist())
    assert found[0].freedom == pytest.approx(freedom + 9)


def moderation(variances: Sequence[float], freedom: int) -> tuple[float, float]:
    """Smyth 2004, section 6.2, with a bracketing solver; 20 degrees of freedom at most."""
    half = freedom / 2
    logs = np.log(variances) - polygamma(0, half) + math.log(half)
    excess = logs.var(ddof=1) - polygamma(1, half)
    if excess <= 0:
        return math.exp(logs.mean()), 20.0
    prior = min(brentq(lambda x: polygamma(1, x) - excess, 1e-3, 1e6), 10.0)
    return math.exp(logs.mean() + polygamma(0, prior) - math.log(prior)), 2 * prior


def test_equal_figures_lend_each_other_freedom_unequal_ones_little() -> None:
    """The prior is worth 20 degrees of freedom at most, near none where spreads differ widely."""
    rows = noise(4, 60, 10, 1) * 0.02
    wide = rows * np.exp(2.5 * noise(5, 60, 1, 1))
    for logs, low, high in ((rows, 15.0, 20.0), (wide, 0.0, 3.0)):
        of = {str(n): np.exp(row).tolist() for n, row in enumerate(logs)}
        freedom = spreads(of)["0"].freedom - 9
        assert low < freedom <= high


def test_the_trigamma_function_is_inverted() -> None:
    """Over all that variances of variances can be."""
    for value in np.geomspace(1e-6, 1e6, 40):
        assert polygamma(1, statistics._inverse_trigamma(value)) == pytest.approx(value, rel=1e-6)


def test_an_effect_on_all_figures_changes_only_the_common_part() -> None:
    """A slow session more or less is nobody's own."""
    of = figures(6, 8, common=0.0)
    moved = [1.0, 1.2, 0.9, 1.0, 1.0, 1.1, 1.0, 1.0, 0.8, 1.0]
    slowed = {
        name: [[v * by for v in session] for session, by in zip(rows, moved, strict=True)]
        for name, rows in of.items()
    }
    for before, after in zip(spreads(of).values(), spreads(slowed).values(), strict=True):
        assert after.common > 5 * before.common
        assert after.own == pytest.approx(before.own)
        assert after.process == pytest.approx(before.process)


def test_sessions_without_any_spread_have_the_tiniest() -> None:
    """It is above zero: figures are divided by it."""
    for count in (1, 6):
        of = {str(n): [[2.0] * 3] * 4 for n in range(count)}
        found = spreads(of)["0"]
        assert 1e-6 <= found.own < 1.2e-6
        assert (found.common, found.process) == (0.0, 0.0)
        assert compare([[2.0]], [[2.0]] * 4, found, ALARMS).margin < 1e-3


def test_single_processes_know_nothing_of_their_own_spread() -> None:
    """It is in the sessions' levels, where it can not be told from theirs."""
    found = spreads({"a": [[1.0], [1.1], [0.9]]})["a"]
    assert (found.processes, found.process) == (1, 0.0)


@repeatable
@given(st.integers(1, 8), st.integers(2, 5), st.integers(1, 3), st.data())
def test_spreads_are_finite_whatever_the_figures(
    count: int, session_count: int, processes: int, data: st.DataObject
) -> None:
    """Also where one figure is a million times as noisy as another; the unit does not matter."""
    rows = st.lists(
        st.lists(values, min_size=processes, max_size=processes),
        min_size=session_count, max_size=session_count,
    )  # fmt: skip
    of = {str(n): data.draw(rows) for n in range(count)}
    in_ms = {name: [[1e3 * v for v in s] for s in rows] for name, rows in of.items()}
    for found, scaled in zip(spreads(of).values(), spreads(in_ms).values(), strict=True):
        assert found.own > 0
        assert found.freedom >= session_count - 1
        assert all(map(math.isfinite, (found.own, found.common, found.process, found.freedom)))
        assert scaled.own == pytest.approx(found.own, rel=1e-3, abs=1e-6)


# --- against a stored baseline ---


@pytest.mark.parametrize("look", [0, 1, 2])
def test_without_a_common_effect_the_margin_is_students(look: int) -> None:
    """One figure: t of the sessions' freedom, its spread on both sides, at the look's part."""
    spread = Spread(sessions=6, processes=5, common=0.0, own=0.02, freedom=5.0, process=0.0)
    found = compare([FIVE], [FIVE] * 6, spread, ALARMS, look)
    quantile = stats.t(5).isf(spent(ALARMS, LOOKS, look))
    assert found.margin == pytest.approx(quantile * 0.02 * math.sqrt(1 + 1 / 6))
    assert found.alarm(1.0) == pytest.approx(math.exp(found.margin))
    half = stats.t(5).ppf(0.95) * 0.02 * math.sqrt(1 + 1 / 6)
    assert math.log(found.ratio.high) == pytest.approx(half)


def test_the_ratio_is_that_of_the_levels() -> None:
    """Over sessions of different sizes, every process once."""
    found = compare([[2.0, 2.0, 2.0]], [[1.0], [1.0, 1.0]], CALIBRATED, ALARMS)
    assert found.ratio.estimate == pytest.approx(2.0)
    assert found.sessions_known


def test_more_processes_narrow_their_own_part_alone() -> None:
    """15 for 5: what sessions differ by stays."""
    spread = Spread(sessions=10, processes=5, common=0.0, own=0.02, freedom=90.0, process=0.02)
    between = 0.02**2 - 0.02**2 / 5
    variance = between * 2 + 0.02**2 * (1 / 15 + 1 / 5)
    found = compare([FIVE * 3], [FIVE], spread, ALARMS, 2)
    assert found.spread == pytest.approx(math.sqrt(variance))
    freedom = 90 * (variance / (2 * 0.02**2)) ** 2
    quantile = stats.t(freedom).isf(spent(ALARMS, LOOKS, 2))
    assert found.margin == pytest.approx(quantile * math.sqrt(variance))


@pytest.mark.parametrize("alarms", [ALARMS, ALARMS / 200])
def test_a_later_look_reaches_no_farther_for_the_same_alarms(alarms: float) -> None:
    """Where all of the spread is the processes', its difference to theirs is known badly."""
    spread = Spread(sessions=10, processes=5, common=0.0, own=0.01, freedom=9.0, process=0.0223)
    reaches = []
    for count in (5, 10, 15):
        variance, freedom = statistics._own_variance(spread, [count, 50], [1, 10], alarms)
        reaches.append(stats.t(freedom).isf(alarms) * math.sqrt(variance))
    for earlier, later in itertools.pairwise(reaches):
        assert later <= earlier * (1 + 1e-9)


def test_fewer_processes_than_calibrated_widen_the_margin() -> None:
    """A run with one process for a calibration with five."""
    spread = Spread(sessions=10, processes=5, common=0.0, own=0.01, freedom=9.0, process=0.02)
    one, five = (compare([[1.0] * n], [FIVE] * 10, spread, ALARMS) for n in (1, 5))
    assert one.margin > 1.5 * five.margin


def test_a_stated_drift_leaves_the_processes_to_speak_for_themselves() -> None:
    """Nothing but Student's t of both sides' processes at 0 %; a normal effect beside it else."""
    over, under = [1.0, 1.02, 0.97, 1.01], [1.0, 0.99, 1.03]
    part = spent(ALARMS, LOOKS, 0)
    pooled = (np.log(over).var(ddof=1) * 3 + np.log(under).var(ddof=1) * 2) / 5
    error = math.sqrt(pooled * (1 / 4 + 1 / 3))
    still = compare([over], [under], known_drift(0.0), ALARMS)
    assert still.margin == pytest.approx(stats.t(5).isf(part) * error)
    assert math.log(still.ratio.high / still.ratio.estimate) == pytest.approx(
        stats.t(5).ppf(0.95) * error
    )
    moving = compare([[1.0] * 4], [[1.0] * 4], known_drift(0.02), ALARMS)
    assert moving.margin == pytest.approx(stats.norm.isf(ALARMS) * 0.02 * math.sqrt(2), rel=1e-3)


def test_a_stated_drift_takes_the_prior_for_single_processes() -> None:
    """One against one: nothing was seen of their spread."""
    found = compare([[1.0]], [[1.0]], known_drift(0.0), ALARMS)
    part = spent(ALARMS, LOOKS, 0)
    assert found.margin == pytest.approx(
        stats.t(PRIOR_FREEDOM).isf(part) * PRIOR_SPREAD * math.sqrt(2)
    )


def test_without_a_spread_between_sessions_only_a_large_factor_alarms() -> None:
    """Twice the limit and the processes' own noise; the interval is theirs alone."""
    found = compare([FIVE], [FIVE], None, ALARMS)
    squares = 4 * math.fsum(math.log(v) ** 2 for v in (0.99, 1.01)) / 2
    pooled = (PRIOR_FREEDOM * PRIOR_SPREAD**2 + squares) / (PRIOR_FREEDOM + 8)
    error = math.sqrt(pooled * 2 / 5)
    assert not found.sessions_known
    assert found.margin == pytest.approx(stats.t(12).isf(spent(ALARMS, LOOKS, 0)) * error, rel=1e-3)
    assert found.alarm(1.05) == pytest.approx(1.05 * UNKNOWN_SESSION * math.exp(found.margin))
    assert math.log(found.ratio.high) == pytest.approx(stats.t(12).ppf(0.95) * error, rel=1e-3)


def test_what_would_have_been_seen_is_beyond_the_alarm() -> None:
    """By the normal quantile of the power, times the error."""
    found = Comparison(Interval(0.9, 1.0, 1.1), margin=0.05, spread=0.02)
    assert found.alarm(1.01) == pytest.approx(math.exp(0.05))
    assert found.alarm(1.10) == 1.10
    assert found.detectable(1.10) == pytest.approx(1.10 * math.exp(stats.norm.ppf(0.9) * 0.02))


@repeatable
@given(sessions, sessions, st.sampled_from([None, CALIBRATED, known_drift(0.02)]),
       st.integers(0, 2), st.sampled_from([ALARMS, ALARMS / 5000]))  # fmt: skip
def test_a_comparison_holds_together_whatever_the_figures(
    target: list[list[float]], base: list[list[float]], spread: Spread | None, look: int,
    alarms: float,
) -> None:  # fmt: skip
    """Upside down it is the reciprocal; alarms are above the limit; nothing overflows."""
    found, turned = (
        compare(*sides, spread, alarms, look) for sides in ((target, base), (base, target))
    )
    assert turned.ratio.estimate == pytest.approx(1 / found.ratio.estimate, rel=1e-6)
    assert turned.ratio.low == pytest.approx(1 / found.ratio.high, rel=1e-6)
    assert turned.margin == pytest.approx(found.margin, rel=1e-3, abs=2e-5)
    assert found.ratio.low <= found.ratio.estimate <= found.ratio.high
    assert 1.05 <= found.alarm(1.05) <= found.detectable(1.05)
    stricter = compare(target, base, spread, alarms / 10, look)
    assert stricter.margin >= found.margin


def test_a_hopeless_margin_is_a_large_number() -> None:
    """Two sessions and a suite of a thousand: Student's t of one degree of freedom is endless."""
    spread = Spread(sessions=2, processes=1, common=0.0, own=0.1, freedom=1.0, process=0.0)
    found = compare([[1.0]], [[1.0]], spread, ALARMS / 1000)
    assert found.margin > 1000
    assert found.alarm(1.05) == math.inf
    assert compare_pairs([0.0, 0.1], ALARMS / 1000).alarm(1.05) == math.inf


# --- the common effect ---


@pytest.mark.parametrize("own", [0.002, 0.01, 0.05])
@pytest.mark.parametrize("suite", [1, 20, 400])
def test_the_margin_solves_its_equation(own: float, suite: int) -> None:
    """The mean over the common effect, integrated in another way and over another variable."""
    margin = statistics._margin(own, 15.0, 0.02, 9, ALARMS / suite)
    effect, each = stats.t(9, scale=0.02), stats.t(15, scale=own)

    def integrand(common: float) -> float:
        return effect.pdf(common) * min(1.0, suite * each.sf(margin - common))

    edges = [-1.0, -0.1, 0.0, margin / 2, margin, margin + 0.1, 3.0]
    parts = [integrate.quad(integrand, *ab)[0] for ab in itertools.pairwise(edges)]
    assert math.fsum(parts) == pytest.approx(ALARMS, rel=0.02)


def test_a_probe_that_was_chosen_has_a_fourth_of_the_alarms_of_the_run_too() -> None:
    """The common effect is what the probe left of it, by choice as well."""
    found = compare([FIVE], [FIVE] * 10, replace(CALIBRATED, probe="any"), ALARMS / 7)
    plain = compare([FIVE], [FIVE] * 10, CALIBRATED, ALARMS / 7)
    part = spent(ALARMS / 7, LOOKS, 0) / 4
    variance, freedom = statistics._own_variance(CALIBRATED, [5, 50], [1, 10], part)
    common = 0.02 * math.sqrt(1.1)
    assert found.margin == pytest.approx(
        statistics._margin(math.sqrt(variance), freedom, common, 9, part, ALARMS / 4)
    )
    assert found.margin > 1.2 * plain.margin
    assert found.ratio == plain.ratio


def family_alarms(margin: float, suite: int, seed: int) -> float:
    """How often any of a suite's figures passes the margin: c and the own effects are drawn."""
    source = np.random.default_rng(seed)
    runs = 100_000
    common = 0.02 * source.standard_t(9, (runs, 1))
    own = 0.01 * source.standard_t(15, (runs, suite))
    return float(((common + own).max(axis=1) > margin).mean())


def check_held(margin_of: Callable[..., float]) -> None:
    """One unchanged run in a hundred alarms, less what is lost to the sum over the figures."""
    for suite in (1, 20):
        rate = family_alarms(margin_of(0.01, 15.0, 0.02, 9, ALARMS / suite), suite, seed=suite)
        error = math.sqrt(ALARMS / 100_000)
        assert 0.6 * ALARMS < rate < ALARMS + 3 * error


def test_the_margin_holds_the_alarms_of_a_suite() -> None:
    """One common effect for all figures, and one of each figure's own."""
    check_held(statistics._margin)


def test_leaving_the_common_effect_out_would_be_seen() -> None:
    """The planted mistake: a margin of the own effects, and one that adds the two quantiles."""
    with pytest.raises(AssertionError):
        check_held(
            lambda own, freedom, common, sessions, alarms: stats.t(freedom).isf(alarms) * own
        )
    with pytest.raises(AssertionError):
        check_held(
            lambda own, freedom, common, sessions, alarms: (
                stats.t(freedom).isf(alarms) * own + stats.t(sessions).isf(alarms) * common
            )
        )


def test_a_known_machine_alarms_once_in_a_hundred_runs_over_all_looks() -> None:
    """40 figures, 3 looks of 5 processes: any of them beyond its margin in any look."""
    source, runs, suite = np.random.default_rng(7), 40_000, 40
    between = math.sqrt(0.01**2 - 0.012**2 / 5)
    seen = CERTAIN.common * source.standard_normal((runs, 1)) * math.sqrt(1.1)
    seen = seen + between * source.standard_normal((runs, suite)) * math.sqrt(1.1)
    seen += 0.012 / math.sqrt(50) * source.standard_normal((runs, suite))
    looks = 0.012 / math.sqrt(5) * source.standard_normal((3, runs, suite))
    any_alarm = np.zeros(runs, dtype=bool)
    for look in range(3):
        flat = [[1.0] * 5 * (look + 1)]
        margin = compare(flat, [[1.0] * 5] * 10, CERTAIN, ALARMS / suite, look).margin
        any_alarm |= (seen + looks[: look + 1].mean(axis=0) > margin).any(axis=1)
    error = math.sqrt(ALARMS / runs)
    assert 0.4 * ALARMS < any_alarm.mean() < ALARMS + 3 * error


def test_a_calibrated_figure_alarms_in_less_than_one_of_a_hundred_runs() -> None:
    """Its spread estimated anew for every run from six sessions of three processes."""
    runs, alarms = 2000, 0
    effects = 0.03 * noise(8, runs, 7, 1)
    calibrated = np.exp(effects[:, :6] + 0.02 * noise(9, runs, 6, 3))
    heads = np.exp(effects[:, 6:] + 0.02 * noise(10, runs, 1, 9))
    for base, head in zip(calibrated.tolist(), heads.tolist(), strict=True):
        spread = spreads({"a": base})["a"]
        alarms += any(
            found.ratio.estimate > found.alarm(1.0)
            for look in range(3)
            for found in [compare([head[0][: 3 * (look + 1)]], base, spread, ALARMS, look)]
        )
    assert alarms <= runs * ALARMS + 3 * math.sqrt(runs * ALARMS)
    assert alarms > 0


def test_a_stated_drift_does_not_take_noisy_processes_for_quiet_ones() -> None:
    """Those of 10 % alarm as often as their look may: the prior of 3 % lends them nothing."""
    runs, alarms, part = 8000, 0, spent(ALARMS, LOOKS, 0)
    sides = np.exp(0.1 * noise(12, 2, runs, 5))
    for head, base in zip(*sides.tolist(), strict=True):
        found = compare([head], [base], known_drift(0.0), ALARMS)
        alarms += found.ratio.estimate > found.alarm(1.0)
    assert abs(alarms - runs * part) < 3 * math.sqrt(runs * part)


# --- head and base in turn ---


@pytest.mark.parametrize("look", [0, 1, 2])
def test_pairs_alarm_where_students_test_of_one_sample_does(look: int) -> None:
    """The margin is that mean whose one-sided p value is the look's part."""
    logs = (0.02 * noise(13, 8)).tolist()
    found = compare_pairs(logs, ALARMS, look)
    shifted = [v - float(np.mean(logs)) + found.margin for v in logs]
    test = stats.ttest_1samp(shifted, 0.0, alternative="greater")
    assert test.pvalue == pytest.approx(spent(ALARMS, PAIR_LOOKS, look))
    bounds = stats.ttest_1samp(logs, 0.0).confidence_interval(0.90)
    assert math.log(found.ratio.low) == pytest.approx(bounds.low)
    assert math.log(found.ratio.high) == pytest.approx(bounds.high)
    assert found.sessions_known


def test_one_pair_can_not_alarm() -> None:
    """It has no spread: nothing is known, whatever the ratio."""
    found = compare_pairs([math.log(9.0)], ALARMS)
    assert found.ratio == Interval(0.0, pytest.approx(9.0), math.inf)
    assert found.alarm(1.05) == math.inf
    assert found.detectable(1.05) == math.inf


def test_two_pairs_have_one_degree_of_freedom() -> None:
    """Student's t is wide, not infinite."""
    found = compare_pairs([0.0, 0.02], ALARMS)
    assert found.margin == pytest.approx(stats.t(1).isf(spent(ALARMS, PAIR_LOOKS, 0)) * 0.01)


def test_equal_pairs_keep_a_tiny_error() -> None:
    """Eight pairs without any difference: SAME, by an interval that is no point."""
    found = compare_pairs([0.0] * 8, ALARMS)
    assert found.ratio.low < 1 < found.ratio.high
    assert found.alarm(1.0) < 1.0001


def test_unchanged_pairs_alarm_in_less_than_one_of_a_hundred_runs() -> None:
    """A suite of 5 figures over all three looks at 8, 16 and 32 pairs."""
    runs, alarms = 600, 0
    for run in (0.02 * noise(14, runs, 5, 32)).tolist():
        alarms += any(
            found.ratio.estimate > found.alarm(1.0)
            for look, count in enumerate((8, 16, 32))
            for logs in run
            for found in [compare_pairs(logs[:count], ALARMS / 5, look)]
        )
    assert alarms <= runs * ALARMS + 3 * math.sqrt(runs * ALARMS)
