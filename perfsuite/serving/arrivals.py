"""When requests are due: an absolute schedule, or a closed loop. Pure, and seeded.

A schedule is open-loop: a request is due whatever became of those before it, so that a server
that stalls meets what would have met it. A closed loop waits for answers, and says so in its name:
a stalled server is spared by it. Schedules are as drawn. They are not rescaled to end on time,
because the gaps would no longer be those of the process they are named after.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path

from perfsuite.errors import OptionError
from perfsuite.serving.request import Request

MOST_RATE, MOST_USERS = 1_000_000, 100_000  # more than any client sends; a slip of the keyboard


@dataclass(frozen=True)
class Schedule:
    """Moments in seconds from the start of the load, never falling, one for each request."""

    name: str
    times_s: tuple[float, ...]


@dataclass(frozen=True)
class ClosedLoop:
    """Each of some users sends a request as soon as the one before it has ended."""

    users: int

    def __post_init__(self) -> None:
        if not 1 <= self.users <= MOST_USERS:
            raise OptionError(
                f"a closed loop of {self.users} users: expected 1 to {MOST_USERS:,} of them"
            )

    @property
    def name(self) -> str:
        """What it is called in reports."""
        return f"closed loop of {self.users} users"


Arrivals = Schedule | ClosedLoop

AT_ONCE = "at-once"
SPECS = "at-once, poisson:RATE, gamma:RATE:SHAPE, constant:RATE, trace:FILE or users:N"
_NUMBERS = {"at-once": 0, "poisson": 1, "gamma": 2, "constant": 1, "users": 1}


def spec(text: str, root: Path) -> str:
    """A specification in its one spelling: `poisson:5.0` is `poisson:5`, files are absolute.

    Raises OptionError for one that can not be meant.
    """
    kind, _, rest = text.partition(":")
    if kind == "trace" and rest:
        found = f"trace:{Path(root, rest).resolve()}"
    else:
        found = ":".join([kind, *map(_exact, _numbers(text))])
    specified(found, count=1, seed=0)
    return found


def specified(spec: str, count: int, seed: int) -> Arrivals:
    """The arrivals of `count` requests by a specification, one of `SPECS`; see `spec`."""
    kind, _, rest = spec.partition(":")
    if kind == "trace" and rest:
        return trace(read_trace(Path(rest)))
    numbers = _numbers(spec)
    if kind == "users":
        return ClosedLoop(_whole(numbers[0], spec))
    if kind == "poisson":
        return poisson(count, numbers[0], seed)
    if kind == "gamma":
        return gamma(count, numbers[0], numbers[1], seed)
    return constant(count, numbers[0]) if kind == "constant" else at_once(count)


def read_trace(file: Path) -> list[float]:
    """The moments in a text file, in seconds, one a line; empty lines and `#` are read over."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"the trace {file} can not be read: {error}") from None
    moments = []
    for number, line in enumerate(lines, start=1):
        said = line.partition("#")[0].strip()
        try:
            moments += [float(said)] if said else []
        except ValueError:
            raise OptionError(
                f"{file}, line {number}: {said[:40]!r}; expected a moment in seconds"
            ) from None
    return moments


def _numbers(spec: str) -> list[float]:
    kind, *rest = spec.split(":")
    try:
        numbers = [float(text) for text in rest]
    except ValueError:
        numbers = []
    if kind not in _NUMBERS or len(numbers) != len(rest) or len(rest) != _NUMBERS[kind]:
        raise OptionError(f"--perf-arrivals {spec!r}: expected {SPECS}")
    return numbers


def _exact(number: float) -> str:
    """Equal numbers in one spelling, different ones in two, also where `-` and `+` are dropped."""
    return str(int(number)) if number.is_integer() else repr(number)


def _whole(number: float, spec: str) -> int:
    if number != number // 1:
        raise OptionError(f"--perf-arrivals {spec!r}: expected a whole number of users")
    return int(number)


def at_once(count: int) -> Schedule:
    """All requests are due at the start."""
    return Schedule("all at once", (0.0,) * count)


def constant(count: int, rate: float) -> Schedule:
    """A request every 1 / rate seconds, the first at the start; rate in requests a second."""
    _check_rate(rate)
    times = tuple(number / rate for number in range(count))
    return Schedule(f"constant, {rate:g} requests/s", times)


def poisson(count: int, rate: float, seed: int) -> Schedule:
    """A Poisson process of `rate` requests a second: gaps are exponential, the first one too."""
    _check_rate(rate)
    source = random.Random(seed)
    gaps = (source.expovariate(rate) for _ in range(count))
    return Schedule(f"Poisson, {rate:g} requests/s", tuple(accumulate(gaps)))


def gamma(count: int, rate: float, burstiness: float, seed: int) -> Schedule:
    """Gaps of a gamma distribution with mean 1 / rate and shape `burstiness`.

    Shape 1 is a Poisson process; below 1 requests come in bursts, above 1 they are more regular.
    """
    _check_rate(rate)
    if not 0 < burstiness < math.inf:
        raise OptionError(f"burstiness {burstiness:g}: expected a finite number above 0")
    source = random.Random(seed)
    gaps = (source.gammavariate(burstiness, 1 / (rate * burstiness)) for _ in range(count))
    name = f"gamma, {rate:g} requests/s, shape {burstiness:g}"
    return Schedule(name, tuple(accumulate(gaps)))


def trace(times_s: Iterable[float]) -> Schedule:
    """Recorded moments in seconds, in any unit's zero: the first request is due at the start."""
    times = tuple(times_s)
    if not times:
        raise OptionError("the trace of arrivals is empty: expected one moment for each request")
    for number, (before, after) in enumerate(pairwise(times), start=2):
        if not after >= before:  # also false for NaN
            raise OptionError(
                f"the trace goes from {before:g} s to {after:g} s at arrival {number}"
            )
    if not all(map(math.isfinite, times)):
        raise OptionError("the trace holds a moment that is not a finite number of seconds")
    return Schedule("trace", tuple(moment - times[0] for moment in times))


def on_schedule(requests: Sequence[Request], schedule: Schedule) -> list[Request]:
    """The requests with the moments at which they are due; OptionError where there are too few."""
    if len(schedule.times_s) < len(requests):
        raise OptionError(
            f"{schedule.name}: {len(schedule.times_s)} arrivals for {len(requests)} requests"
        )
    return [
        replace(request, arrival_s=due)
        for request, due in zip(requests, schedule.times_s, strict=False)
    ]


def _check_rate(rate: float) -> None:
    if not 0 < rate <= MOST_RATE:  # also false for NaN
        raise OptionError(
            f"a rate of {rate:g} requests/s: expected a number above 0, {MOST_RATE:,} at most"
        )
