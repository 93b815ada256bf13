"""The host's probes: medians of several runs, by a clock whose steps are planted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from perfsuite.errors import Void
from perfsuite.metrics import METRICS
from perfsuite.runtimes import host_probes, host_runtime

MIB = 2**20


@pytest.fixture(autouse=True)
def _no_buffers_are_kept() -> Iterator[None]:
    """Neither another test's nor this one's."""
    host_probes._buffers.cache_clear()
    yield
    host_probes._buffers.cache_clear()


def plant(monkeypatch: pytest.MonkeyPatch, runs: Iterable[float]) -> None:
    """Let the runs take these seconds."""
    moments = [moment for seconds in runs for moment in (100.0, 100.0 + seconds)]
    monkeypatch.setattr("time.perf_counter", iter(moments).__next__)


def test_one_interrupted_run_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """20,000 additions in the median's 2 ms are 10 million a second."""
    plant(monkeypatch, [0.002, 0.002, 9.0, 0.001, 0.004])
    assert host_probes.interpreter_loop() == pytest.approx(10e6)


def test_the_copy_is_by_parts_of_a_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth of 20 MiB in the median's 2 ms."""
    monkeypatch.setattr(host_probes, "last_level_cache_bytes", lambda: 20 * MIB)
    plant(monkeypatch, [0.002, 0.002, 9.0, 0.001, 0.004])
    assert host_probes.memory_copy() == pytest.approx(4 * MIB / 0.002)


def test_what_is_copied_arrives() -> None:
    """Every byte of the source is in the target afterwards: the work was done."""
    source, target = host_probes._buffers()
    target[:] = bytes(len(target))
    host_probes.memory_copy()
    part = len(source) // 5
    assert target[: 5 * part] == source[: 5 * part]
    assert source[0] == 1


@pytest.mark.parametrize(
    ("cache", "buffer"), [(0, 16 * MIB), (32 * MIB, 32 * MIB), (500 * MIB, 128 * MIB)]
)
def test_the_buffers_are_as_large_as_the_cache(
    monkeypatch: pytest.MonkeyPatch, cache: int, buffer: int
) -> None:
    """Within bounds: one that the kernel does not name, and one that a probe must not fill."""
    monkeypatch.setattr(host_probes, "last_level_cache_bytes", lambda: cache)
    assert [len(view) for view in host_probes._buffers()] == [buffer, buffer]


def test_the_buffers_are_kept() -> None:
    """Only the first probe of a process pays for their pages."""
    assert host_probes._buffers() is host_probes._buffers()


def test_a_clock_that_goes_backwards_voids_a_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """A negative pace is none."""
    plant(monkeypatch, [0.002, -0.5, 0.002, 0.002, 0.002])
    with pytest.raises(Void, match="went back"):
        host_probes.interpreter_loop()


def test_the_probes_are_metrics_that_are_shown_and_not_judged() -> None:
    """In the unit and direction that the metric's definition says."""
    found = host_runtime.probes("cpu")
    assert set(found) == {"machine_pace/interpreter_loop", "machine_pace/memory_copy"}
    assert all(value > 0 for value in found.values())
    assert not any(METRICS[name].gated for name in found)
