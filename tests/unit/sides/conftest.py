"""Small real repositories with two states, and sessions of pytest started on one of their sides."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from perfsuite import boot
from perfsuite.boot import Subject
from perfsuite.trees import Side, head_side

# Tells which file each module of the session came from.
_TELL = """
import json, os, sys

def pytest_sessionfinish():
    files = {name: vars(module).get("__file__") for name, module in list(sys.modules.items())
             if hasattr(module, "__dict__")}
    with open(os.environ["SEEN"], "w") as stream:
        json.dump({name: file for name, file in files.items() if isinstance(file, str)}, stream)
"""


@dataclass(frozen=True)
class Seen:
    """What a session of pytest did: its exit status, its output, the files of its modules."""

    status: int
    output: str
    files: Mapping[str, str]


class Repository:
    """A git repository whose files are written here."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self.git("init", "-q", "-b", "main")

    def git(self, *words: str) -> str:
        who = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.invalid")
        done = subprocess.run(
            ["git", *who, *words], cwd=self.path, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def write(self, files: Mapping[str, str | None]) -> None:
        """Write files, or remove those that are None."""
        for name, text in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink() if text is None else path.write_text(text)

    def commit(self, files: Mapping[str, str | None]) -> str:
        self.write(files)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "a state")
        return self.git("rev-parse", "HEAD")


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    for name in [name for name in os.environ if name.startswith(("GIT_", "PYTEST_XDIST"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """An empty one."""
    return Repository(tmp_path / "project")


@pytest.fixture
def two_states(repository: Repository) -> Callable[..., Repository]:
    """A repository whose branch `old` holds `base`, and whose working tree holds `head` as well."""

    def make(base: Mapping[str, str | None], head: Mapping[str, str | None]) -> Repository:
        repository.commit({"conftest.py": "raise RuntimeError('of base')\n", **base})
        repository.git("branch", "old")
        repository.commit({"conftest.py": _TELL, **head})
        return repository

    return make


@pytest.fixture
def side_of() -> Callable[..., Side]:
    """Head's side of a project; ini values by name."""

    def make(root: Path, **ini: Any) -> Side:
        values = {"python_files": ["test_*.py"], "testpaths": [], "pythonpath": [], **ini}
        config: Any = SimpleNamespace(rootpath=root, getini=values.__getitem__)
        return head_side(config)

    return make


@pytest.fixture
def session(tmp_path: Path) -> Callable[..., Seen]:
    """Run pytest in a project as a worker of one side is run; the paths are put before sys.path."""

    def run(
        subject: Subject | None, root: Path, *arguments: str, path: tuple[Path, ...] = (),
        python: Path | None = None, script: str = boot.__file__, **environment: str,
    ) -> Seen:  # fmt: skip
        seen = tmp_path / "seen.json"
        seen.unlink(missing_ok=True)
        entries = [*map(str, path), *sys.path]
        told = boot.start(entries, subject, same_python=python is None)
        done = subprocess.run(
            [python or sys.executable, "-P", script, "-p", "no:cacheprovider", *arguments],
            cwd=root, env={**os.environ, boot.VARIABLE: told, "SEEN": str(seen), **environment},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        files = json.loads(seen.read_text()) if seen.exists() else {}
        return Seen(done.returncode, done.stdout, files)

    return run


@pytest.fixture
def with_tree() -> Callable[[Side, Path], Subject]:
    """A side's subject with its modules in another tree."""

    def make(side: Side, tree: Path) -> Subject:
        return replace(side.subject, tree=str(tree.resolve()))

    return make
