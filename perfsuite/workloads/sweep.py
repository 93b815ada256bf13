"""The sweep grammar of the Hydragen command lines.

    list        1024,2048     these values, in this order
    arithmetic  0:513:16      0, 16 ... 512: the end is exclusive
    geometric   32:129:x2     32, 64, 128: the end is exclusive

The original loops for ever on `x1` and on a geometric start of 0, and takes an empty sweep without
a word. Here whatever cannot be meant is refused.
"""

from __future__ import annotations

import re
from typing import NoReturn


class SweepError(ValueError):
    """A sweep that cannot be meant; the text says which, what is wrong and what was expected."""


def parse_sweep(text: str) -> tuple[int, ...]:
    """The values of a sweep, in order, without repetition and never empty.

    Raises SweepError for everything that the three forms do not allow.

    >>> parse_sweep("1024,2048")
    (1024, 2048)
    >>> parse_sweep("32:129:x2")
    (32, 64, 128)
    >>> parse_sweep("0:513:16")[-1]
    512
    """
    if not text:
        _refuse(text, "it is empty", "a list (1024,2048) or a range (0:513:16 or 32:129:x2)")
    if any(character.isspace() for character in text):
        _refuse(text, "it contains a blank", "the same without blanks")
    if "," in text and ":" in text:
        _refuse(text, "it mixes ',' and ':'", "either a list or one range")
    return _range(text) if ":" in text else _list(text)


def _list(text: str) -> tuple[int, ...]:
    values = tuple(_integer(text, field) for field in text.split(","))
    repeated = sorted({value for value in values if values.count(value) > 1})
    if repeated:
        _refuse(text, f"it repeats {repeated[0]}", "each value once")
    return values


def _range(text: str) -> tuple[int, ...]:
    fields = text.split(":")
    if len(fields) != 3:
        _refuse(text, f"it has {len(fields)} fields", "three fields, START:END:STEP or :xFACTOR")
    start, end = _integer(text, fields[0]), _integer(text, fields[1])
    if start >= end:
        _refuse(text, f"start {start} is not below end {end}", "a start below the exclusive end")
    if fields[2].startswith("x"):
        return _geometric(text, start, end, _integer(text, fields[2][1:]))
    return _arithmetic(text, start, end, _integer(text, fields[2]))


def _arithmetic(text: str, start: int, end: int, step: int) -> tuple[int, ...]:
    if step == 0:
        _refuse(text, "step 0 never reaches the end", "a step of 1 or more")
    return tuple(range(start, end, step))


def _geometric(text: str, start: int, end: int, factor: int) -> tuple[int, ...]:
    if start == 0:
        _refuse(text, "a geometric start of 0 never grows", "a start of 1 or more")
    if factor < 2:
        _refuse(text, f"factor x{factor} never reaches the end", "a factor of x2 or more")
    values = [start]
    while values[-1] * factor < end:
        values.append(values[-1] * factor)
    return tuple(values)


def _integer(text: str, field: str) -> int:
    if re.fullmatch(r"-[0-9]+", field):
        _refuse(text, f"{field} is negative", "numbers of 0 or more")
    # int() alone would also take "+1", "1_000" and digits of other scripts.
    if not re.fullmatch(r"[0-9]+", field):
        _refuse(text, f"{field!r} is not an integer", "digits 0-9 only")
    return int(field)


def _refuse(text: str, problem: str, expected: str) -> NoReturn:
    raise SweepError(f"sweep {text!r}: {problem}; expected {expected}")
