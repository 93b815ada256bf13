"""Checkouts of one commit for the time of a run: git worktrees, removed also after a crash.

Each lies in a folder of its own below the user's lock folder, beside a file that says whose it is:

    base-XXXXXXXX/owner.json    {"pid", "repository"}, locked as long as its run lives
    base-XXXXXXXX/tree/         the worktree

The kernel releases the lock of a run that was killed. The next run finds it free and removes what
is there; a folder whose lock is held stays. In git's record of worktrees no other is touched, so no
`git worktree prune`: it forgets those of a disk that is not mounted.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from perfsuite.baselines import lock_folder
from perfsuite.errors import OptionError

_OWNER, _TREE = "owner.json", "tree"
# A hook of git sets these for the repository it runs in; they would point every command there.
_OF_HOOKS = (
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR",
    "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES",
)  # fmt: skip
# No hook of the repository runs, and nothing stays behind that watches the worktree.
_SETTINGS = ("-c", f"core.hooksPath={os.devnull}", "-c", "core.fsmonitor=false")


class GitFailed(Exception):
    """What git said when it refused."""


def git(folder: Path, *words: str) -> str:
    """What git answers in this folder; GitFailed where it refuses, OptionError without git.

    In a session of its own, so that Ctrl-C in a terminal does not end the removal of a worktree.
    """
    environment = {name: text for name, text in os.environ.items() if name not in _OF_HOOKS}
    environment |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(
            ["git", *_SETTINGS, *words], cwd=folder, env=environment, start_new_session=True,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise OptionError("git is not on the PATH; a revision is checked out by git") from None
    if done.returncode:
        raise GitFailed(done.stderr.strip() or f"git ended with {done.returncode}")
    return done.stdout.strip()


@contextmanager
def checkout(repository: Path, commit: str) -> Iterator[Path]:
    """A worktree at this commit, until the end of the block; GitFailed where there can be none."""
    folder, lock = _claim(repository)
    try:
        git(repository, "worktree", "add", "--detach", str(folder / _TREE), commit)
        yield folder / _TREE
    finally:
        _remove(folder)
        os.close(lock)


def _claim(repository: Path) -> tuple[Path, int]:
    """A locked folder; what runs that were killed left behind is removed first."""
    home = _home()
    with FileLock(home / "trees.lock"):  # nobody sweeps between the making and the locking
        _sweep(home)
        folder = Path(tempfile.mkdtemp(prefix="base-", dir=home))
        lock = os.open(folder / _OWNER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        owner = {"pid": os.getpid(), "repository": str(repository)}
        os.write(lock, json.dumps(owner).encode())
    return folder, lock


def _home() -> Path:
    """The folder for all of them; code is run from it, so it has to be this user's."""
    home = lock_folder()
    if home.stat().st_uid != os.getuid():
        raise OptionError(
            f"{home} belongs to another user, who could change what is run there;"
            " set TMPDIR to a folder of your own"
        )
    return home


def _sweep(home: Path) -> None:
    for folder in home.glob("base-*"):
        lock = None
        try:
            lock = os.open(folder / _OWNER, os.O_RDWR | os.O_CLOEXEC)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # its run lives
        except OSError:
            pass  # killed before it could write
        finally:
            if lock is not None:
                os.close(lock)
        _remove(folder)


def _remove(folder: Path) -> None:
    """The worktree, git's record of it, and the folder; whatever of them there is."""
    with suppress(OSError, ValueError, KeyError, GitFailed, OptionError):
        repository = Path(json.loads((folder / _OWNER).read_text())["repository"])
        # Twice: one that was interrupted while it was made is locked by git.
        git(repository, "worktree", "remove", "--force", "--force", str(folder / _TREE))
    shutil.rmtree(folder, ignore_errors=True)
