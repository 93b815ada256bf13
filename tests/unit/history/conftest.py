"""Runs of one figure, and a storage that fails when it is told to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, for indexes of what is not local."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def place(tmp_path: Path) -> Any:
    """A folder that does not exist yet."""
    from perfsuite.history.place import Place

    return Place(str(tmp_path / "runs"))


@pytest.fixture
def make_run() -> Callable[..., Any]:
    """The run of an hour with a row for each value; any column may be given."""
    from perfsuite.history.revision import Revision
    from perfsuite.history.store import Run

    def make(hour: float = 0, *values: float | None, **changes: Any) -> Run:
        given = ("time", "revision", "source", "unique")
        of_run = {
            "time": BEGIN + timedelta(hours=hour),
            "revision": Revision(f"c{hour:g}", None, "main"),
        } | {name: changes.pop(name) for name in given if name in changes}
        columns = {
            "machine": "cpu", "suite": "test_a.py", "workload": "w", "engine": "e",
            "scale": "smoke", "tier": "measured", "part": "", "unit": "s", "processes": [1.0, 2.0],
            "metric": "time_to_first_token/prefill_until_first_token", "samples": 9,
            "verdict": "SAME", "void": False, "disturbance": "", "toolchain": "python 3",
            "config": "{}", "test": "test_a.py::test_a",
        }  # fmt: skip
        return Run([{**columns, "value": v, **changes} for v in values or (hour,)], **of_run)

    return make


@pytest.fixture
def fill(place: Any, make_run: Callable[..., Any]) -> Callable[..., list[str]]:
    """Appends the runs of some hours; their ids."""
    from perfsuite.history.store import append

    def fill(*hours: float, **changes: Any) -> list[str]:
        return [append(place, make_run(hour, **changes)) for hour in hours]

    return fill


@pytest.fixture
def flaky() -> Iterator[Any]:
    """The storage behind `flaky://`, empty; an operation that is in `failing` breaks off."""
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    class Flaky(MemoryFileSystem):
        protocol = "flaky"
        store: dict[str, Any] = {}  # noqa: RUF012 - of all instances, as of MemoryFileSystem's
        pseudo_dirs: list[str] = [""]  # noqa: RUF012
        failing: set[str] = set()  # noqa: RUF012

        def _meet(self, operation: str) -> None:
            if operation in self.failing:
                raise ConnectionError(f"the storage broke off a {operation}")

        def pipe_file(self, path: str, value: bytes, **more: Any) -> None:
            if "put" in self.failing:
                super().pipe_file(path, value[: len(value) // 2])
            self._meet("put")
            super().pipe_file(path, value, **more)

        def cat_file(self, path: str, *span: Any, **more: Any) -> bytes:
            self._meet("get")
            return super().cat_file(path, *span, **more)

        def ls(self, path: str, **more: Any) -> Any:
            self._meet("list")
            return super().ls(path, **more)

    fsspec.register_implementation("flaky", Flaky, clobber=True)
    yield Flaky
    Flaky.failing.clear()
