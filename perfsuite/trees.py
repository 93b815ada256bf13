"""The two sides of a comparison: head is the working tree, base what `--perf-against` names."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from glob import glob
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from perfsuite.boot import Subject
from perfsuite.environment import commit
from perfsuite.errors import OptionError
from perfsuite.origins import project_modules
from perfsuite.worktrees import GitFailed, checkout, git

_OPTION = "--perf-against"
_OLDEST = (3, 11)
_PROBE_S = 60.0
# Understood by every Python since 2.7, so that an old one can say how old it is.
_PROBE = """
import json, sys
sys.path[:] = [entry for entry in sys.path if entry]
missing = []
if sys.version_info >= (3, 10):
    from importlib.metadata import PackageNotFoundError, version
    for name in sys.argv[1:]:
        try:
            version(name)
        except PackageNotFoundError:
            missing.append(name)
print(json.dumps({"version": sys.version_info[:3], "prefix": sys.prefix, "missing": missing}))
"""


@dataclass(frozen=True)
class Side:
    """One side of a comparison, as `crew.Worker` takes it.

    name         as printed: "working tree (1a2b3c4d5e6f+changes)", "main (1a2b3c4d5e6f)"
    subject      where the project's modules have to come from on this side
    interpreter  the Python of its workers; None: the one of this process
    note         what a reader of the result has to know, empty where there is nothing
    """

    name: str
    subject: Subject
    interpreter: Path | None = None
    note: str = ""

    @property
    def tree(self) -> Path:
        """The checkout whose modules this side runs: head's own, or base's."""
        return Path(self.subject.tree)


def head_side(config: pytest.Config) -> Side:
    """The working tree as it is, changes included; also without git."""
    root = config.rootpath.resolve()
    head = _top(root) or root
    state = commit(root)
    pythonpath = [(root / folder).resolve() for folder in config.getini("pythonpath")]
    roots = [root, root / "src", *pythonpath]
    subject = Subject(
        head=str(head),
        tree=str(head),
        tests=tuple(map(str, _test_folders(root, config.getini("testpaths")))),
        python_files=tuple(config.getini("python_files")),
        roots=tuple(dict.fromkeys(map(str, roots))),
        foreign=_inside(head, sys.prefix, sys.exec_prefix, sys.base_prefix),
    )
    return Side(f"working tree ({state})" if state else "working tree", subject)


def _test_folders(root: Path, testpaths: Sequence[str]) -> list[Path]:
    """What `testpaths` names, less what holds the whole project."""
    found = [name for text in testpaths for name in glob(text, root_dir=root, recursive=True)]
    folders = [(root / name).resolve() for name in found]
    whole = (root, root / "src")
    return [f for f in folders if not any(folder.is_relative_to(f) for folder in whole)]


def _inside(head: Path, *folders: str) -> tuple[str, ...]:
    real = {Path(folder).resolve() for folder in folders}
    return tuple(sorted(str(folder) for folder in real if head in folder.parents))


@contextmanager
def base_side(text: str, head: Side) -> Iterator[Side]:
    """What `--perf-against=text` names, ready to run; what was made for it is removed at the end.

    An executable file is another Python interpreter, a directory another checkout, anything else a
    revision of the repository that holds head. Raises OptionError for what can not be used.
    """
    path = Path(text).expanduser()
    if path.is_file() and os.access(path, os.X_OK):
        yield _interpreter(text, path.absolute(), head)
    elif path.is_dir():
        yield _directory(text, path.resolve(), head)
    else:
        with _revision(text, head) as side:
            yield side


def _interpreter(text: str, path: Path, head: Side) -> Side:
    answer = _probe(text, path)
    version = ".".join(map(str, answer["version"]))
    if tuple(answer["version"]) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        raise OptionError(
            f"{_OPTION}={text} is Python {version}; perfsuite needs {oldest} or later"
        )
    if answer["missing"]:
        missing = ", ".join(answer["missing"])
        raise OptionError(
            f"{_OPTION}={text} (Python {version}) lacks {missing}; install what perfsuite requires"
            " there: both sides are measured by the perfsuite of this run"
        )
    if os.path.realpath(answer["prefix"]) == os.path.realpath(sys.prefix):
        raise OptionError(
            f"{_OPTION}={text} is the interpreter of this run: there is no difference"
        )
    foreign = head.subject.foreign + _inside(head.tree, answer["prefix"])
    subject = replace(head.subject, foreign=foreign)
    return Side(f"{text} (Python {version})", subject, interpreter=path)


def _probe(text: str, path: Path) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [path, "-c", _PROBE, *_needed()], capture_output=True, text=True, errors="replace",
            stdin=subprocess.DEVNULL, timeout=_PROBE_S, check=True,
        )  # fmt: skip
        answer: dict[str, Any] = json.loads(done.stdout)
        return {name: answer[name] for name in ("version", "prefix", "missing")}
    except (OSError, subprocess.SubprocessError, ValueError, TypeError, KeyError) as problem:
        raise OptionError(
            f"{_OPTION}={text}: this file does not answer as a Python interpreter ({problem});"
            " expected an interpreter, a directory or a git revision"
        ) from None


def _needed() -> list[str]:
    """The distributions without which a worker of this run does not start."""
    try:
        requirements = metadata.requires("perfsuite") or []
    except metadata.PackageNotFoundError:  # run from its sources
        requirements = ["pytest"]
    plain = [text for text in requirements if "extra ==" not in text]
    names = [re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in plain]
    return names + (["pytest-xdist"] if "xdist" in sys.modules else [])  # workers get its options


def _directory(text: str, path: Path, head: Side) -> Side:
    """Another checkout; the one that holds the path where head's root is a part of one as well."""
    root, top = Path(head.subject.roots[0]), head.tree
    if path in (root, top):
        raise OptionError(f"{_OPTION}={text} is the working tree itself: there is no difference")
    own_top = _top(path)
    if own_top == path or (own_top and path.relative_to(own_top) == root.relative_to(top)):
        subject = replace(head.subject, tree=str(own_top))
    else:
        subject = replace(head.subject, head=str(root), tree=str(path))
    hint = (
        f"; a branch of that name is refs/heads/{text},"
        " a virtual environment is named by its bin/python"
    )
    _refuse_other_projects(text, subject, hint)
    state = commit(path)
    return Side(f"{text} ({state})" if state else text, subject)


@contextmanager
def _revision(text: str, head: Side) -> Iterator[Side]:
    top, sha = _resolve(text, Path(head.subject.roots[0]))
    with ExitStack() as stack:
        try:
            tree = stack.enter_context(checkout(top, sha))
        except GitFailed as problem:
            raise OptionError(f"{_OPTION}={text}: no worktree of {top}: {problem}") from None
        subject = replace(head.subject, tree=str(tree.resolve()))
        _refuse_other_projects(text, subject, "")
        note = "submodules are not checked out in base" if (tree / ".gitmodules").exists() else ""
        name = sha[:12] if sha.startswith(text) else f"{text} ({sha[:12]})"
        yield Side(name, subject, note=note)


def _resolve(text: str, root: Path) -> tuple[Path, str]:
    """The top of the repository and the full name of the commit."""
    try:
        top = Path(git(root, "rev-parse", "--show-toplevel"))
    except GitFailed as problem:
        raise OptionError(
            f"{_OPTION}={text}: no such file or directory in {Path.cwd()}, and no revision:"
            f" {root} is in no git work tree ({problem})"
        ) from None
    try:
        if text.startswith("-"):  # git would take it for an option
            raise GitFailed("no revision begins with -")
        return top, git(root, "rev-parse", "--verify", f"{text}^{{commit}}")
    except GitFailed as problem:
        raise OptionError(
            f"{_OPTION}={text}: unknown revision\n"
            f"tried as a file and a directory in {Path.cwd()}, and as a revision of {top}"
            f" ({problem}){_advice(text, top)}"
        ) from None


def _advice(text: str, top: Path) -> str:
    """What git knows that may have been meant."""
    try:
        shallow = git(top, "rev-parse", "--is-shallow-repository") == "true"
        remote = git(top, "for-each-ref", "--format=%(refname:short)", f"refs/remotes/*/{text}")
    except GitFailed:
        return ""
    known = f"\nknown is {', '.join(remote.split())}: say that" if remote else ""
    return known or ("\nthis clone is shallow: git fetch --unshallow" if shallow else "")


def _refuse_other_projects(text: str, subject: Subject, hint: str) -> None:
    modules = project_modules(subject)
    if modules and not any(os.path.exists(subject.here(place)) for place in modules.values()):
        raise OptionError(
            f"{_OPTION}={text} has none of the project's modules ({', '.join(sorted(modules))})"
            f" where head has them{hint}"
        )


def _top(folder: Path) -> Path | None:
    """The top of the checkout that holds this folder, None where git knows none."""
    try:
        return Path(git(folder, "rev-parse", "--show-toplevel")).resolve()
    except (GitFailed, OptionError):
        return None
