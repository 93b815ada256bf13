"""The work folder: the subject's repository, and a checkout of every slowdown beside it.

    project/            branch base, where baselines are taken and asv is started
    slow-0/ ...         one branch each; slow-0 is an empty commit, the code of base
    baselines-0/ ...    the stored baselines of each arm, taken anew after some rounds
    asv/                asv's environment and results

Checkouts instead of one that is switched: Python takes a changed file of equal size and second for
the compiled old one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

SLOWDOWNS = (0, 2, 5, 10)  # per cent
REPOSITORY = Path(__file__).resolve().parents[2]
_IDENTITY = ("-c", "user.name=bench", "-c", "user.email=bench@example.invalid")


def write(folder: Path) -> None:
    """The repository with its branches and checkouts, unless they are all there."""
    if (folder / "written").exists():
        return
    project = folder / "project"
    checkouts = {percent: folder / f"slow-{percent}" for percent in SLOWDOWNS}
    for path in (project, *checkouts.values()):
        shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(Path(__file__).with_name("project"), project,
                    ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
    _git(project, "init", "--quiet", "--initial-branch=base")
    _git(project, "add", "--all")
    _git(project, "commit", "--quiet", "--message=base")
    for percent, checkout in checkouts.items():
        _commit_slow(project, percent)
        _git(project, "worktree", "add", "--quiet", str(checkout.resolve()), f"slow-{percent}")
    (folder / "written").touch()


def _commit_slow(project: Path, percent: int) -> None:
    _git(project, "switch", "--quiet", "--create", f"slow-{percent}", "base")
    subject = project / "subject.py"
    text = subject.read_text()
    assert text.count("\nSLOW = 0.0\n") == 1
    subject.write_text(text.replace("\nSLOW = 0.0\n", f"\nSLOW = {percent / 100}\n"))
    _git(project, "commit", "--quiet", "--all", "--allow-empty", f"--message=slow-{percent}")
    _git(project, "switch", "--quiet", "base")


def _git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *_IDENTITY, *arguments], cwd=folder, env=environment(), check=True)


def environment(**more: str) -> dict[str, str]:
    """What every arm's processes see: the engines on the path, no options from outside."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST")}
    alone = {"GIT_CONFIG_GLOBAL": os.devnull, "PYTHONDONTWRITEBYTECODE": "1"}
    return kept | alone | {"PYTHONPATH": str(REPOSITORY)} | more


class Broken(Exception):
    """A run that gave no verdict; its text is the end of what it printed."""


def run(
    folder: Path, command: Sequence[str], expected: Sequence[int], **more: str
) -> tuple[int, str]:
    """(exit status, output) of one command; Broken for an exit status that means no verdict."""
    done = subprocess.run(
        command, cwd=folder, env=environment(**more), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    if done.returncode not in expected:
        raise Broken(f"exit status {done.returncode}: {' '.join(command)}\n{done.stdout[-2000:]}")
    return done.returncode, done.stdout
