"""The limit grammar, what it refuses, and how relative and absolute limits combine."""

from __future__ import annotations

import math
import random

import pytest

from perfsuite.errors import OptionError
from perfsuite.limits import Limit, limit_of, parse_limit, parse_limits
from perfsuite.metrics import METRICS, display, metric

TTFT = metric("time_to_first_token/prefill_until_first_token")
TPOT = metric("time_per_output_token/excluding_first_token")
DECODE = metric("decode_throughput/decode_steps")
PEAK = metric("peak_memory/allocator")
OPERATORS = metric("static_operators/dispatched")


@pytest.mark.parametrize(
    ("text", "relative", "absolute"),
    [
        ("5%", 0.05, 0.0),
        ("2.5%", 0.025, 0.0),
        ("0%", 0.0, 0.0),
        ("2ms", 0.0, 0.002),
        ("5%+2ms", 0.05, 0.002),
        ("2ms+5%", 0.05, 0.002),
        (" 5 % + 2 ms ", 0.05, 0.002),
        ("1.5us", 0.0, 1.5e-6),
        ("3ns", 0.0, 3e-9),
        ("1s", 0.0, 1.0),
    ],
)
def test_a_limit_is_a_share_an_amount_or_both(
    text: str, relative: float, absolute: float
) -> None:
    """The order and blanks do not matter."""
    found = parse_limit(text, TTFT)
    assert found.relative == pytest.approx(relative)
    assert found.absolute == pytest.approx(absolute)


def test_amounts_are_in_the_units_of_the_metric() -> None:
    """Binary and decimal bytes, tokens, operations and calls."""
    assert parse_limit("64MiB", PEAK).absolute == 64 * 2**20
    assert parse_limit("64MB", PEAK).absolute == 64e6
    assert parse_limit("2ktok/s", DECODE).absolute == 2000
    assert parse_limit("3calls", OPERATORS).absolute == 3


@pytest.mark.parametrize("value", [1e-7, 1e-4, 0.1, 1, 100, 1e5, 1e7, 1e10, 1e13])
def test_every_unit_that_is_printed_can_be_a_limit(value: float) -> None:
    """What the table shows can be typed back."""
    for of in METRICS.values():
        number, unit = display(of, value).split()
        if "e" not in number:
            assert parse_limit(f"{number}{unit}", of).absolute == pytest.approx(
                value, rel=0.01, abs=1
            )


@pytest.mark.parametrize(
    ("text", "offending"),
    [
        ("", "''"),
        ("5", "'5'"),
        ("%", "'%'"),
        ("ms", "'ms'"),
        ("-5%", "'-5%'"),
        (".5%", "'.5%'"),
        ("1e3ms", "'1e3ms'"),
        ("5%%", "'5%%'"),
        ("nan%", "'nan%'"),
        ("inf%", "'inf%'"),
        ("5%+", "''"),
        ("+5%", "''"),
        ("5%,2ms", "'5%,2ms'"),
        ("5 ms s", "'5 ms s'"),
        ("2MB", "'MB'"),
        ("2MS", "'MS'"),
        ("2furlongs", "'furlongs'"),
        ("5%+2%", "'2%'"),
        ("5ms+2us", "'2us'"),
        ("5%+1ms+2ms", "'2ms'"),
    ],
)
def test_what_is_not_a_limit_is_refused_with_its_text(text: str, offending: str) -> None:
    """A limit that is half understood would gate something else than was meant."""
    with pytest.raises(OptionError) as refused:
        parse_limit(text, TTFT)
    assert repr(text) in str(refused.value)
    assert offending in str(refused.value)


def test_an_unknown_unit_is_refused_with_the_known_ones() -> None:
    """The units depend on the metric."""
    with pytest.raises(OptionError, match="known: %, B, kB, MB, GB, KiB, MiB, GiB"):
        parse_limit("5ms", PEAK)


def test_an_amount_must_fit_every_metric_of_a_kind() -> None:
    """Counts have different units, so an amount for the kind is refused."""
    with pytest.raises(OptionError, match="calls"):
        parse_limits([("count", "5calls")])
    assert parse_limits([("count", "5%")])[OPERATORS.id] == Limit(0.05)


def exceeded(limit: Limit, target: float, baseline: float) -> bool:
    """Whether a latency leaves its limit."""
    return target / baseline > limit.ratio(TTFT, baseline)


def test_a_latency_must_exceed_both_limits() -> None:
    """5 % and 2 ms: of 10 ms the amount decides, of 100 ms the share."""
    limit = Limit(0.05, 0.002)
    assert not exceeded(limit, 0.0115, 0.010)  # 15 %, but 1.5 ms
    assert exceeded(limit, 0.0125, 0.010)  # 25 % and 2.5 ms
    assert not exceeded(limit, 0.104, 0.100)  # 4 ms, but 4 %
    assert exceeded(limit, 0.106, 0.100)  # 6 ms and 6 %


def test_a_throughput_must_exceed_both_limits() -> None:
    """A loss of tokens/s is an amount below the baseline; the share is of the ratio."""
    limit = Limit(0.05, 10.0)
    for baseline, target, expected in [
        (100.0, 91.0, False),  # ratio 1.099, but 9 tok/s
        (100.0, 89.0, True),  # ratio 1.124 and 11 tok/s
        (1000.0, 960.0, False),  # 40 tok/s, but ratio 1.042
        (1000.0, 940.0, True),  # 60 tok/s and ratio 1.064
    ]:
        assert (baseline / target > limit.ratio(DECODE, baseline)) is expected


def test_an_amount_as_large_as_a_throughput_accepts_everything() -> None:
    """No loss of tokens/s can exceed what there was."""
    assert Limit(absolute=100.0).ratio(DECODE, 100.0) == math.inf
    assert Limit(absolute=101.0).ratio(DECODE, 100.0) == math.inf


def test_a_loss_of_exactly_the_amount_is_accepted() -> None:
    """Rounding does not turn a tie into a regression, in either direction."""
    source = random.Random(2)
    for _ in range(2000):
        baseline, amount = source.randint(2, 10**9), source.randint(1, 10**6)
        limit = Limit(absolute=float(amount))
        assert (baseline + amount) / baseline <= limit.ratio(PEAK, baseline)
        assert (baseline + amount + 1) / baseline > limit.ratio(PEAK, baseline)
        if amount < baseline:
            assert baseline / (baseline - amount) <= limit.ratio(DECODE, baseline)


@pytest.mark.parametrize("percent", ["1", "2.5", "3.5", "5", "7", "10"])
def test_a_loss_of_exactly_the_share_is_accepted(percent: str) -> None:
    """1 % of 700 bytes are 7 bytes, whatever binary fractions say."""
    limit = parse_limit(f"{percent}%", PEAK)
    for baseline in range(1000, 100_000, 1000):
        target = baseline + baseline * int(float(percent) * 10) // 1000
        assert target / baseline <= limit.ratio(PEAK, baseline)
        assert (target + 1) / baseline > limit.ratio(PEAK, baseline)


def test_from_zero_the_amount_decides() -> None:
    """A count that was 0 has no share to exceed; without an amount nothing is accepted but 0."""
    assert Limit(0.5).ratio(OPERATORS, 0) == 1.5
    assert Limit(0.5, 3.0).accepts_from_zero(3)
    assert not Limit(0.5, 3.0).accepts_from_zero(4)
    assert not Limit(0.5).accepts_from_zero(1)


def test_a_finer_word_wins_over_a_coarser_one_in_any_order() -> None:
    """Kind < name < id."""
    words = [
        ("time", "1%"),
        ("time_to_first_token", "2%"),
        ("time_to_first_token/prefill_until_first_token", "3%"),
    ]
    for _ in range(6):
        random.Random(3).shuffle(words)
        assert parse_limits(words)[TTFT.id] == Limit(0.03)
        assert parse_limits(words)[TPOT.id] == Limit(0.01)
    assert parse_limits([("ttft", "2%"), ("Time", "1%")])[TTFT.id] == Limit(0.02)


def test_a_title_with_a_slash_is_no_id() -> None:
    """`tokens/s` is the title of a metric: the id is finer."""
    both = [("call_throughput/tokens_per_call", "3%"), ("tokens/s", "2%")]
    assert parse_limits(both)["call_throughput/tokens_per_call"] == Limit(0.03)


def test_of_a_word_said_twice_the_later_counts() -> None:
    """As everywhere on a command line, where an ini's addopts come first."""
    assert parse_limits([("ttft", "2%"), ("TTFT", "4%")])[TTFT.id] == Limit(0.04)
    assert parse_limits([("time", "2%"), ("time", "4%")])[TTFT.id] == Limit(0.04)


def test_two_names_of_a_metric_must_agree() -> None:
    """Nobody can know which of them was meant."""
    with pytest.raises(OptionError, match="ttft and time_to_first_token contradict each other"):
        parse_limits([("ttft", "2%"), ("time_to_first_token", "4%")])
    both = [("ttft", "2%"), ("time_to_first_token", "2.0%")]
    assert parse_limits(both) == parse_limits(both[:1])


def test_the_first_layer_that_names_a_metric_decides() -> None:
    """Command line, marker, ini, and the default of the kind."""
    first, second = {TTFT.id: Limit(0.01)}, {TTFT.id: Limit(0.02), TPOT.id: Limit(0.03)}
    assert limit_of(TTFT, first, second) == Limit(0.01)
    assert limit_of(TPOT, first, second) == Limit(0.03)
    assert limit_of(DECODE, first, second) == Limit(0.05)
    assert limit_of(PEAK) == Limit(0.01)
    assert limit_of(OPERATORS) == Limit(0.0)
