"""Which runtime belongs to a framework, and to a callable that names none."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from perfsuite import runtimes


@pytest.fixture
def frameworks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    """Both frameworks are imported, and their runtimes note what they wait for."""
    waited: list[tuple[str, object]] = []

    def runtime(name: str) -> SimpleNamespace:
        return SimpleNamespace(wait=lambda result: waited.append((name, result)))

    for name in ("torch", "jax"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(runtimes, "runtime", runtime)
    return waited


def test_a_framework_that_is_imported_is_found(
    frameworks: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is not is not."""
    assert runtimes.loaded() == "torch"
    monkeypatch.delitem(sys.modules, "torch")
    assert runtimes.loaded() == "jax"
    monkeypatch.delitem(sys.modules, "jax")
    assert runtimes.loaded() == ""


def test_a_callable_is_waited_for_by_every_framework_that_is_imported(
    frameworks: list[tuple[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose result it is, only they know."""
    runtimes.wait_for_all("result")
    assert frameworks == [("torch", "result"), ("jax", "result")]
    monkeypatch.delitem(sys.modules, "torch")
    frameworks.clear()
    runtimes.wait_for_all("result")
    assert frameworks == [("jax", "result")]
