"""Checkouts for the time of a run: there while it lives, gone after every way to end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from perfsuite import worktrees
from perfsuite.baselines import lock_folder
from perfsuite.errors import OptionError
from perfsuite.worktrees import GitFailed, checkout

# Another run, in the middle of its comparison.
_HOLDER = """
import signal, sys, time
from pathlib import Path
from perfsuite.worktrees import checkout
# tox, or a shell for a job in the background, may hand down SIGINT as ignored
signal.signal(signal.SIGINT, signal.default_int_handler)

with checkout(Path(sys.argv[1]), "HEAD") as tree:
    print(tree, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def committed(repository: Any) -> Any:
    """A repository with one state."""
    repository.commit({"product.py": "STATE = 1\n"})
    return repository


@pytest.fixture
def other_run(committed: Any) -> Iterator[Callable[[], tuple[subprocess.Popen[str], Path]]]:
    """Start another process that holds a worktree; the process and where its worktree is."""
    started: list[subprocess.Popen[str]] = []

    def start() -> tuple[subprocess.Popen[str], Path]:
        process = subprocess.Popen(
            [sys.executable, "-c", _HOLDER, str(committed.path)], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )  # fmt: skip
        started.append(process)
        stdout: IO[str] | None = process.stdout
        assert stdout is not None
        return process, Path(stdout.readline().strip())

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _folders() -> list[Path]:
    return list(lock_folder().glob("base-*"))


def _known_to_git(repository: Any) -> int:
    return len(repository.git("worktree", "list").splitlines()) - 1


def test_it_is_there_and_then_it_is_not(committed: Any) -> None:
    """The files of the commit, without changes and untracked files; nothing after the block."""
    committed.write({"product.py": "STATE = 2\n", "untracked.py": ""})
    with checkout(committed.path, "HEAD") as tree:
        assert (tree / "product.py").read_text() == "STATE = 1\n"
        assert not (tree / "untracked.py").exists()
        owner = json.loads((tree.parent / "owner.json").read_text())
        assert owner == {"pid": os.getpid(), "repository": str(committed.path)}
    assert _folders() == []
    assert _known_to_git(committed) == 0
    assert committed.git("status", "--porcelain") == "M product.py\n?? untracked.py"


@pytest.mark.parametrize("problem", [KeyboardInterrupt, RuntimeError])
def test_it_is_removed_after_a_failure(committed: Any, problem: type[BaseException]) -> None:
    """Also when bytecode and other files were written into it."""

    def run() -> None:
        with checkout(committed.path, "HEAD") as tree:
            (tree / "__pycache__").mkdir()
            (tree / "__pycache__/product.pyc").touch()
            raise problem

    with pytest.raises(problem):
        run()
    assert _folders() == []
    assert _known_to_git(committed) == 0


def test_ctrl_c_in_another_process(other_run: Any, committed: Any) -> None:
    """An interrupted run removes its own."""
    process, tree = other_run()
    assert tree.is_dir()
    process.send_signal(signal.SIGINT)
    process.wait(60)
    assert _folders() == []
    assert _known_to_git(committed) == 0


def test_what_a_killed_run_left_is_removed_by_the_next(other_run: Any, committed: Any) -> None:
    """After SIGKILL it stays; the next run removes it, and git forgets it."""
    process, stale = other_run()
    process.kill()
    process.wait(60)
    assert stale.is_dir()
    with checkout(committed.path, "HEAD") as tree:
        assert not stale.exists()
        assert _folders() == [tree.parent]
        assert _known_to_git(committed) == 1
    assert _known_to_git(committed) == 0


def test_a_run_that_lives_keeps_its_worktree(other_run: Any, committed: Any) -> None:
    """Beside others, however many start and end."""
    process, live = other_run()
    for _ in range(2):
        with checkout(committed.path, "HEAD") as tree:
            assert {live.parent, tree.parent} == set(_folders())
    assert (live / "product.py").is_file()
    assert process.poll() is None


@pytest.mark.parametrize("left", ["nothing", "no owner's name", "a broken name", "a lost home"])
def test_half_made_folders_are_removed(committed: Any, left: str) -> None:
    """Of runs killed before they had written all, and of repositories that are gone."""
    stale = lock_folder() / "base-half"
    (stale / "tree").mkdir(parents=True)
    owner = {"no owner's name": "", "a broken name": "{", "a lost home": '{"repository": "/gone"}'}
    if left in owner:
        (stale / "owner.json").write_text(owner[left])
    with checkout(committed.path, "HEAD"):
        assert not stale.exists()


def test_one_that_git_has_locked_is_removed(committed: Any) -> None:
    """Git locks a worktree while it makes it: so is one left whose run was killed meanwhile."""
    stale = lock_folder() / "base-locked"
    stale.mkdir()
    (stale / "owner.json").write_text(json.dumps({"repository": str(committed.path)}))
    committed.git("worktree", "add", "-q", "--detach", "--lock", str(stale / "tree"), "HEAD")
    with checkout(committed.path, "HEAD"):
        assert _known_to_git(committed) == 1


def test_the_users_own_worktrees_are_left_alone(committed: Any, tmp_path: Path) -> None:
    """Also one whose folder is not there now: its disk may be back tomorrow."""
    own = tmp_path / "own"
    committed.git("worktree", "add", "-q", "--detach", str(own), "HEAD")
    own.rename(tmp_path / "elsewhere")
    with checkout(committed.path, "HEAD"):
        pass
    assert str(own) in committed.git("worktree", "list")


def test_hooks_of_the_repository_do_not_run(committed: Any, tmp_path: Path) -> None:
    """They would do what they do at every checkout of a developer."""
    hook = committed.path / ".git/hooks/post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    with checkout(committed.path, "HEAD"):
        assert not (tmp_path / "ran").exists()


def test_inside_a_hook_of_another_repository(
    committed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What git tells its hooks points to that repository; it is not followed."""
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "nowhere/index"))
    with checkout(committed.path, "HEAD") as tree:
        assert (tree / "product.py").is_file()


def test_what_git_refuses_leaves_nothing(committed: Any) -> None:
    """What it said is passed on."""
    with pytest.raises(GitFailed, match="0000"), checkout(committed.path, "0" * 40):
        pass
    assert _folders() == []


def test_a_folder_of_another_user_is_not_used(
    committed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever owns it could change the code that is run."""
    monkeypatch.setattr(worktrees, "lock_folder", lambda: tmp_path)
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(OptionError, match="belongs to another user"), \
            checkout(committed.path, "HEAD"):  # fmt: skip
        pass
