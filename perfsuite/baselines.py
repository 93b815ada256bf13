"""The baseline files: their format, its versions, read and write. No other module touches them.

    baselines/<machine class or static target>/<suite>.json

    format 1   {"format": 1, "machine": ..., "suite": ..., "entries": {key: entry}}
               entry = {"test", "date", "commit", "toolchain", "config", "figures", "history",
                        "best"}
               figures = {"<metric id>" or "<metric id>@<part>": {"unit", "processes": [...],
                          "sessions": [5, 5]}}
               history = [{"date", "commit", "figures": {figure: level}}], oldest first
               best    = {figure: {"value", "date", "commit"}}

`processes` holds one median for each process; raw samples are not kept here. `sessions` says how
many of them belong to each session, where there was more than one. Floats have five significant
digits and keys are sorted, so that a review shows what moved. A file that cannot be read stays as
it is. Files are replaced whole, under a lock, by one process.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from perfsuite import accepted
from perfsuite.accepted import Best, Save
from perfsuite.devices import slug
from perfsuite.errors import BaselineError
from perfsuite.metrics import METRICS, refusal

FORMAT = 1
PUBLISHED = "published"  # figures that the documents print, in a form of their own


@dataclass(frozen=True)
class Key:
    """What makes two measurements comparable, the metric's definition aside."""

    workload: str  # a document's workload id, or the name of a test
    engine: str = ""
    scale: str = ""
    tier: str = "measured"

    @property
    def text(self) -> str:
        """The key as it stands in the file."""
        parts = (self.workload, self.engine, self.scale, self.tier)
        return " | ".join(part for part in parts if part)


@dataclass(frozen=True)
class Entry:
    """What was accepted for one key, and where it stands."""

    file: Path
    test: str
    date: str
    commit: str
    toolchain: str
    config: Mapping[str, Any]
    figures: Mapping[str, Sequence[float]]  # figure name -> one value for each process
    sessions: Mapping[str, Sequence[int]] = field(default_factory=dict)  # figure -> its processes'
    history: Sequence[Save] = ()  # every save that is remembered, oldest first
    best: Mapping[str, Best] = field(default_factory=dict)  # figure -> the best ever accepted

    @property
    def saves(self) -> list[str]:
        """The dates of the saves that are remembered, oldest first."""
        return [save.date for save in self.history] or [self.date]

    def levels(self, figure: str) -> list[float]:
        """The accepted levels of a figure, oldest first, the present one last.

        A save that did not accept this figure has none: there may be fewer levels than `saves`.
        """
        if self.history:
            return [save.figures[figure] for save in self.history if figure in save.figures]
        return [median(self.figures[figure])] if figure in self.figures else []


@dataclass
class Baselines:
    """Folders that are read in order; the first that has a key decides. Files are read once."""

    folders: Sequence[Path]
    _files: dict[Path, dict[str, Entry]] = field(default_factory=dict)

    def find(self, machine: str, suite: str, key: Key) -> Entry | None:
        """The accepted entry, or None; BaselineError when a file is broken."""
        for folder in self.folders:
            entry = self._entries(folder / machine / file_name(suite)).get(key.text)
            if entry is not None:
                return entry
        return None

    def elsewhere(self, machine: str, suite: str, key: Key) -> list[str]:
        """Other machine classes that have the key, by name."""
        files = [f for folder in self.folders for f in sorted(folder.glob(f"*/{file_name(suite)}"))]
        others = [f for f in files if f.parent.name not in (machine, PUBLISHED)]
        return list(dict.fromkeys(f.parent.name for f in others if key.text in self._entries(f)))

    def entries(self, machine: str) -> Iterator[tuple[str, Entry]]:
        """Every (key text, entry) of a machine class over all folders, earlier folders first."""
        seen = set()
        for folder in self.folders:
            for path in sorted((folder / machine).glob("*.json")):
                for text, entry in self._entries(path).items():
                    if (path.name, text) not in seen:
                        seen.add((path.name, text))
                        yield text, entry

    def _entries(self, path: Path) -> dict[str, Entry]:
        if path not in self._files:
            self._files[path] = read(path)
        return self._files[path]


def file_name(suite: str) -> str:
    """A safe file name for a suite; what another suite could be called too gets a hash."""
    bare = suite.removesuffix(".py")
    plain = slug(bare.replace("/", ".").replace("\\", "."))[:80]
    if plain == bare.replace("/", ".") and "." not in bare:
        return f"{plain}.json"
    return f"{plain or 'suite'}-{hashlib.sha256(suite.encode()).hexdigest()[:8]}.json"


def read(path: Path) -> dict[str, Entry]:
    """The entries of one file, empty when there is none; BaselineError when it is broken."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as problem:
        raise _broken(path, str(problem)) from None
    return {key: _entry(path, text, key, value) for key, value in _parse(path, text).items()}


def _parse(path: Path, text: str) -> dict[str, Any]:
    """The entries as they stand in the file."""
    try:
        document = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as problem:
        raise _broken(path, problem.msg, line=problem.lineno) from None
    except (ValueError, RecursionError) as problem:
        raise _broken(path, str(problem), line=_strange_line(text)) from None
    version = document.get("format") if isinstance(document, dict) else None
    if type(version) is not int or version < 1:
        raise _broken(path, 'no "format" number at the top')
    if version > FORMAT:
        raise BaselineError(
            f"{path}: format {version} is newer than this perfsuite reads ({FORMAT});"
            " update perfsuite, the file stays as it is"
        )
    if not isinstance(document.get("entries"), dict):
        raise _broken(path, 'no "entries" object at the top')
    entries: dict[str, Any] = document["entries"]
    return entries


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not a finite number")


def _strange_line(text: str) -> int:
    """The line of the first NaN or Infinity outside of strings, 0 where there is none."""
    for match in re.finditer(r'"(?:[^"\\]|\\.)*"|(NaN|Infinity)', text):
        if match[1]:
            return text.count("\n", 0, match.start()) + 1
    return 0


def _entry(path: Path, text: str, key: str, value: Any) -> Entry:
    try:
        return Entry(
            file=path,
            **{name: _typed(value, name, str) for name in ("test", "date", "commit", "toolchain")},
            config=_typed(value, "config", dict),
            figures={name: _figure(name, figure) for name, figure in value["figures"].items()},
            sessions={name: _sessions(name, figure) for name, figure in value["figures"].items()},
            history=[_save(save) for save in _typed(value, "history", list)],
            best={name: _best(name, at) for name, at in _typed(value, "best", dict).items()},
        )
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as problem:
        place = text.find(json.dumps(key, ensure_ascii=False))
        line = text.count("\n", 0, place) + 1 if place >= 0 else 0
        raise _broken(path, f"unexpected structure of {key!r}: {problem!r}", line) from None


def _typed(value: Mapping[str, Any], name: str, kind: type) -> Any:
    found = value.get(name, kind())
    if not isinstance(found, kind):
        raise TypeError(f"{name} is {found!r}")
    return found


def _figure(name: str, figure: Mapping[str, Any]) -> list[float]:
    values = list(figure["processes"])
    if not values:
        raise ValueError(f"{name}: expected numbers, found {values}")
    return [_number(name, value) for value in values]


def _number(name: str, value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{name}: expected numbers, found {value!r}")
    of = METRICS.get(name.partition("@")[0])
    reason = refusal(of, value) if of else None
    if reason:
        raise ValueError(reason)
    number: float = value
    return number


def _sessions(name: str, figure: Mapping[str, Any]) -> list[int]:
    """How many of a figure's processes belong to each session."""
    processes = len(figure["processes"])
    counts = list(figure.get("sessions", [processes]))
    if any(type(n) is not int or n < 1 for n in counts) or sum(counts) != processes:
        raise ValueError(f"{name}: sessions {counts} are no parts of {processes} processes")
    return counts


def _save(save: Mapping[str, Any]) -> Save:
    levels = {name: _number(name, level) for name, level in save["figures"].items()}
    return Save(_typed(save, "date", str), _typed(save, "commit", str), levels)


def _best(name: str, at: Mapping[str, Any]) -> Best:
    return Best(_number(name, at["value"]), _typed(at, "date", str), _typed(at, "commit", str))


def _broken(path: Path, problem: str, line: int = 0) -> BaselineError:
    place = f"{path}, line {line}" if line else str(path)
    return BaselineError(
        f"{place}: cannot read this baseline: {problem}.\n"
        "It stays as it is. Restore it (git checkout), or move it away and record anew with"
        " --perf-save."
    )


def shown(path: Path) -> str:
    """A path as people want it: from here on, where it is below."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def check_writable(folder: Path) -> None:
    """Refuse before anything is measured when the folder cannot take new figures."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=".probe-")
        os.close(handle)
        os.unlink(name)
    except OSError as problem:
        raise BaselineError(
            f"{folder}: cannot write baselines: {problem.strerror or problem}.\n"
            "Nothing was measured. Choose another folder with --perf-baselines=DIR."
        ) from None


def save(
    folder: Path, machine: str, suite: str, entries: Mapping[str, Mapping[str, Any]], mode: str
) -> tuple[Path, list[str]]:
    """Take entries (key text -> the file's entry) into one file; returns it and what changed.

    mode "all" replaces figures that were measured, "new" adds missing ones only. Entries and
    figures that are not given stay, and what was accepted goes on the entry's history. The old
    file or the new one is there at every moment.
    Raises BaselineError when the file is broken, read-only or the disk is full.
    """
    path = folder / machine / file_name(suite)
    with _locked(path):
        read(path)
        kept = _parse(path, path.read_text(encoding="utf-8")) if path.exists() else {}
        changed = [key for key, entry in entries.items() if _take(kept, key, entry, mode)]
        if changed:
            document = {"format": FORMAT, "machine": machine, "suite": suite, "entries": kept}
            replace_file(path, dump(document))
    return path, changed


def _take(entries: dict[str, Any], key: str, entry: Mapping[str, Any], mode: str) -> bool:
    old = entries.get(key, {})
    had = old.get("figures", {})
    fresh = {n: f for n, f in entry["figures"].items() if mode == "all" or n not in had}
    if old and not fresh:
        return False
    head = entry if mode == "all" or not old else old
    past = _remembered(old, _as_save(entry, fresh))
    entries[key] = {**head, "figures": {**had, **fresh}, **past}
    return True


def _remembered(old: Mapping[str, Any], save: Mapping[str, Any]) -> dict[str, Any]:
    """An entry's history and best with one save more; an entry without a history is its first."""
    first = _as_save(old, old.get("figures", {}))
    past = old.get("history") or ([first] if old else [])
    best = {**accepted.better({}, first), **old.get("best", {})}
    return {"history": accepted.longer(past, save), "best": accepted.better(best, save)}


def _as_save(entry: Mapping[str, Any], figures: Mapping[str, Any]) -> dict[str, Any]:
    # shortened as in the file, or the same level would be a new best
    levels = {name: as_stored(median(figure["processes"])) for name, figure in figures.items()}
    head = {name: entry.get(name, "") for name in ("date", "commit")}
    return {**head, "figures": levels}


# What a review reads as one: a figure, a save, a best.
_LINES = ({"processes", "unit"}, {"commit", "date", "figures"}, {"commit", "date", "value"})


def dump(document: Mapping[str, Any]) -> str:
    """JSON for git: sorted keys, short floats; a figure, a save and a list of numbers on a line."""
    return _text(as_stored(document), "\n") + "\n"


def _text(value: Any, line: str) -> str:
    """JSON whose lines begin with `line`, a line break and the indentation of the value."""
    if not value or not isinstance(value, dict | list) or _is_one_line(value):
        return json.dumps(value, sort_keys=True, ensure_ascii=False)
    inner = line + " "
    if isinstance(value, list):
        return f"[{inner}" + f",{inner}".join(_text(part, inner) for part in value) + f"{line}]"
    parts = [
        f"{json.dumps(name, ensure_ascii=False)}: {_text(value[name], inner)}"
        for name in sorted(value)
    ]
    return f"{{{inner}" + f",{inner}".join(parts) + f"{line}}}"


def _is_one_line(value: Mapping[str, Any] | Sequence[Any]) -> bool:
    if isinstance(value, Mapping):
        return value.keys() - {"sessions"} in _LINES
    return not any(isinstance(part, str | dict | list) for part in value)


def as_stored(value: Any) -> Any:
    """The value as a file keeps it: floats of five digits, lists for tuples, "inf" as a text."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {name: as_stored(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_stored(inner) for inner in value]
    return value


def replace_file(path: Path, text: str) -> None:
    """Write a file whole or not at all; BaselineError when it is read-only or the disk is full."""
    if path.exists() and not path.stat().st_mode & 0o222:
        raise BaselineError(
            f"{path}: is read-only; nothing was saved. Make it writable and run again."
        )
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as problem:
        with suppress(OSError):
            temporary.unlink()
        raise BaselineError(
            f"{path}: not saved: {problem.strerror or problem}. The old file is unchanged."
        ) from None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    from filelock import FileLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise BaselineError(
            f"{path.parent}: cannot be made: {problem.strerror or problem}"
        ) from None
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    with FileLock(lock_folder() / f"baseline-{digest}.lock"):
        for leftover in path.parent.glob(f".{path.name}.*.tmp"):  # of a run that was killed
            with suppress(OSError):
                leftover.unlink()
        yield


def lock_folder() -> Path:
    """A folder of this user's own for lock files, outside every project."""
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"perfsuite-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
