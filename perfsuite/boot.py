"""The script by which every worker process starts; it decides which files its imports find.

Run by its path, before anything of the project or of perfsuite is imported: pytest has to see
perfsuite first, to rewrite its assertions. So this file imports the standard library alone. What
it is told stands in the environment, where child processes of multiprocessing find it too: they
run this file as `__mp_main__` before anything else.

In a comparison both sides run the tests of head on the instrument of head; only the subject, the
project's other modules, differs. From head on both sides come

    perfsuite
    every conftest.py, and every file whose name is one of `python_files`
    everything below a folder that `testpaths` names, or that is called `tests` or `test`
    what lies beside a test file, in a folder that is no package, no root and not on `pythonpath`

Everything else in the project's checkout is the subject. Folders of installed packages
(site-packages, and the environment of this interpreter) are no part of it, even inside it. A
program that a test starts by itself (`python -m ...`) finds head's files on both sides.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from functools import cache
from importlib.machinery import ModuleSpec
from typing import Any

VARIABLE = "PERFSUITE_START"  # what `start` wrote, in the environment of the worker
INSTRUMENT = os.path.dirname(os.path.realpath(__file__))
_TESTS = {"tests", "test"}
_INSTALLED = {"site-packages", "dist-packages"}


@dataclass(frozen=True)
class Subject:
    """Which files are the subject's, and where they lie on one side; real, absolute paths.

    head          the project's checkout as it is
    tree          the checkout whose modules are this side's; equal to `head` for head itself
    tests         folders of tests, named by `testpaths`
    python_files  patterns of the names of test files
    roots         folders that modules are imported from: a test file there makes them no tests
    foreign       folders inside `head` that are not the project's: virtual environments
    """

    head: str
    tree: str
    tests: tuple[str, ...] = ()
    python_files: tuple[str, ...] = ("test_*.py", "*_test.py")
    roots: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()

    def owner(self, path: str) -> str:
        """`head` or `tree`, whichever holds this path; empty for what is neither's."""
        real = _real(path)
        innermost_first = sorted({self.head, self.tree}, key=len, reverse=True)
        for folder in innermost_first:
            if _is_below(real, folder):
                parts = os.path.relpath(real, folder).split(os.sep)
                installed = _INSTALLED.intersection(parts) or _is_below_any(real, self.foreign)
                return "" if installed else folder
        return ""

    def kept(self, path: str) -> bool:
        """Whether this file or folder is the instrument's: from head on both sides."""
        real = _real(path)
        if _is_below(real, INSTRUMENT):
            return True
        if self.owner(path) != self.head:
            return False
        parts = os.path.relpath(real, self.head).split(os.sep)
        return (
            parts[-1] == "conftest.py"
            or self._names_test(real)
            or not _TESTS.isdisjoint(parts)
            or _is_below_any(real, self.tests)
            or self._holds_tests(real if os.path.isdir(real) else os.path.dirname(real))
        )

    def _names_test(self, real: str) -> bool:
        """As pytest reads its patterns: one with a slash is matched by the path."""
        name = os.path.basename(real)
        return any(
            fnmatch(real, f"*/{pattern}") if "/" in pattern else fnmatch(name, pattern)
            for pattern in self.python_files
        )

    def _holds_tests(self, folder: str) -> bool:
        names = () if folder in (self.head, *self.roots) else _names(folder)
        tests = (self._names_test(os.path.join(folder, name)) for name in names)
        return "__init__.py" not in names and any(tests)

    def here(self, path: str) -> str:
        """The path on this side of what head has at `path`; unchanged where it is no subject."""
        if self.owner(path) != self.head or self.kept(path):
            return path
        return os.path.normpath(os.path.join(self.tree, os.path.relpath(_real(path), self.head)))

    def in_head(self, path: str) -> str:
        """The path in head of what this side has at `path`."""
        if self.owner(path) != self.tree:
            return path
        return os.path.normpath(os.path.join(self.head, os.path.relpath(_real(path), self.tree)))


@cache
def _real(path: str) -> str:
    return os.path.realpath(path)


@cache
def _names(folder: str) -> tuple[str, ...]:
    return tuple(os.listdir(folder)) if os.path.isdir(folder) else ()


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(os.path.join(folder, ""))


def _is_below_any(path: str, folders: Iterable[str]) -> bool:
    return any(_is_below(path, folder) for folder in folders)


class InstrumentFinder:
    """Finds perfsuite where this file lies, whatever another interpreter has installed."""

    def find_spec(
        self,
        name: str,
        path: object = None,  # noqa: ARG002 - the signature of finders
        target: object = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """The package alone; what is below it follows from its `__path__`."""
        if name != os.path.basename(INSTRUMENT):
            return None
        return _others(self, name, [os.path.dirname(INSTRUMENT)])


class SubjectFinder:
    """Finds in the side's tree what head has in its own.

    The other finders are asked twice: for what head imports, which is taken where it is the
    instrument's, and for what they find when the subject's folders are exchanged. So a module that
    only one of the two has is found, or missed, as it is in a checkout of that side.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None = None,
        target: object = None,  # noqa: ARG002 - the signature of finders
    ) -> ModuleSpec | None:
        """A module of the subject, or of the instrument inside it; None for all others."""
        subject = self._subject
        if path is not None and not any(map(subject.owner, path)):
            return None
        heads = _others(self, name, None if path is None else [*map(subject.in_head, path)])
        if any(map(subject.kept, _places(heads))):
            return heads
        entries = sys.path if path is None else path
        found = self._search(name, [entry for entry in entries if isinstance(entry, str)])
        if found is None and heads is not None and heads.has_location:
            found = self._search_beside(name, heads)
        return found

    def _search_beside(self, name: str, heads: ModuleSpec) -> ModuleSpec | None:
        """A module that no path named: finders of editable installs know files alone."""
        place = _places(heads)[0]
        if self._subject.owner(place) != self._subject.head:
            return None
        folder = os.path.dirname(place)
        is_package = heads.submodule_search_locations is not None
        found = self._search(name, [os.path.dirname(folder) if is_package else folder])
        if found is None:  # without `name=`, or `from package import module` hides what is said
            raise ModuleNotFoundError(
                f"No module named {name!r} in base: {place} is head's and has no counterpart in"
                f" {self._subject.tree}"
            )
        return found

    def _search(self, name: str, path: Sequence[str]) -> ModuleSpec | None:
        """What this side has of that name in these folders of head."""
        spec = _others(self, name, [*map(self._subject.here, path)])
        if spec is not None and not spec.has_location:
            spec = self._fixed_namespace(spec)
        own = [p for p in _places(spec) if self._subject.owner(p) == self._subject.tree]
        return spec if own else None

    def _fixed_namespace(self, spec: ModuleSpec) -> ModuleSpec:
        """A namespace package whose folders stay: Python would look for them in sys.path anew."""
        places = dict.fromkeys(map(self._subject.here, _places(spec)))
        fixed = ModuleSpec(spec.name, None, is_package=True)
        fixed.submodule_search_locations = [
            place for place in places if os.path.isdir(place) or not self._subject.owner(place)
        ]
        return fixed


def _others(finder: object, name: str, path: Sequence[str] | None) -> ModuleSpec | None:
    """What the other finders find, asked as Python asks them."""
    for other in list(sys.meta_path):
        if other is finder or not hasattr(other, "find_spec"):
            continue
        spec = other.find_spec(name, path)
        if spec is not None:
            return spec
    return None


def _places(spec: ModuleSpec | None) -> list[str]:
    """The file of a module, or the folders of a namespace package."""
    if spec is None:
        return []
    if spec.has_location and spec.origin:
        return [spec.origin]
    return list(spec.submodule_search_locations or ())


class FirstStays(list[Any]):
    """Finders of modules, of which the first stays the first.

    pytest inserts its own before all others. That one looks in sys.path for tests and for plugins,
    which a project may be, and would find head's.
    """

    def insert(self, index: Any, finder: Any) -> None:
        """Behind the first at least."""
        super().insert(index or 1, finder)


def start(path: Sequence[str], subject: Subject | None, *, same_python: bool) -> str:
    """What a worker has to be told in `VARIABLE`: the sys.path of this process, and its side."""
    told = {"path": list(path), "same_python": same_python}
    return json.dumps(told | {"subject": asdict(subject) if subject else None})


def told_subject() -> Subject | None:
    """The subject of this worker's side; None in a run that compares no sides."""
    return _subject(json.loads(os.environ.get(VARIABLE, "{}")))


def _subject(told: dict[str, Any]) -> Subject | None:
    fields = told.get("subject")
    if fields is None:
        return None
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return Subject(**values)


def _set_path(told: dict[str, Any], subject: Subject | None) -> None:
    """The pytest process's path; another interpreter keeps its own behind the project's folders."""
    if told["same_python"]:
        sys.path[:] = told["path"]
    elif subject is not None:
        sys.path[:0] = [entry for entry in told["path"] if subject.owner(entry)]


def _set_finders(told: dict[str, Any], subject: Subject | None) -> None:
    if subject is not None and subject.tree != subject.head:
        sys.meta_path = FirstStays([SubjectFinder(subject), *sys.meta_path])
    elif not told["same_python"]:
        sys.meta_path = FirstStays([InstrumentFinder(), *sys.meta_path])


def _prepare(*, with_path: bool) -> None:
    told = json.loads(os.environ[VARIABLE])
    subject = _subject(told)
    if with_path:
        _set_path(told, subject)
    _set_finders(told, subject)


def _die_with_parent() -> None:
    """Be killed when the process that started this one ends, however it ends.

    A stopped worker can not read that its pipe is closed, so it would stay for ever. Linux only;
    elsewhere the pipe is all there is.
    """
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    set_death_signal = 1  # PR_SET_PDEATHSIG in linux/prctl.h
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before it was asked for
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__mp_main__":  # a child of multiprocessing, which has got the path already
    _prepare(with_path=False)

if __name__ == "__main__":
    _die_with_parent()
    _prepare(with_path=True)
    import pytest

    sys.exit(pytest.main(sys.argv[1:]))
