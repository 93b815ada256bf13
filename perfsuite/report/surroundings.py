"""Where a run was measured, what its baseline had otherwise, what disturbed it: lines. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from perfsuite.baselines import as_stored
from perfsuite.environment import changed, versions
from perfsuite.results import Result


def lines(results: Sequence[Result], shown: Callable[[str], str]) -> Iterator[str]:
    """Each text once, with the number of tests that say it; `shown` escapes what is a user's."""
    yield from (f"measured on {shown(text)}" for text in _distinct(r.machine for r in results))
    yield from (f"with {shown(text)}" for text in _distinct(r.toolchain for r in results))
    for text, number in _often(results, changes):
        yield f"changed since the baseline, {_tests(number)}: {shown(text)}"
    for text, number in _often(results, lambda r: [r.disturbance] if r.disturbance else []):
        yield f"disturbed, {_tests(number)}: {shown(text)}"
    apart = sum(result.facts.get("by_turns") is False for result in results)
    if apart:
        yield f"one tree after the other, not in turn, {_tests(apart)}: both did not fit at once"


def changes(result: Result) -> list[str]:
    """Versions and configuration that the baseline had otherwise, as far as it says."""
    before, found = result.baseline, []
    if before.get("toolchain"):
        found += changed(versions(before["toolchain"]), versions(result.toolchain))
    if before.get("config"):  # floats were shortened when they were stored
        found += changed(as_stored(before["config"]), as_stored(result.config))
    return found


def _distinct(texts: Iterable[str]) -> list[str]:
    return [text for text in dict.fromkeys(texts) if text]


def _often(
    results: Sequence[Result], texts: Callable[[Result], Sequence[str]]
) -> list[tuple[str, int]]:
    return Counter(text for result in results for text in texts(result)).most_common()


def _tests(number: int) -> str:
    return "1 test" if number == 1 else f"{number} tests"
