"""torch's memory: the peak to the byte, what was alive at it, and what loading took."""

from __future__ import annotations

import gc
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from perfsuite.peaks import Block  # noqa: E402
from perfsuite.runtimes import torch_memory  # noqa: E402
from perfsuite.runtimes.torch_memory import opened, peak  # noqa: E402

MIB = 2**20


def peak_memory(call: Callable[[], object], device: str) -> int:
    """The bytes alone."""
    return peak(call, device).allocated


def test_the_peak_is_what_lived_before_and_the_largest_rise() -> None:
    """3 MiB live before; 2 and then 4 more at once, all freed: the peak is 9 MiB above none."""
    empty = peak_memory(lambda: None, "cpu")
    kept = torch.empty(3 * MIB, dtype=torch.uint8)

    def work() -> None:
        first = torch.empty(2 * MIB, dtype=torch.uint8)
        second = torch.empty(4 * MIB, dtype=torch.uint8)
        del first, second
        torch.empty(MIB, dtype=torch.uint8)

    assert peak_memory(work, "cpu") - empty == kept.nbytes + 6 * MIB


def test_the_peak_is_the_same_every_time() -> None:
    """What the process did before does not show: the figure is exact."""
    peaks = {peak_memory(lambda: torch.ones(300, 300).sum(), "cpu") for _ in range(3)}
    torch.empty(50 * MIB, dtype=torch.uint8)
    peaks.add(peak_memory(lambda: torch.ones(300, 300).sum(), "cpu"))
    assert len(peaks) == 1


def test_what_a_call_frees_of_the_call_before_is_no_part_of_its_peak() -> None:
    """The profiler leaves out frees of what it did not see allocated."""
    kept: list[Any] = []

    def replaced() -> None:
        kept.clear()
        kept.append(torch.ones(2**18))

    replaced()
    level = held_bytes()
    assert peak_memory(replaced, "cpu") == level


def held_bytes() -> int:
    """What Python's tensors hold on the CPU."""
    return sum(block.bytes for block in torch_memory._held("cpu").values())


def test_what_an_engine_hides_from_the_collector_is_held() -> None:
    """Some freeze all objects once they are loaded; the freezing stays."""
    empty = peak_memory(lambda: None, "cpu")
    kept = [torch.empty(3 * MIB, dtype=torch.uint8)]
    gc.freeze()
    try:
        assert peak_memory(lambda: None, "cpu") - empty == kept[0].nbytes
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


def test_tensors_without_data_take_no_memory() -> None:
    """The compiler keeps fake ones; their addresses can not be asked for."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    level = held_bytes()
    with FakeTensorMode():
        kept = [torch.ones(MIB), torch.ones(MIB, device="meta")]
    assert held_bytes() == level
    assert len(kept) == 2


class Quantised(torch.Tensor):
    """Levels and scales that look like one tensor of float32."""

    @staticmethod
    def __new__(cls: Any, levels: Any, scales: Any) -> Any:
        return torch.Tensor._make_wrapper_subclass(cls, levels.shape, dtype=torch.float32)

    def __init__(self, levels: Any, scales: Any) -> None:
        self.levels, self.scales = levels, scales

    def __tensor_flatten__(self) -> Any:
        return ["levels", "scales"], None

    @classmethod
    def __torch_dispatch__(cls, func: Any, *given: Any) -> Any:
        raise NotImplementedError(func)


def test_a_subclass_takes_what_it_wraps() -> None:
    """A byte for each of its values and the scales, not the four that its type would take."""
    level = held_bytes()
    levels, scales = torch.zeros(1024, 512, dtype=torch.int8), torch.ones(1024)
    wrapped = Quantised(levels, scales)
    assert wrapped.dtype == torch.float32
    assert held_bytes() - level == 1024 * 512 + 1024 * 4


def test_a_view_is_no_memory_of_its_own() -> None:
    """The storage counts once, under the name of the largest that looks at it."""
    whole = torch.zeros(64, 1024, dtype=torch.bfloat16)
    views = [whole[:1], whole.view(-1)[:10]]
    block = torch_memory._held("cpu")[whole.untyped_storage().data_ptr()]
    assert block == Block("[64, 1024] bfloat16", 64 * 1024 * 2)
    assert len(views) == 2


def test_what_is_alive_at_the_peak_is_told() -> None:
    """Planted: a mask of float32 made dense, beside a cache that is held."""
    cache = [torch.zeros(1, 2, 777, 128, dtype=torch.bfloat16) for _ in range(64)]

    def attend() -> None:
        torch.ones(3000, 3000).tril_()
        torch.ones(10)

    found = peak(attend, "cpu").alive
    size = 2 * 777 * 128 * 2 / 1000
    assert f"[1, 2, 777, 128] bfloat16 {size:.4g} kB x 64" in found["held"]
    assert found["made"][0] == "aten::ones 36 MB"
    assert len(cache) == 64


def test_what_the_call_before_left_and_this_one_freed_is_not_alive() -> None:
    """Planted: the cache of the call before, which is replaced before the peak."""
    kept: list[Any] = []

    def replaced() -> None:
        kept.clear()
        kept.append(torch.ones(1234, 1000))
        torch.ones(555, 1000)

    found = peak(replaced, "cpu").alive
    assert not [words for words in found["held"] if "1234" in words]
    assert found["made"][:2] == ["aten::ones 4.936 MB", "aten::ones 2.22 MB"]


def test_loading_takes_what_lived_at_once() -> None:
    """Planted: weights in float32 that are kept in int8, one after the other, or all at once."""

    def one_by_one() -> list[Any]:
        return [torch.ones(MIB).to(torch.int8) for _ in range(4)]

    def all_at_once() -> list[Any]:
        wide = [torch.ones(MIB) for _ in range(4)]
        return [weight.to(torch.int8) for weight in wide]

    torch.empty(50 * MIB, dtype=torch.uint8)  # what was before is no part of it
    weights, rise = opened(one_by_one, "cpu")
    assert [weight.dtype for weight in weights] == [torch.int8] * 4
    assert rise == (4 + 4) * MIB  # the fourth is still wide
    assert opened(all_at_once, "cpu")[1] == 4 * (4 + 1) * MIB


def test_an_engine_that_does_not_open_raises_its_own_error() -> None:
    """The profiler is in nobody's way."""

    def fails() -> None:
        raise MemoryError("8 GB of weights, 4 GB free")

    with pytest.raises(MemoryError, match="8 GB of weights"):
        opened(fails, "cpu")
    assert peak_memory(lambda: torch.ones(MIB), "cpu") >= 4 * MIB


class Account:
    """A GPU's allocator: blocks of 2 MiB are taken from the device and kept until told."""

    def __init__(self, used: int, kept: int) -> None:
        self.used, self.kept = used, kept
        self.used_peak, self.kept_peak = used + 100 * MIB, kept + 100 * MIB
        self.recording: list[object] = []

    def take(self, size: int) -> None:
        self.used += size
        self.kept = max(self.kept, -(-self.used // (2 * MIB)) * 2 * MIB)
        self.used_peak = max(self.used_peak, self.used)
        self.kept_peak = max(self.kept_peak, self.kept)

    def empty(self) -> None:
        self.kept = -(-self.used // (2 * MIB)) * 2 * MIB

    def reset(self, device: str) -> None:
        self.used_peak, self.kept_peak = self.used, self.kept

    def record(self, enabled: object, **given: object) -> None:
        self.recording.append(enabled)


TRACE = [
    {"action": "segment_alloc", "addr": 8, "size": 2 * MIB, "frames": []},
    {"action": "alloc", "addr": 8, "size": 300, "frames": []},
    {"action": "free_requested", "addr": 8, "size": 300, "frames": []},
    {"action": "free_completed", "addr": 8, "size": 300, "frames": []},
    {
        "action": "alloc",
        "addr": 16,
        "size": MIB,
        "frames": [
            {"filename": f"{torch.__path__[0]}/functional.py", "line": 1, "name": "ones"},
            {"filename": "/home/me/mine/cache.py", "line": 88, "name": "whole"},
            {"filename": "/home/me/mine/engine.py", "line": 7, "name": "decode"},
        ],
    },
]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Account:
    """torch.cuda with 3 MiB in use and 10 MiB kept; its peaks are older and higher."""
    account = Account(used=3 * MIB, kept=10 * MIB)
    for name, answer in {
        "init": lambda: None,
        "synchronize": lambda device: None,
        "empty_cache": account.empty,
        "reset_peak_memory_stats": account.reset,
        "memory_allocated": lambda device: account.used,
        "max_memory_allocated": lambda device: account.used_peak,
        "max_memory_reserved": lambda device: account.kept_peak,
    }.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    history = {
        "_record_memory_history": account.record,
        "_snapshot": lambda device: {"device_traces": [[], TRACE]},
    }
    monkeypatch.setattr(torch.cuda, "memory", SimpleNamespace(**history))
    return account


def test_a_gpus_peaks_are_those_of_the_call(gpu: Account) -> None:
    """Neither what loading once took nor what the allocator then kept counts."""

    def call() -> None:
        gpu.take(2 * MIB)
        gpu.take(-2 * MIB)

    found = peak(call, "cuda:1")
    assert (found.allocated, found.reserved) == (5 * MIB, 6 * MIB)


def test_a_gpus_history_tells_which_line_made_what_was_alive(gpu: Account) -> None:
    """The innermost that is not torch's; the history is recorded for one call and then ended."""
    found = peak(lambda: None, "cuda:1")
    assert found.alive["made"] == ["mine/cache.py:88 1.049 MB"]
    assert gpu.recording == ["all", None]


def test_a_history_ends_with_a_call_that_raises(gpu: Account) -> None:
    """It would slow all that follows."""

    def fails() -> None:
        if gpu.recording:
            raise ArithmeticError("planted")

    with pytest.raises(ArithmeticError):
        peak(fails, "cuda:1")
    assert gpu.recording == ["all", None]


def test_loading_on_a_gpu_is_the_rise_of_its_account(gpu: Account) -> None:
    """7 MiB at once, of which 4 stay, above the 3 that were in use."""

    def load() -> str:
        gpu.take(7 * MIB)
        gpu.take(-3 * MIB)
        return "an engine"

    assert opened(load, "cuda:1") == ("an engine", 7 * MIB)
