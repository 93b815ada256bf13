"""Does it fit: the sum of what the engine holds, taken from the engine itself without data."""

from __future__ import annotations

from collections import Counter
from typing import Any

from engines import memory


def require_memory(workload: Any, device: str) -> None:
    """MemoryError, with the sum, where weights, cache and mask do not fit; nothing is allocated."""
    found = held_by_kind(workload, device)
    memory.require(
        device,
        weights=found["weights"],
        cache=found["cache"],
        mask=found["mask"],
        what=f"{workload.model.name} with a cache of {workload.cache_tokens} tokens",
    )


def held_by_kind(workload: Any, device: str) -> Counter[str]:
    """Bytes that an engine holds from its opening on: "weights", "cache", "mask", "rope"."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    from engines.torchao_llama.engine import held_bytes
    from engines.torchao_llama.programs import engine_for

    found: Counter[str] = Counter()
    with FakeTensorMode():
        engine = engine_for(workload, device.split(":")[0], None)
        for name, tensor in engine.held().items():
            found[name.partition(".")[0]] += held_bytes(tensor)
    return found
