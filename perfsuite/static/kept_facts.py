"""Facts of programs that were compiled before, so that a second run only traces and lowers.

JAX's own persistent cache can not be read for a topology without its devices. A file holds the
facts of one program under the hash of all that decides them; nothing of the program is in it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from perfsuite.baselines import lock_folder

_MOST = 500  # files; the oldest go first


def key(parts: Sequence[str]) -> str:
    """The hash of what decides a program's facts, and of the modules that make facts of it."""
    return hashlib.sha256("\0".join([_accounting(), *parts]).encode()).hexdigest()


@cache
def _accounting() -> str:
    """The sources of this folder, so that no fact outlives a change of how it is counted."""
    return "\0".join(file.read_text() for file in sorted(Path(__file__).parent.glob("*.py")))


def read(name: str) -> Mapping[str, Any] | None:
    """What is kept under a key, None where nothing is or it can not be read."""
    try:
        found = json.loads((_folder() / f"{name}.json").read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write(name: str, facts: Mapping[str, Any]) -> None:
    """Keep facts under a key; a full disk is no reason to fail a run that has them."""
    folder = _folder()
    temporary = folder / f".{name}.{os.getpid()}.tmp"
    try:
        temporary.write_text(json.dumps(facts))
        temporary.replace(folder / f"{name}.json")
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    _drop_oldest(folder)


def _folder() -> Path:
    """Beside this user's locks."""
    folder = lock_folder() / "compiled"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _drop_oldest(folder: Path) -> None:
    files = list(folder.glob("*.json"))
    if len(files) <= _MOST:
        return
    with suppress(OSError):  # another process may drop the same ones
        for file in sorted(files, key=lambda f: f.stat().st_mtime)[: len(files) - _MOST]:
            file.unlink(missing_ok=True)
