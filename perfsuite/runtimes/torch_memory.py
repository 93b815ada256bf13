"""torch's memory: the highest level of a call, what lived then, what loading took at most.

On a CPU from the profiler's memory events, on CUDA from the allocator's own account: both are exact
sums of what was allocated, whatever the process did before.
"""

# torch annotates only a part of itself
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch._C._profiler import _EventType

from perfsuite.peaks import Block, Change, Peak, alive, highest

_MARK_BYTES = 54_321  # of a tensor that nothing else is as large as
_SIGNS = {"alloc": 1, "free_requested": -1}  # an allocator's other entries change no level


def peak(call: Callable[[], object], device: str) -> Peak:
    """The largest sum of live tensor bytes while `call` runs, what lived before included."""
    if device.startswith("cuda"):
        return _cuda_peak(call, device)
    # The profiler does not know the size of what was allocated before it, and leaves its free out:
    # the second call frees what the first has left, all of which it has seen.
    with _profile() as profile:
        call()
        held = _held("cpu")
        torch.empty(_MARK_BYTES, dtype=torch.int8)
        call()
    changes = _changes(profile)
    marked = next(n for n, change in enumerate(changes) if change.bytes == -_MARK_BYTES)
    changes = changes[marked + 1 :]
    rise, reached = highest(changes)
    before = sum(block.bytes for block in held.values())
    return Peak(before + rise, alive=alive(held, changes[:reached]))


def opened(opening: Callable[[], Any], device: str) -> tuple[Any, int]:
    """What is opened, and by how many bytes the sum of live tensors rose at most meanwhile."""
    if device.startswith("cuda"):
        return _opened_on_cuda(opening, device)
    with _profile() as profile:
        engine = opening()
    return engine, highest(_changes(profile))[0]


def _held(kind: str) -> dict[int, Block]:
    """The storages on a kind of device of all tensors that Python holds, by their address.

    Of several views the largest names the storage. What has no memory is left out: tensors that
    the compiler keeps without data, and subclasses that wrap tensors, which are seen themselves.
    """
    gc.collect()
    largest: dict[int, torch.Tensor] = {}
    for thing in _objects():
        of = type(thing)  # isinstance asks objects that warn when asked
        if not issubclass(of, torch.Tensor) or hasattr(of, "__tensor_flatten__"):
            continue
        storage = thing.untyped_storage()
        if storage.device.type == kind:
            address = storage.data_ptr()
            known = largest.get(address)
            if known is None or known.numel() < thing.numel():
                largest[address] = thing
    return {address: _block(tensor) for address, tensor in largest.items()}


def _objects() -> list[Any]:
    """All that the collector knows, with what an engine has taken out of its sight (vLLM does)."""
    frozen = gc.get_freeze_count()
    gc.unfreeze()
    found = gc.get_objects()
    if frozen:
        gc.freeze()
    return found


def _block(tensor: torch.Tensor) -> Block:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return Block(f"{list(tensor.shape)} {dtype}", tensor.untyped_storage().nbytes())


def _profile() -> Any:
    """autograd's: torch.profiler's imports the compiler first, 100 MB in seconds."""
    return torch.autograd.profiler.profile(profile_memory=True)


def _changes(profile: Any) -> list[Change]:
    """What the allocator did, in order of time, and the outermost operator that it was for."""
    found: list[tuple[int, Change]] = []
    waiting = [(event, "") for event in profile.kineto_results.experimental_event_tree()]
    for event, operator in waiting:  # grows on the way
        if event.tag == _EventType.Allocation:
            fields = event.extra_fields
            change = Change(fields.ptr, fields.alloc_size, operator or "outside operators")
            found.append((event.start_time_ns, change))
        else:
            waiting += [(child, operator or event.name) for child in event.children]
    return [change for _, change in sorted(found, key=lambda pair: pair[0])]


def _cuda_peak(call: Callable[[], object], device: str) -> Peak:
    """The allocator's own account of one call, what it kept unused before given back."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    allocated = int(torch.cuda.max_memory_allocated(device))
    reserved = int(torch.cuda.max_memory_reserved(device))
    return Peak(allocated, reserved, _alive_on_cuda(call, device))


def _alive_on_cuda(call: Callable[[], object], device: str) -> dict[str, list[str]]:
    """What lives at the peak of one more call, from the allocator's own history."""
    held, record = _held("cuda"), torch.cuda.memory._record_memory_history
    record("all", context="alloc", stacks="python", clear_history=True)
    try:
        call()
        torch.cuda.synchronize(device)
        traces = torch.cuda.memory._snapshot(device)["device_traces"]
    finally:
        record(None)
    changes = _traced(traces[torch.device(device).index or 0])
    return alive(held, changes[: highest(changes)[1]])


def _traced(entries: list[dict[str, Any]]) -> list[Change]:
    return [
        Change(entry["addr"], _SIGNS[entry["action"]] * entry["size"], _place(entry["frames"]))
        for entry in entries
        if entry["action"] in _SIGNS
    ]


def _place(frames: list[dict[str, Any]]) -> str:
    """`mine/cache.py:88`, the innermost line that is not torch's own."""
    own = str(Path(torch.__file__).parent)
    frame = next((frame for frame in frames if not frame["filename"].startswith(own)), None)
    if frame is None:
        return "torch itself"
    return f"{'/'.join(Path(frame['filename']).parts[-2:])}:{frame['line']}"


def _opened_on_cuda(opening: Callable[[], Any], device: str) -> tuple[Any, int]:
    gc.collect()  # garbage that goes meanwhile would make the rise look smaller
    torch.cuda.init()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    engine = opening()
    torch.cuda.synchronize(device)
    return engine, int(torch.cuda.max_memory_allocated(device) - before)
