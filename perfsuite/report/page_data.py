"""What the page shows of each test, as built-in types: the browser only lays it out. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perfsuite.baselines import as_stored
from perfsuite.environment import versions
from perfsuite.metrics import METRICS
from perfsuite.peaks import ALIVE
from perfsuite.report.stored import Run
from perfsuite.report.table import ORDER, cells, told
from perfsuite.results import Result, Row
from perfsuite.verdict import Verdict

_MOST_SAMPLES = 64  # of one process: more would be one blot
_MOST_CHANGES = 8  # of the surroundings, told as evidence; the table below it has them all
_QUIET = (Verdict.SAME, Verdict.SHOWN, Verdict.NEW, Verdict.BETTER)


@dataclass(frozen=True)
class Test:
    """One line of the page's table: a result, and the figure that stands for it."""

    result: Result
    worst: Row | None
    commit: str

    @property
    def verdict(self) -> Verdict:
        """The worst of its figures."""
        return self.worst.verdict if self.worst else Verdict.SHOWN

    @property
    def cells(self) -> tuple[str, ...]:
        """The worst figure as the terminal's table shows it."""
        return cells(self.worst) if self.worst else ("",) * 10

    @property
    def failing(self) -> list[Row]:
        """Its figures that are WORSE or VOID, those with a waiver too, the worst first."""
        bad = (Verdict.WORSE, Verdict.VOID)
        return sorted((row for row in self.result.rows if row.verdict in bad), key=badness)

    @property
    def is_red(self) -> bool:
        """Whether its test failed: a loss that nobody waived, or a waiver that is over."""
        return bool(self.result.expired) or any(not row.waiver for row in self.failing)

    @property
    def verdicts(self) -> list[Verdict]:
        """Every verdict that one of its figures has, the worst first."""
        found = {row.verdict for row in self.result.rows}
        return [verdict for verdict in ORDER if verdict in found]


def tests(runs: Sequence[Run]) -> list[Test]:
    """Every test of the runs once, the worst first; a file that was given twice adds nothing."""
    found: dict[tuple[str, ...], Test] = {}
    for run in runs:
        for result in run.results:
            worst = min(told(result) or result.rows, key=badness, default=None)
            identity = (result.machine, result.key, result.nodeid, result.date)
            found[identity] = Test(result, worst, run.commit)
    return sorted(found.values(), key=lambda test: badness(test.worst) if test.worst else (9, 0.0))


def badness(row: Row) -> tuple[int, float]:
    """Sorts figures: by verdict, then by how far beyond the limit they are."""
    excess = (row.ratio if row.ratio is not None else math.inf) / (row.limit or 1.0)
    return ORDER.index(row.verdict), -excess if row.limit is not None else 0.0


def ratios(shown: Sequence[Test]) -> list[tuple[int, int]]:
    """(test, figure) of every figure that has a ratio, the largest excess over its limit first."""
    found = [
        (row.ratio / row.limit, number, place)
        for number, test in enumerate(shown)
        for place, row in enumerate(test.result.rows)
        if row.limit and row.ratio is not None and 0 < row.ratio < math.inf
    ]
    return [(number, place) for _, number, place in sorted(found, key=lambda one: -one[0])]


def as_data(test: Test) -> dict[str, Any]:
    """A test with everything that opening it shows; lists in place of objects where many are."""
    result = test.result
    return {
        "name": one_line(result.workload),
        "key": result.key,
        "nodeid": one_line(result.nodeid),
        "machine": result.machine,
        "engine": one_line(result.engine),
        "tier": result.tier,
        "suite": result.suite,
        "verdict": test.verdict.value,
        "figures": [_figure(result, row) for row in result.rows],
        "evidence": list(evidence(test)),
        "surroundings": list(surroundings(test)),
        "published": list(result.published),
        "standsFor": list(result.stands_for),
    }


def metrics(shown: Sequence[Test]) -> dict[str, dict[str, str]]:
    """What the page has to know of each metric that occurs."""
    ids = {row.metric_id for test in shown for row in test.result.rows}
    return {
        of.id: {"title": of.title, "unit": _UNITS.get(of.unit, of.unit), "kind": of.kind,
                "formula": of.formula}
        for of in METRICS.values() if of.id in ids
    }  # fmt: skip


# As they follow an SI prefix: the plots write 12.41 ms and 1.4 ktok/s.
_UNITS = {"bytes": "B", "bytes/s": "B/s", "tokens/s": "tok/s", "operations": "op",
          "operations/s": "op/s", "requests/s": "req/s"}  # fmt: skip


def _figure(result: Result, row: Row) -> dict[str, Any]:
    of = METRICS.get(row.metric_id)
    plotted = of is not None and not of.exact and row.value is not None
    samples = result.samples.get(row.figure, ()) if plotted else ()
    scale = _scale(row.value or 0.0)
    return {
        "metric": row.metric_id,
        "verdict": row.verdict.value,
        "cells": cells(row),
        "ratio": _short([row.ratio, row.ratio_low, row.ratio_high, row.limit]),
        "ceiling": _short([row.ceiling])[0],
        "cached": row.cached,
        "scale": scale,
        "head": [[round(v * scale) for v in _thinned(process)] for process in samples],
        "base": [round(v * scale) for v in row.baseline_processes] if plotted else [],
        "count": row.samples,
        "note": row.note,
        "waiver": row.waiver,
    }


def _scale(value: float) -> float:
    """What samples are multiplied by to be whole numbers of five digits, as baselines keep them."""
    return 10.0 ** (4 - math.floor(math.log10(value))) if value > 0 else 1.0


def _short(values: Sequence[float | None]) -> list[float | None]:
    """Five digits, as baselines are stored; null for what JSON has no word for."""
    return [
        float(f"{v:.5g}") if v is not None and math.isfinite(v) else None for v in values
    ]


def _thinned(samples: Sequence[float]) -> Sequence[float]:
    return samples[:: math.ceil(len(samples) / _MOST_SAMPLES) or 1]


def evidence(test: Test) -> Iterator[str]:
    """Every sentence that says why a figure is what it is."""
    result = test.result
    for row in result.rows:
        name = cells(row)[0]
        words = "; ".join(filter(None, (_loss(row), row.note)))
        if words and row.verdict not in _QUIET:
            yield f"{row.verdict}: {name}: {words}"
        if row.drift:
            yield f"drifted: {name} is {row.drift:.2f} times the best that was ever accepted"
        if row.waiver:
            yield f"{name}: {row.waiver}"
    if result.disturbance:
        yield f"disturbed: {result.disturbance}"
    yield from result.expired
    changes = [f"{n} {base} -> {head}" for n, base, head, differs in surroundings(test) if differs]
    if test.failing and changes:
        more = f"; and {len(changes) - _MOST_CHANGES} more" if len(changes) > _MOST_CHANGES else ""
        yield f"changed since the baseline: {'; '.join(changes[:_MOST_CHANGES])}{more}"
    for kind, blocks in (result.facts.get(ALIVE) or {}).items():
        yield f"alive at the peak, {kind}: {', '.join(map(str, blocks))}"


def _loss(row: Row) -> str:
    """`1.300 times worse, limit 1.050, noise reaches 1.213` of what is WORSE."""
    if row.verdict is not Verdict.WORSE or row.limit is None:
        return ""
    grew = row.ratio is None or math.isinf(row.ratio)
    size = "grew from zero" if grew else f"{_times(row.ratio or 0.0)} times worse"
    reach = row.alarm is not None and row.alarm > row.limit
    noise = f", noise reaches {row.alarm:.3f}" if reach else ""
    return f"{size}, limit {row.limit:.3f}{noise}"


def _times(ratio: float) -> str:
    return f"{ratio:.4g}" if ratio < 1e4 else f"{ratio:.0f}"


def surroundings(test: Test) -> Iterator[tuple[str, str, str, bool]]:
    """(what, base's, head's, whether they differ); empty where a side is not known."""
    result, base = test.result, test.result.baseline
    yield "machine", "", result.machine, False
    yield "recorded", str(base.get("date", "")), result.date, False
    yield "commit", str(base.get("commit", "")), test.commit, False
    if base.get("file"):
        yield "compared with", str(base["file"]), "", False
    yield from _beside(_versions(base.get("toolchain", "")), _versions(result.toolchain))
    yield from _beside(_flat(base.get("config", {})), _flat(as_stored(result.config)))
    facts = {name: value for name, value in result.facts.items() if name != ALIVE}
    state = {"facts": facts, "machine state": result.machine_state}
    for name, text in _flat(as_stored(state)).items():
        yield name, "", text, False


def _versions(toolchain: str) -> dict[str, str]:
    return versions(toolchain) if toolchain else {}


def _beside(
    base: Mapping[str, str], head: Mapping[str, str]
) -> Iterator[tuple[str, str, str, bool]]:
    """Two sides name by name; without a base nothing differs."""
    for name in sorted({*base, *head}):
        differs = bool(base) and base.get(name) != head.get(name)
        yield name, base.get(name, "absent" if base else ""), head.get(name, "absent"), differs


def _flat(value: Any, name: str = "") -> dict[str, str]:
    """`{"a": {"b": 1}}` as `{"a.b": "1"}`."""
    if not isinstance(value, Mapping):
        return {name: value if isinstance(value, str) else json.dumps(value, default=str)}
    found: dict[str, str] = {}
    for inner, part in value.items():
        found |= _flat(part, f"{name}.{inner}" if name else str(inner))
    return found


def one_line(text: str) -> str:
    """A name without line breaks, which a table has no place for."""
    return " ".join(text.split())
