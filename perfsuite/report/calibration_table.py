"""What a calibration found, as a table of 100 columns and a few sentences. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from perfsuite.baselines import shown
from perfsuite.calibration import Finding
from perfsuite.metrics import METRICS
from perfsuite.statistics import ALARMS

_HEADER = ("figure", "sessions", "processes", "noise", "sees", "limit", "suggested", "probe")


def lines(findings: Sequence[Finding], path: Path, sessions: int, base: int) -> Iterator[str]:
    """The table, the worst first, and what it means for the gate."""
    if not findings:
        yield "calibration: nothing was measured in two sessions; no file was written"
        return
    yield f"calibration: {sessions} sessions, written to {shown(path)}"
    yield from _table(findings)
    yield "sessions, processes: standard deviation between them; noise: what a run of equal code"
    yield f"reaches, at {ALARMS:.0%} a run for all figures together; sees: the smallest loss that a"
    plural = "s" if base > 1 else ""
    yield f"run finds 9 times in 10, against a baseline of {base} session{plural}; suggested: limit"
    naive = sum(finding.naive_alarms for finding in findings)
    yield f"false alarms expected in a run of this suite: at most {ALARMS:g} by these verdicts,"
    yield f"{naive:.2g} by plain thresholds at the limits"


def _table(findings: Sequence[Finding]) -> Iterator[str]:
    from tabulate import tabulate

    cells = [_HEADER]
    for finding in findings:
        of = METRICS[finding.figure.partition("@")[0]]
        part = finding.figure.partition("@")[2]
        by = METRICS.get(finding.spread.probe.partition("@")[0])
        cells.append((
            f"{part} {of.title}" if part else of.title,
            _percent(finding.between), _percent(finding.spread.process),
            _percent(finding.noise - 1), _percent(finding.detectable - 1),
            _percent(finding.limit - 1), _percent(finding.suggested - 1),
            by.title if by else "",
        ))  # fmt: skip
    align = ("left", *["right"] * 6, "left")
    text = tabulate(cells, (), tablefmt="plain", disable_numparse=True, colalign=align)
    header, *printed = text.splitlines()
    yield f"  {header}".rstrip()
    key = ""
    for finding, line in zip(findings, printed, strict=True):
        if finding.key != key:
            key = finding.key
            yield key
        yield f"  {line}".rstrip()  # tabulate takes leading blanks away


def _percent(share: float) -> str:
    return f"{share:.1%}" if share < 0.9995 else f"{share:.0%}"
