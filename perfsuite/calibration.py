"""What sessions of equal code showed of a machine: measured once, used by every verdict after it.

    baselines/<machine class>.calibration.json
    {"format": 1, "machine", "date", "commit", "toolchain", "figures": {place: {figure: spread}}}

A place is the name of the baseline file and the key in it: two files may have tests of one name.

Where there is no such file, three saves and more of the baselines stand in for it: what changed
between them beside noise makes the spread larger, never smaller.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from perfsuite.baselines import Baselines, as_stored, file_name, replace_file
from perfsuite.errors import BaselineError
from perfsuite.judging import PACE, corrected, costs, split
from perfsuite.limits import limit_of
from perfsuite.metrics import METRICS
from perfsuite.results import Result, Row
from perfsuite.statistics import ALARMS, Spread, between_sessions, compare, spreads

FORMAT = 1
FEWEST_SAVES = 3
# A probe corrects a figure where it takes more than half of the variance between sessions away.
# Less would be found by chance: with six sessions the variance of noise halves in one of four.
_WORTH_CORRECTING = 0.5
_LIMITS = (0.01, 0.02, 0.03, 0.05, 0.07, 0.10, 0.15, 0.20, 0.30, 0.50, 1.0)

Spreads = dict[str, dict[str, Spread]]  # place -> figure -> spread


@dataclass(frozen=True)
class Finding:
    """One figure of a calibration, as people read it; ratios are 1 + a share."""

    key: str
    figure: str
    spread: Spread
    between: float  # plain standard deviation of the sessions' levels, before any correction
    noise: float  # the ratio that noise alone reaches: below it nothing is called WORSE
    detectable: float  # the smallest ratio that a run would see, under the figure's limit
    limit: float
    suggested: float  # the smallest usual limit that noise stays below
    naive_alarms: float  # how often a plain threshold at the limit would be exceeded by noise


def path_of(folder: Path, machine: str) -> Path:
    """Where the calibration of a machine class is kept."""
    return folder / f"{machine}.calibration.json"


def place(file: str, key: str) -> str:
    """Where a test's spreads stand: the name of its baseline file, and its key."""
    return f"{file}: {key}"


def find(baselines: Baselines, machine: str) -> Spreads:
    """The spreads of a machine class: of the first folder that has a calibration, else of saves."""
    for folder in baselines.folders:
        path = path_of(folder, machine)
        if path.exists():
            return read(path)
    return of_saves(baselines, machine)


def read(path: Path) -> Spreads:
    """The spreads of a file; BaselineError when it is broken."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']} is not {FORMAT}")
        return {
            at: {figure: _spread(values) for figure, values in figures.items()}
            for at, figures in document["figures"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise BaselineError(
            f"{path}: cannot read this calibration: {problem}.\n"
            "It stays as it is. Restore it, or move it away and run --perf-calibrate again."
        ) from None


def _spread(values: Mapping[str, Any]) -> Spread:
    spread = Spread(**values)
    above_0 = (spread.sessions - 1, spread.processes, spread.own, spread.freedom)
    from_0 = (spread.common, spread.process)
    finite = all(map(math.isfinite, (*above_0, *from_0)))
    known = not spread.probe or spread.probe.partition("@")[0] in METRICS
    if not (finite and min(above_0) > 0 and min(from_0) >= 0 and known):
        raise ValueError(f"unusable spread {values}")
    return spread


def write(path: Path, head: Mapping[str, str], found: Spreads) -> None:
    """Take these figures into the file; those of other tests stay."""
    kept = read(path) if path.exists() else {}
    figures = {
        at: {figure: asdict(spread) for figure, spread in of.items()}
        for at, of in {**kept, **found}.items()
    }
    document = as_stored({"format": FORMAT, **head, "figures": figures})
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def of_saves(baselines: Baselines, machine: str) -> Spreads:
    """Each accepted save counts as a session; figures with fewer than three saves have none."""
    levels = {
        (place(entry.file.name, key), figure): entry.levels(figure)
        for key, entry in baselines.entries(machine)
        for figure in entry.figures
        if _is_judged(figure) and len(entry.levels(figure)) >= FEWEST_SAVES
    }
    if not levels:
        return {}
    count = min(map(len, levels.values()))
    sessions = {
        f"{at}\n{figure}": costs(METRICS[figure.partition("@")[0]], [[v] for v in values[-count:]])
        for (at, figure), values in levels.items()
    }
    return _by_place(spreads(sessions))


def calibrate(results: Iterable[Result]) -> Spreads:
    """The spreads of every figure that was measured in as many sessions as the others."""
    return _by_place(_spreads_of(results))


def _spreads_of(results: Iterable[Result]) -> dict[str, Spread]:
    ways = {f"{_place_of(r)}\n{row.figure}": _ways(r, row) for r in results for row in _judged(r)}
    count = max((len(of[""]) for of in ways.values()), default=0)
    whole = {name: of for name, of in ways.items() if len(of[""]) == count}
    # All figures corrected alike are one family: those alone that a probe suits best would look
    # quieter together than they are.
    families: dict[str, dict[str, list[list[float]]]] = {}
    for name, of in whole.items():
        for probe, sessions in of.items():
            families.setdefault(probe.partition("@")[0], {})[name] = sessions
    found = {probe: spreads(family) for probe, family in families.items()}
    best = {name: _best(of) for name, of in whole.items()}
    return {n: replace(found[p.partition("@")[0]][n], probe=p) for n, p in best.items()}


def _place_of(result: Result) -> str:
    return place(file_name(result.suite), result.key)


def _by_place(found: Mapping[str, Spread]) -> Spreads:
    grouped: Spreads = {}
    for name, spread in found.items():
        at, _, figure = name.partition("\n")
        grouped.setdefault(at, {})[figure] = spread
    return grouped


def _judged(result: Result) -> list[Row]:
    return [row for row in result.rows if _is_judged(row.figure) and len(row.sessions) > 1]


def _is_judged(figure: str) -> bool:
    of = METRICS.get(figure.partition("@")[0])
    return of is not None and of.gated and not of.exact


def _costs(row: Row) -> list[list[float]]:
    return costs(METRICS[row.metric_id], split(row.processes, row.sessions))


def _ways(result: Result, row: Row) -> dict[str, list[list[float]]]:
    """A figure's costs as they are, and corrected by each probe that was taken with it."""
    plain = _costs(row)
    probes = [r for r in result.rows if r.figure.startswith(PACE) and r.part == row.part]
    found = {probe.figure: corrected(plain, probe.processes) for probe in probes}
    return {"": plain, **{probe: of for probe, of in found.items() if of}}


def _best(ways: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """The probe that takes most of a figure's variance away, if that is over half of it."""
    left = {probe: between_sessions(sessions) ** 2 for probe, sessions in ways.items()}
    left[""] *= _WORTH_CORRECTING
    return min(left, key=left.__getitem__)


def findings(results: Sequence[Result], found: Spreads, base_sessions: int) -> list[Finding]:
    """What a calibration means for the gate: one session against a baseline of so many."""
    tests = [result for result in results if _place_of(result) in found]
    told = []
    for result in tests:
        known = found[_place_of(result)]
        rows = [row for row in _judged(result) if row.figure in known]
        part = ALARMS / len(tests) / max(len(rows), 1)
        told += [_finding(result, row, known[row.figure], part, base_sessions) for row in rows]
    worst: dict[str, float] = {}
    for finding in told:
        worst[finding.key] = max(worst.get(finding.key, 0.0), finding.noise)
    return sorted(told, key=lambda finding: (-worst[finding.key], finding.key, -finding.noise))


def _finding(result: Result, row: Row, spread: Spread, part: float, base: int) -> Finding:
    flat = [[1.0] * spread.processes]
    found = compare(flat, flat * base, spread, part)
    limit = row.limit or 1 + _default_limit(row)
    noise = found.alarm(1.0)
    plain = _costs(row)
    between = between_sessions(plain)
    return Finding(
        key=result.key,
        figure=row.figure,
        spread=spread,
        between=between,
        noise=noise,
        detectable=found.detectable(limit),
        limit=limit,
        suggested=next((1 + step for step in _LIMITS if 1 + step >= noise), noise),
        naive_alarms=_beyond(math.log(limit), between * math.sqrt(2)),
    )


def _beyond(limit: float, spread: float) -> float:
    """The probability that a normal value exceeds the limit."""
    return 0.5 * math.erfc(limit / (spread * math.sqrt(2))) if spread else 0.0


def _default_limit(row: Row) -> float:
    of = METRICS[row.metric_id]
    assert row.value is not None
    return limit_of(of).ratio(of, row.value) - 1
