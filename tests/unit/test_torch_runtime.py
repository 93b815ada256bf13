"""torch's runtime: the allocator's peak to the byte, ceilings, compilations."""

from __future__ import annotations

import warnings

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from perfsuite.errors import EngineUnavailable  # noqa: E402
from perfsuite.runtimes import runtime, torch_runtime  # noqa: E402

MIB = 2**20


def test_the_peak_is_what_lived_before_and_the_largest_rise() -> None:
    """3 MiB live before; 2 and then 4 more at once, all freed: the peak is 9 MiB above none."""
    empty = torch_runtime.peak_memory(lambda: None, "cpu")
    kept = torch.empty(3 * MIB, dtype=torch.uint8)

    def work() -> None:
        first = torch.empty(2 * MIB, dtype=torch.uint8)
        second = torch.empty(4 * MIB, dtype=torch.uint8)
        del first, second
        torch.empty(MIB, dtype=torch.uint8)

    peak = torch_runtime.peak_memory(work, "cpu")
    assert peak - empty == kept.nbytes + 6 * MIB


def test_the_peak_is_the_same_every_time() -> None:
    """What the process did before does not show: the figure is exact."""
    peaks = {torch_runtime.peak_memory(lambda: torch.ones(300, 300).sum(), "cpu") for _ in range(3)}
    torch.empty(50 * MIB, dtype=torch.uint8)
    peaks.add(torch_runtime.peak_memory(lambda: torch.ones(300, 300).sum(), "cpu"))
    assert len(peaks) == 1


def test_ceilings_are_probed_once_a_process() -> None:
    """The second question gets the first answer; both ceilings are above zero."""
    first = torch_runtime.ceilings("cpu", "float32")
    assert first is torch_runtime.ceilings("cpu", "float32")
    assert first.bandwidth > 0
    assert first.peak > 0


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
    assert host.peak_memory(lambda: None, "cpu") is None
    assert host.ceilings("cpu", "float32") is None
    assert host.compilations() == 0
