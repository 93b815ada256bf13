"""Does it fit: what each device has free, against its part of weights and cache."""

from __future__ import annotations

from engines import memory
from engines.jetstream.cache import abstract_caches
from engines.jetstream.plan import Plan, bytes_a_chip
from engines.jetstream.weights import abstract_weights


def require_memory(plan: Plan) -> None:
    """MemoryError with the arithmetic when they do not fit; activations come on top."""
    weights, cache = bytes_a_chip(abstract_weights(plan)), bytes_a_chip(abstract_caches(plan))
    devices = plan.sharding.mesh.devices.ravel()
    what = f"{plan.model.name} with a cache of {plan.batch} x {plan.cache_tokens} tokens"
    if devices[0].platform == "cpu":  # all of them share the host's memory
        count = len(devices)
        memory.require("cpu", weights=weights * count, cache=cache * count, what=what)
        return
    stats = devices[0].memory_stats()
    free = stats["bytes_limit"] - stats["bytes_in_use"]
    if weights + cache > free:
        raise MemoryError(
            f"{what} needs {weights / 1e9:.1f} GB of weights and {cache / 1e9:.1f} GB of cache a "
            f"device, {devices[0].device_kind} has {free / 1e9:.1f} GB free: "
            "choose a smaller batch or scale"
        )
