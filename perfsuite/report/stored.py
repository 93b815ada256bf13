"""What --perf-json wrote, read back: the results of a run and where it ran."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perfsuite.errors import PerfError
from perfsuite.report.json_file import FORMAT
from perfsuite.results import Result


@dataclass(frozen=True)
class Run:
    """One run's results; `gone` are (key, file) of baselines that nothing measures any more."""

    results: Sequence[Result]
    gone: Sequence[tuple[str, str]] = ()
    commit: str = ""


def read(file: Path) -> Run:
    """The run of one file.

    Raises PerfError, which names the file, for one that is not ours, is broken or is newer.
    """
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        version = int(document["perfsuite_format"])
        if version > FORMAT:
            raise PerfError(
                f"{file}: format {version} is newer than this perfsuite reads ({FORMAT});"
                " update perfsuite, the file stays as it is"
            )
        return _run(document)
    except OSError as problem:
        raise PerfError(f"{file}: cannot be read: {problem.strerror or problem}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise PerfError(f"{file}: not a file that --perf-json wrote ({problem!r})") from None


def _run(document: Mapping[str, Any]) -> Run:
    return Run(
        results=[Result.from_dict(values) for values in document["results"]],
        gone=[(str(one["key"]), str(one["file"])) for one in document.get("gone", ())],
        commit=str(document.get("commit_info", {}).get("id", "")),
    )
