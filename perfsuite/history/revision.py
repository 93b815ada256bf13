"""Which state of the code a run measured, as git and the CI know it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from perfsuite import environment

# A CI checks a commit out, not a branch, and tells the branch's name here. A pull request's is
# 123/merge, not the name that its branch has in a fork: that may be `main`.
_BRANCH_NAMES = ("GITHUB_REF_NAME", "CI_COMMIT_REF_NAME")


@dataclass(frozen=True)
class Revision:
    """A commit with its time (UTC) and branch; empty and None where they are not known."""

    commit: str = ""
    time: datetime | None = None
    branch: str = ""


def revision_of(folder: Path, variables: Mapping[str, str] = os.environ) -> Revision:
    """The revision that is checked out in a folder."""
    seconds = _git(folder, "show", "-s", "--format=%ct", "HEAD")
    time = datetime.fromtimestamp(int(seconds), UTC) if seconds.isdecimal() else None
    told = next((variables[name] for name in _BRANCH_NAMES if variables.get(name)), "")
    branch = _git(folder, "symbolic-ref", "--short", "-q", "HEAD") or told
    return Revision(environment.commit(folder), time, branch)


def _git(folder: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", *words], cwd=folder, capture_output=True, text=True, errors="replace",
            timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
