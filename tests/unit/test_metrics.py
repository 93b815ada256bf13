"""The metrics: ids, directions, refusals, and the only place that converts units."""

from __future__ import annotations

import math
import random

import pytest

from perfsuite.errors import OptionError
from perfsuite.metrics import (
    DEFAULT_LIMITS,
    METRICS,
    Metric,
    display,
    matching,
    metric,
    ratio,
    refusal,
)

TTFT = metric("time_to_first_token/prefill_until_first_token")
DECODE = metric("decode_throughput/decode_steps")
PEAK = metric("peak_memory/allocator")
OPERATIONS = metric("static_operations/matrix_products")
OPERATORS = metric("static_operators/dispatched")


def test_an_id_is_name_and_definition() -> None:
    """Two definitions of one name are two metrics."""
    found = {m.id for m in METRICS.values() if m.name == "single_user_throughput"}
    assert found == {
        "single_user_throughput/output_tokens",
        "single_user_throughput/prompt_and_output_tokens",
    }


def test_titles_tell_metrics_apart() -> None:
    """No two metrics are called the same in the table."""
    titles = [m.title for m in METRICS.values()]
    assert len(set(titles)) == len(titles) == len(METRICS)


def test_every_kind_has_a_default_limit() -> None:
    """A metric without a limit of its own is still gated."""
    assert {m.kind for m in METRICS.values()} == set(DEFAULT_LIMITS)


def test_what_is_compiled_is_exact_and_what_is_timed_is_not() -> None:
    """Only figures without noise are judged as points."""
    exact = {m.kind for m in METRICS.values() if m.exact}
    assert exact == {"memory", "count"}
    assert all(m.exact for m in METRICS.values() if m.name.startswith("static_"))


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("ttft", {"time_to_first_token"}),
        ("TTFT", {"time_to_first_token"}),
        (" time_to_first_token ", {"time_to_first_token"}),
        ("time_to_first_token/prefill_until_first_token", {"time_to_first_token"}),
        ("single_user_throughput", {"single_user_throughput"}),
        ("tokens/s", {"call_throughput"}),
        ("count", {m.name for m in METRICS.values() if m.kind == "count"}),
    ],
)
def test_a_selector_is_a_kind_a_name_a_title_or_an_id(selector: str, names: set[str]) -> None:
    """All four words for a metric find it, whatever their case."""
    assert {m.name for m in matching(selector)} == names


@pytest.mark.parametrize("selector", ["ttfft", "", "time_to_first_token/other"])
def test_an_unknown_selector_is_refused_with_the_known_words(selector: str) -> None:
    """A misspelt metric would otherwise be a limit without effect."""
    with pytest.raises(OptionError) as refused:
        matching(selector)
    text = str(refused.value)
    assert repr(selector) in text
    assert "time, throughput, memory, count" in text
    assert "time_per_output_token" in text


@pytest.mark.parametrize(
    ("of", "target", "baseline", "expected"),
    [
        (TTFT, 0.011, 0.010, 1.1),
        (PEAK, 50, 100, 0.5),
        (DECODE, 50, 100, 2.0),
        (DECODE, 200, 100, 0.5),
        (OPERATORS, 0, 0, 1.0),
        (OPERATORS, 3, 0, math.inf),
        (OPERATORS, 0, 3, 0.0),
    ],
)
def test_a_ratio_below_one_is_better(
    of: Metric, target: float, baseline: float, expected: float
) -> None:
    """Target over baseline, upside down for a throughput; from nothing to something is infinite."""
    assert ratio(of, target, baseline) == pytest.approx(expected)


@pytest.mark.parametrize("of", [TTFT, DECODE, PEAK])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, -math.inf])
def test_what_cannot_be_a_figure_is_refused(of: Metric, value: float) -> None:
    """No time, rate or size is zero, negative or not a number; the text names the metric."""
    assert of.id in (refusal(of, value) or "")


def test_only_a_count_may_be_zero() -> None:
    """A program may have no operation of a sort; it cannot have a negative number of them."""
    assert refusal(OPERATORS, 0) is None
    assert refusal(TTFT, 1e-9) is None
    assert "above zero" in (refusal(OPERATORS, -1) or "")


@pytest.mark.parametrize(
    ("of", "value", "text"),
    [
        (TTFT, 0.01241, "12.41 ms"),
        (TTFT, 1.0, "1 s"),
        (TTFT, 1234.5, "1234 s"),
        (TTFT, 2.5e-6, "2.5 us"),
        (TTFT, 2.5e-10, "0.25 ns"),
        (PEAK, 17_860_000_000, "17.86 GB"),
        (PEAK, 17_860_000_000_000, "17860 GB"),
        (PEAK, 999, "999 B"),
        (PEAK, 1000, "1 kB"),
        (DECODE, 12_345.6, "12.35 ktok/s"),
        (DECODE, 0.5, "0.5 tok/s"),
        (OPERATIONS, 3e12, "3 Top"),
        (OPERATORS, 1234567, "1234567 calls"),
        (OPERATORS, 0, "0 calls"),
    ],
)
def test_display_has_four_digits_and_a_unit(of: Metric, value: float, text: str) -> None:
    """Figures for people: decimal prefixes, counts whole."""
    assert display(of, value) == text


def test_display_shows_the_figure_that_was() -> None:
    """Read back, the printed number is within half of its last digit, over 20 decades."""
    sizes = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
    source = random.Random(1)
    for _ in range(2000):
        value = 10 ** source.uniform(-12, 4)
        number, unit = display(TTFT, value).split()
        assert float(number) * sizes[unit] == pytest.approx(value, rel=6e-4)
