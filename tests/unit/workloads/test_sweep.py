"""The sweep grammar: what it means, and what it refuses and why."""

from __future__ import annotations

import doctest

import pytest

from perfsuite.workloads import SweepError, parse_sweep, sweep


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("7", (7,)),
        ("0", (0,)),
        ("1024,2048", (1024, 2048)),
        ("16256,1024", (16256, 1024)),
        ("0:513:16", tuple(range(0, 513, 16))),
        ("0:512:16", tuple(range(0, 512, 16))),
        ("5:6:100", (5,)),
        ("32:129:x2", (32, 64, 128)),
        ("32:128:x2", (32, 64)),
        ("8192:131073:x2", (8192, 16384, 32768, 65536, 131072)),
        ("1:10:x3", (1, 3, 9)),
    ],
)
def test_values(text: str, values: tuple[int, ...]) -> None:
    """The three forms give their values in order, the end of a range left out."""
    assert parse_sweep(text) == values


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it is empty"),
        (" ", "it contains a blank"),
        ("1, 2", "it contains a blank"),
        ("1:5: 1", "it contains a blank"),
        ("1,2\n", "it contains a blank"),
        ("1,2:5:1", "it mixes ',' and ':'"),
        ("1:5", "it has 2 fields"),
        ("1:5:1:1", "it has 4 fields"),
        (":", "it has 2 fields"),
        ("1::1", "'' is not an integer"),
        ("1,,2", "'' is not an integer"),
        ("1,2,", "'' is not an integer"),
        ("a", "'a' is not an integer"),
        ("1.5", "'1.5' is not an integer"),
        ("1_000", "'1_000' is not an integer"),
        ("+1", "'+1' is not an integer"),
        ("²", "'²' is not an integer"),
        ("٣", "'٣' is not an integer"),
        ("1:5:y2", "'y2' is not an integer"),
        ("1:5:x", "'' is not an integer"),
        ("1:5:X2", "'X2' is not an integer"),
        ("-1", "-1 is negative"),
        ("1,-2", "-2 is negative"),
        ("1:5:-1", "-1 is negative"),
        ("1:5:x-2", "-2 is negative"),
        ("1:5:0", "step 0"),
        ("1:5:x0", "factor x0"),
        ("1:5:x1", "factor x1"),
        ("0:5:x2", "a geometric start of 0"),
        ("5:5:1", "start 5 is not below end 5"),
        ("9:5:1", "start 9 is not below end 5"),
        ("8:8:x2", "start 8 is not below end 8"),
        ("1,2,1", "it repeats 1"),
        ("1,01", "it repeats 1"),
    ],
)
def test_refusals(text: str, problem: str) -> None:
    """A sweep that cannot be meant is refused with its text, the problem and what was expected."""
    with pytest.raises(SweepError) as caught:
        parse_sweep(text)
    message = str(caught.value)
    assert message.startswith(f"sweep {text!r}: ")
    assert problem in message
    assert "; expected " in message


def test_sweep_error_is_a_value_error() -> None:
    """Callers that know nothing of the grammar can catch ValueError."""
    assert issubclass(SweepError, ValueError)


def test_docstring_examples() -> None:
    """The examples in the docstrings run and are true."""
    results = doctest.testmod(sweep)
    assert results.attempted >= 3
    assert results.failed == 0
