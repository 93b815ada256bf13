"""Where a history is: a folder or a URL whose files are listed, read, and put once.

All that touches storage is here. An object storage takes a file by one put; in a folder a file is
written under another name first, so that a kill leaves nothing half under a name that is read.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from perfsuite.errors import PerfError
from perfsuite.history import require_libraries

# time, commit and a random part: sorted by name is sorted by time
_NAME = re.compile(r"\d{8}T\d{12}Z-[0-9a-z]+-[0-9a-f]{12}\.parquet")
_INDEX = ".perfsuite-index"
_FILE = "file://"


@dataclass(frozen=True)
class Place:
    """A folder, or a URL that fsspec knows (`s3://bucket/perf`)."""

    text: str

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine."""
        return "://" not in self.text or self.text.startswith(_FILE)

    @property
    def folder(self) -> Path:
        """The folder that it is, where it is one."""
        return Path(self.text.removeprefix(_FILE)).absolute()

    @cached_property
    def _system(self) -> tuple[Any, str]:
        require_libraries()
        import fsspec

        url = str(self.folder) if self.is_local else self.text
        try:
            system, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as problem:
            known = "a folder, or a URL of a storage whose fsspec library is installed"
            raise PerfError(f"history {self.text!r}: {problem}\nexpected: {known}") from None
        return system, root

    def check_writable(self) -> None:
        """Refuse before anything is measured what can not take a run; a URL only if unknown.

        Raises PerfError.
        """
        assert self._system
        _import_writer()
        if not self.is_local:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe = self.folder / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as problem:
            raise PerfError(
                f"{self.text}: cannot append to this history: {problem.strerror or problem}\n"
                "Nothing was measured. Choose another place with --perf-history=DIR|URL."
            ) from None

    def exists(self) -> bool:
        """Whether something is there already; raises PerfError when the storage does not answer."""
        system, root = self._system
        try:
            return bool(system.exists(root))
        except Exception as problem:  # noqa: BLE001 - each storage has errors of its own
            raise self._failed("can not be reached", problem) from None

    def files(self) -> dict[str, int]:
        """The sizes of the runs' files by name, sorted; other things in the folder are not ours.

        Raises PerfError where the place is missing or can not be listed.
        """
        system, root = self._system
        try:
            if self.is_local and not self.folder.is_dir():
                raise FileNotFoundError  # of a file, fsspec would list the file
            system.invalidate_cache()
            entries = system.ls(root, detail=True)
        except FileNotFoundError:
            raise PerfError(
                f"{self.text}: no history is there; --perf-history={self.text} begins one"
            ) from None
        except Exception as problem:  # noqa: BLE001 - as above
            raise self._failed("can not be listed", problem) from None
        sizes = {entry["name"].rpartition("/")[2]: entry["size"] for entry in entries}
        return {name: sizes[name] for name in sorted(sizes) if is_run(name)}

    def read(self, names: Sequence[str]) -> dict[str, bytes]:
        """The contents of files, several at a time where the storage can.

        Raises PerfError when one of them can not be had: a history without it would look whole.
        """
        system, root = self._system
        try:
            if self.is_local:
                return {name: (self.folder / name).read_bytes() for name in names}
            # The whole of each: `cat` would take a path with brackets for a pattern.
            paths, whole = [f"{root.rstrip('/')}/{name}" for name in names], [None] * len(names)
            contents = system.cat_ranges(paths, whole, whole, on_error="raise")
        except Exception as problem:  # noqa: BLE001 - as above
            raise self._failed("can not be read", problem) from None
        for one in contents:  # older fsspec gives what it should raise
            if isinstance(one, Exception):
                raise self._failed("can not be read", one)
        return dict(zip(names, contents, strict=True))

    def put(self, name: str, data: bytes) -> None:
        """Write one file; raises PerfError when that fails, and then none of its name is read."""
        system, root = self._system
        try:
            if self.is_local:
                write_whole(self.folder / name, data)
            else:
                system.pipe_file(f"{root.rstrip('/')}/{name}", data)
        except Exception as problem:  # noqa: BLE001 - as above
            raise self._failed(f"{name} was not appended", problem) from None

    def index_folders(self) -> Iterable[Path]:
        """Where a cache of this history may lie, the best place first."""
        identity = str(self.folder) if self.is_local else self.text
        if self.is_local and self.folder.is_dir():
            yield self.folder / _INDEX
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        yield Path(home, "perfsuite", "history", hashlib.sha256(identity.encode()).hexdigest()[:32])

    def _failed(self, what: str, problem: Exception) -> PerfError:
        reason = getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
        return PerfError(f"{self.text}: {what}: {reason}")


def _import_writer() -> None:
    """Libraries that are installed may fail to load: before a run, not after it."""
    try:
        import_module("perfsuite.history.store")
    except Exception as problem:  # noqa: BLE001 - a broken library raises anything
        raise PerfError(
            f"no history can be written: {type(problem).__name__}: {problem}\n"
            "Nothing was measured. Repair pyarrow: pip install 'perfsuite[history]'"
        ) from None


def is_run(name: str) -> bool:
    """Whether a file of that name is a run's."""
    return bool(_NAME.fullmatch(name))


def write_whole(path: Path, data: bytes) -> None:
    """The file with these bytes, or as it was: at no moment a half of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
