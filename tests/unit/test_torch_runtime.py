"""torch's runtime: ceilings, probes, compilations, waiting."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from perfsuite.errors import EngineUnavailable, Void  # noqa: E402
from perfsuite.metrics import METRICS  # noqa: E402
from perfsuite.runtimes import runtime, torch_runtime  # noqa: E402


def test_ceilings_are_probed_once_a_process() -> None:
    """The second question gets the first answer; both ceilings are above zero."""
    first = torch_runtime.ceilings("cpu", "float32")
    assert first is torch_runtime.ceilings("cpu", "float32")
    assert first.bandwidth > 0
    assert first.peak > 0


def test_the_probes_are_those_of_the_host_and_products() -> None:
    """Three figures that are shown and not judged."""
    found = torch_runtime.probes("cpu")
    names = ("interpreter_loop", "memory_copy", "matrix_products")
    assert set(found) == {f"machine_pace/{name}" for name in names}
    assert all(value > 0 for value in found.values())
    assert not any(METRICS[name].gated for name in found)


def test_a_probe_is_the_median_of_its_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One interrupted run of seven does not show; a clock that goes backwards does."""
    runs = iter([9.0, 0.001, 0.002, 0.002, 0.002, 0.003, 0.004])
    monkeypatch.setattr(torch_runtime, "_seconds", lambda call, operand: next(runs))
    assert torch_runtime._matrix_products("cpu") == 2 * 384**3 / 0.002
    monkeypatch.undo()
    monkeypatch.setattr("time.perf_counter", iter([5.0, 4.0]).__next__)
    with pytest.raises(Void, match="went back by 1 s"):
        torch_runtime._matrix_products("cpu")


def test_the_gpu_that_is_waited_for_is_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another than the current one, where the result lies there."""
    waited: list[object] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    second = torch.device("cuda", 1)
    for result in (SimpleNamespace(device=second), torch.ones(1), object(), None):
        torch_runtime.wait(result)
    assert waited == [second, None, None, None]


def test_an_unknown_dtype_is_refused() -> None:
    """A probe in another type than asked would be another ceiling."""
    with pytest.raises(EngineUnavailable, match="torch has no dtype 'int4x'"):
        torch_runtime.ceilings("cpu", "int4x")


def test_a_compilation_is_counted() -> None:
    """A new shape compiles a frame, a known one none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, at first compile
        compiled = torch.compile(lambda x: x + 1, backend="eager", dynamic=False)
        before = torch_runtime.compilations()
        compiled(torch.ones(3))
        once = torch_runtime.compilations()
        compiled(torch.ones(3))
    assert once > before
    assert torch_runtime.compilations() == once


def test_an_unknown_framework_is_plain_host_code() -> None:
    """Nothing is waited for, no peak and no ceiling is made up."""
    host = runtime("mine")
    assert host.wait(object()) is None
    assert host.peak(lambda: None, "cpu") is None
    assert host.opened(lambda: "an engine", "cpu") == ("an engine", None)
    assert host.ceilings("cpu", "float32") is None
    assert host.compilations() == 0
