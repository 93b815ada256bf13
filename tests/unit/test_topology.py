"""The compiler of TPU slices: what is said where it is absent, does not fit, or is taken."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from perfsuite.errors import EngineUnavailable
from perfsuite.static import topology
from perfsuite.static.topology import require_compiler


@pytest.mark.parametrize("missing", ["jax", "libtpu"])
def test_an_absent_compiler_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """Without importing either."""
    found = importlib.util.find_spec
    monkeypatch.setattr(topology, "find_spec", lambda n: None if n == missing else found("pytest"))
    with pytest.raises(EngineUnavailable, match=rf"^{missing} not installed.*perfsuite\[tpu\]"):
        require_compiler()


def test_a_library_that_does_not_work_names_the_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it raised, in one line with what is installed and the remedy."""
    topologies = pytest.importorskip("jax.experimental.topologies", reason="needs jax")

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("PJRT API version 9.1 is not 9.9\nmore\nand more")

    monkeypatch.setattr(topologies, "get_topology_desc", broken)
    monkeypatch.setattr(topology, "require_compiler", lambda: None)
    monkeypatch.setattr(topology, "_prepare", lambda: None)
    topology.target.cache_clear()
    with pytest.raises(EngineUnavailable) as refused:
        topology.target("v6e-8")
    topology.target.cache_clear()
    text = str(refused.value)
    assert text.startswith(
        "libtpu gives no v6e-8 (PJRT API version 9.1 is not 9.9); installed: jax"
    )
    assert text.endswith("pip install -U 'perfsuite[tpu]'")
    assert "\n" not in text


def test_beside_a_tpu_one_process_at_a_time_loads_the_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """The second waits for the first, and says so when that takes too long."""
    monkeypatch.setattr(topology, "lock_folder", lambda: tmp_path)
    monkeypatch.setattr(topology, "_LOCK_S", 0.05)
    monkeypatch.setattr(topology, "_held", [])
    topology._take_library()
    with pytest.raises(EngineUnavailable, match="another process of this user holds"):
        topology._take_library()
    topology._held[0].release()
