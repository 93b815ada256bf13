"""How far a ratio may rise: relative and absolute limits, parsed and combined. Pure.

`ttft:5%`             ratio above 1.05 is a regression
`ttft:5%+2ms`         and the loss must also exceed 2 ms: both have to be passed
`memory:64MB`         an absolute limit alone
`time:2.5%`           a kind sets every metric of that kind
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from perfsuite.errors import OptionError
from perfsuite.metrics import DEFAULT_LIMITS, METRICS, Metric, matching

_UNITS: dict[str, dict[str, float]] = {
    "s": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9},
    "bytes": {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30},
    "tokens/s": {"tok/s": 1.0, "ktok/s": 1e3, "Mtok/s": 1e6},
    "operations": {"op": 1.0, "Mop": 1e6, "Gop": 1e9, "Top": 1e12},
    "bytes/s": {"B/s": 1.0, "kB/s": 1e3, "MB/s": 1e6, "GB/s": 1e9, "TB/s": 1e12},
    "operations/s": {"op/s": 1.0, "Mop/s": 1e6, "Gop/s": 1e9, "Top/s": 1e12},
    "calls": {"calls": 1.0},
    "regs": {"regs": 1.0},
    "instr": {"instr": 1.0},
    "warps": {"warps": 1.0},
    "times": {"times": 1.0},
    "answers": {"answers": 1.0},
    "nats": {"nats": 1.0},
    "tokens": {"tokens": 1.0},
    "logits": {"logits": 1.0},
    "breaks": {"breaks": 1.0},
    "graphs": {"graphs": 1.0},
    "requests": {"req": 1.0},
    "requests/s": {"req/s": 1.0},
}
_PART = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>%|[A-Za-z/]+)")


@dataclass(frozen=True)
class Limit:
    """A share (0.05 is 5 %) and an absolute loss in the metric's unit; both must be exceeded."""

    relative: float = 0.0
    absolute: float = 0.0

    def ratio(self, of: Metric, baseline: float) -> float:
        """The largest ratio that is still accepted against this baseline value.

        An absolute loss L becomes a ratio: (b + L) / b, for a throughput b / (b - L). From 0 every
        loss is an infinite ratio: `accepts_from_zero` tells which of them are within the limit.
        """
        return max(1 + self.relative, self._absolute_ratio(of, baseline))

    def accepts_from_zero(self, target: float) -> bool:
        """Whether a count that was 0 may be this large: any share is exceeded, the absolute not."""
        return target <= self.absolute

    def _absolute_ratio(self, of: Metric, baseline: float) -> float:
        if self.absolute == 0 or baseline == 0:
            return 1.0
        if of.kind != "throughput":
            return (baseline + self.absolute) / baseline
        left = baseline - self.absolute
        return baseline / left if left > 0 else math.inf


def parse_limit(text: str, of: Metric) -> Limit:
    """`5%`, `2ms` or `5%+2ms` for that metric; OptionError shows what was not understood."""
    found: dict[str, float] = {}
    for part in text.split("+"):
        number, unit = _split(part, text)
        if unit != "%" and unit not in _UNITS[of.unit]:
            known = ", ".join(["%", *_UNITS[of.unit]])
            raise OptionError(
                f"limit {text!r} for {of.name}: unknown unit {unit!r}; known: {known}"
            )
        kind = "relative" if unit == "%" else "absolute"
        if kind in found:
            raise OptionError(
                f"limit {text!r} for {of.name}: {part.strip()!r} is a second {kind} limit"
            )
        found[kind] = number / 100 if unit == "%" else number * _UNITS[of.unit][unit]
    return Limit(**found)


def _split(part: str, text: str) -> tuple[float, str]:
    match = _PART.fullmatch(part.strip())
    if match is None:
        raise OptionError(
            f"limit {text!r}: cannot read {part.strip()!r}; expected like 5%, 2.5% or 5%+2ms"
        )
    return float(match["number"]), match["unit"]


def parse_limits(settings: Iterable[tuple[str, str]]) -> dict[str, Limit]:
    """(`metric`, `5%+2ms`) pairs to limits by metric id; the finer word wins.

    A kind is coarser than a name, a name coarser than an id. Of the same word said twice the later
    counts; two words as fine that say different limits for one metric are an OptionError.
    """
    chosen: dict[str, tuple[int, Limit, str]] = {}
    for selector, text in settings:
        word = selector.strip().lower()  # titles may hold a slash too: "tokens/s"
        finer = 2 if word in METRICS else 0 if word in DEFAULT_LIMITS else 1
        for of in matching(selector):
            limit = parse_limit(text, of)
            known, other, before = chosen.get(of.id, (-1, limit, word))
            if known == finer and other != limit and before != word:
                raise OptionError(f"limits for {before} and {word} contradict each other: {of.id}")
            if finer >= known:
                chosen[of.id] = (finer, limit, word)
    return {metric_id: limit for metric_id, (_, limit, _) in chosen.items()}


def limit_of(of: Metric, *layers: Mapping[str, Limit]) -> Limit:
    """The first layer that names the metric decides; else its own default, or its kind's."""
    for layer in layers:
        if of.id in layer:
            return layer[of.id]
    return Limit(DEFAULT_LIMITS[of.kind] if of.limit is None else of.limit)
