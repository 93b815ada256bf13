"""What a failed test says, as GitHub Actions shows it beside the test's line in a pull request.

A workflow command is a line of the output, `::error file=...,line=...,title=...::message`. Of each
kind GitHub shows ten for a step, so the worst ones are told, and how many there are more. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from perfsuite.report.worst import gravity
from perfsuite.results import Result

PLUGIN = "pytest_github_actions_annotate_failures"  # says the same; where it is, this is silent
_MOST = 10
_LONGEST = 4_000  # characters of a message: GitHub cuts an annotation at 64 KiB


@dataclass(frozen=True)
class Failure:
    """Where a test stands, and what its report says."""

    file: str  # relative to the root, as its node id has it
    line: int | None  # from 1; None where the function is another file's
    text: str


def failure(nodeid: str, location: tuple[str, int | None, str], text: str) -> Failure:
    """The failure of one report; `location` counts lines from 0, in the function's own file."""
    file = nodeid.partition("::")[0]
    own, line, _ = location
    return Failure(file, line + 1 if line is not None and Path(own) == Path(file) else None, text)


def lines(
    failures: Mapping[str, Failure], results: Sequence[Result], root: Path, workspace: str
) -> Iterator[str]:
    """A command for each of the worst tests, at most as many as GitHub shows.

    failures: by node id; workspace: where the repository was checked out, empty where unknown.
    """
    failed = [result for result in results if result.nodeid in failures]
    failed.sort(key=gravity, reverse=True)
    for result in failed[:_MOST]:
        yield _error(result, failures[result.nodeid], root, workspace)
    if len(failed) > _MOST:
        more = f"{len(failed) - _MOST} more perf tests failed; the log has them all"
        yield f"::notice title=perf::{more}"


def _error(result: Result, told: Failure, root: Path, workspace: str) -> str:
    place = _in_repository(told.file, root, workspace)
    properties = {"file": place, "line": str(told.line or 1) if place else ""}
    properties["title"] = f"perf: {result.workload}"
    words = ",".join(f"{name}={_property(text)}" for name, text in properties.items() if text)
    return f"::error {words}::{_message(told.text[:_LONGEST])}"


def _in_repository(file: str, root: Path, workspace: str) -> str:
    """The file as GitHub knows it; nothing where it is outside of the checkout."""
    if not workspace:
        return file
    try:
        return (root / file).resolve().relative_to(Path(workspace).resolve()).as_posix()
    except ValueError:
        return ""


def _message(text: str) -> str:
    """One line, whatever it holds; the runner turns these three back."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")
