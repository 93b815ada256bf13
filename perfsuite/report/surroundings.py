"""Where a run was measured, what its baseline had otherwise, what disturbed it: lines. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from perfsuite.baselines import as_stored
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
        found += _differing(_versions(before["toolchain"]), _versions(result.toolchain))
    if before.get("config"):  # floats were shortened when they were stored
        found += _differing(as_stored(before["config"]), as_stored(result.config))
    return found


def _differing(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    return [
        f"{name} {before.get(name, 'absent')} -> {now.get(name, 'absent')}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


def _versions(toolchain: str) -> dict[str, str]:
    """`python 3.11.7, torch 2.13.0` by package."""
    split = (part.partition(" ") for part in toolchain.split(", "))
    return {package: version for package, _, version in split}


def _distinct(texts: Iterable[str]) -> list[str]:
    return [text for text in dict.fromkeys(texts) if text]


def _often(
    results: Sequence[Result], texts: Callable[[Result], Sequence[str]]
) -> list[tuple[str, int]]:
    return Counter(text for result in results for text in texts(result)).most_common()


def _tests(number: int) -> str:
    return "1 test" if number == 1 else f"{number} tests"
