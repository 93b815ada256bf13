"""Where the project's modules were loaded from: a side must run its own code and no other's."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence

from perfsuite.boot import INSTRUMENT, Subject

_SHOWN = 3  # modules that an error names


def project_modules(subject: Subject, path: Iterable[str] = ()) -> dict[str, str]:
    """{name: file or folder} of the top-level modules and packages that head's checkout holds.

    Searched in its roots and in what `path` (a sys.path) names inside it. Namespace packages are
    not known by name: any folder may look like one.
    """
    entries = [entry for entry in path if subject.owner(entry) == subject.head]
    folders = dict.fromkeys([*subject.roots, *map(os.path.realpath, entries)])
    found: dict[str, str] = {}
    for folder in folders:
        for name, place in _modules(folder):
            if not subject.kept(place) and name not in sys.stdlib_module_names:
                found.setdefault(name, place)
    return found


def _modules(folder: str) -> list[tuple[str, str]]:
    entries = list(os.scandir(folder)) if os.path.isdir(folder) else []
    packages = [e for e in entries if os.path.isfile(os.path.join(e.path, "__init__.py"))]
    files = [e for e in entries if e.name.endswith((".py", ".so")) and e.is_file()]
    named = [(entry.name.partition(".")[0], entry.path) for entry in [*packages, *files]]
    return [(name, place) for name, place in named if name.isidentifier()]


def loaded(
    subject: Subject, modules: Mapping[str, object], path: Sequence[str]
) -> list[tuple[str, str]]:
    """(module, file) of every loaded module of the project; called in the worker.

    Of the project is what lies in one of the two checkouts, or bears a name that head's defines.
    """
    names = project_modules(subject, path)
    found = []
    for name, module in sorted(modules.items()):
        file = getattr(module, "__dict__", {}).get("__file__")
        if not isinstance(file, str) or not os.path.isabs(file) or subject.kept(file):
            continue
        if subject.owner(file) or _is_named(name, names):
            found.append((name, file))
    return found


def _is_named(name: str, names: Mapping[str, str]) -> bool:
    top = name.partition(".")[0]
    return top in names and top != os.path.basename(INSTRUMENT)


def complaint(side: str, subject: Subject, origins: Sequence[Sequence[str]]) -> str | None:
    """Why this side did not run its own code, None where it did; called in the pytest process.

    `origins` is what a worker's `finished` answer carries under that name, `side` the side's name.
    """
    outside = [(name, file) for name, file in origins if subject.owner(file) != subject.tree]
    if outside:
        listed = [f"{name} was loaded from {file}" for name, file in outside[:_SHOWN]]
        more = [f"and {len(outside) - _SHOWN} more"] if len(outside) > _SHOWN else []
        expected = f"expected below {subject.tree}, the modules of {side}"
        return "\n".join([*listed, *more, expected, _remedy(subject, outside[0][1])])
    if not origins and subject.tree != subject.head:
        return (
            f"nothing of the project was loaded from {subject.tree}, the modules of {side}:\n"
            "head and base ran the same code. What counts as a test is from head on both sides:\n"
            f"{_tests(subject)}"
        )
    return None


def _remedy(subject: Subject, file: str) -> str:
    if subject.owner(file):
        return (
            "a file was imported by its path; with tests inside the package use"
            " --import-mode=prepend in place of importlib"
        )
    return (
        "a copy is installed; uninstall it or install it editable (pip install -e), or name the"
        " project's folder in the ini's pythonpath"
    )


def _tests(subject: Subject) -> str:
    folders = [os.path.relpath(folder, subject.head) for folder in subject.tests]
    return f"conftest.py, {', '.join([*subject.python_files, 'tests/', *folders])}"
