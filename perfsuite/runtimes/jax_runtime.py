"""jax: wait, peak memory, ceilings, probes of the moment, compilations.

All programs here are compiled and run once before they are timed. `tpu` is all chips that are
attached, the probes sharded over them; `cuda:1` is one GPU.
"""

# jax annotates only a part of itself
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from perfsuite.errors import EngineUnavailable
from perfsuite.intervals import elapsed
from perfsuite.peaks import Peak
from perfsuite.roofline import Ceilings
from perfsuite.runtimes.host_probes import (
    INTERPRETER_LOOP,
    MEMORY_COPY,
    interpreter_loop,
    memory_copy,
)
from perfsuite.runtimes.jax_compilations import Compilations

MATRIX_PRODUCTS = "machine_pace/matrix_products"

_RUNS = 7
_PROBE_BYTES = 256 * 2**20  # on each device: beyond every cache, a TPU's 128 MiB of VMEM included
_ROW = 16_384  # numbers: short enough for XLA to spread a reduction over threads
# Reads under way at once: on an accelerator one takes no longer than its call.
_PROBE_READS = {"cpu": 1, "cuda": 16, "tpu": 16}
_PROBE_SIZE = {"cpu": 1024, "cuda": 8192, "tpu": 8192}
_PACE_SIZE = {"cpu": 384, "cuda": 2048, "tpu": 2048}
_COPY_BYTES = 128 * 2**20  # on an accelerator; source and target together exceed its cache
# What an engine may compute a type's products in: the peak is that of the fastest of them.
_COMPUTED_IN = {
    "int8": ("int8", "bfloat16", "float32"),
    "bfloat16": ("bfloat16", "float32"),
    "float16": ("float16", "float32"),
    "float32": ("float32",),
}

_COMPILATIONS = Compilations()
_COMPILATIONS.listen()


def compilations() -> int:
    """Programs that XLA compiled in this process since this module was imported."""
    return len(_COMPILATIONS)


def compiled_since(count: int) -> str:
    """Which programs were compiled after the first `count`, and the argument that changed."""
    return _COMPILATIONS.reasons(count)


def wait(result: object) -> None:
    """Block until the arrays of a pytree, or a step's tokens, are there.

    A result without arrays says nothing of what is under way: all live arrays are waited for.
    """
    leaves = [getattr(leaf, "tokens", leaf) for leaf in jax.tree.leaves(result)]
    arrays = [leaf for leaf in jax.tree.leaves(leaves) if isinstance(leaf, jax.Array)]
    jax.block_until_ready(arrays or jax.live_arrays())


def peak(call: Callable[[], object], device: str) -> Peak | None:
    """The most bytes that the fullest device holds while `call` runs, what lived before included.

    JAX can not reset its peak, which loading and compiling may have set long before. So the
    memory is first filled up to it: what `call` then takes is a new peak, and shows to the byte.
    None where no account is kept (XLA's CPU client), or not enough is left to fill.
    """
    devices = _devices(device)
    if any(found.memory_stats() is None for found in devices):
        return None
    before = [_in_use(found) for found in devices]
    try:
        filled = [_filled_to_the_peak(found) for found in devices]
        added = [_in_use(found) - was for found, was in zip(devices, before, strict=True)]
        call()
    except jax.errors.JaxRuntimeError as problem:
        if "RESOURCE_EXHAUSTED" not in str(problem):
            raise
        return None
    del filled  # until here it had to live
    peaks = [int(found.memory_stats()["peak_bytes_in_use"]) for found in devices]
    return Peak(max(highest - more for highest, more in zip(peaks, added, strict=True)))


def opened(opening: Callable[[], Any], device: str) -> tuple[Any, None]:
    """What is opened; unknown is what that took.

    The peak can not be reset, and filling the memory up to it first would leave no room to load.
    """
    return opening(), None


def _in_use(device: Any) -> int:
    return int(device.memory_stats()["bytes_in_use"])


def _filled_to_the_peak(device: Any) -> jax.Array | None:
    """An array as large as what is missing to the highest use so far; None where nothing is."""
    missing = device.memory_stats()["peak_bytes_in_use"] - _in_use(device)
    return jax.block_until_ready(jnp.zeros(missing, jnp.int8, device=device)) if missing else None


@cache
def ceilings(device: str, dtype: str) -> Ceilings:
    """Read bandwidth by reductions, peak by square products, the best of several runs.

    Probed once a process. The peak is that of the fastest type that products of this one may be
    computed in: int8 weights may be multiplied as bfloat16.
    """
    return Ceilings(
        bandwidth=_read_bandwidth(device),
        peak=max(_peak(device, name) for name in _computed_in(dtype)),
    )


def probes(device: str) -> dict[str, float]:
    """Interpreting on the host; copying and products on the device, the medians of several runs."""
    on_cpu = device == "cpu"
    return {
        INTERPRETER_LOOP: interpreter_loop(),
        MEMORY_COPY: memory_copy() if on_cpu else _device_copy(device),
        MATRIX_PRODUCTS: _matrix_products(device),
    }


@jax.jit
def _largest(rows: jax.Array) -> jax.Array:
    """Reads all of [devices, rows, columns], each device its own."""
    return rows.max((1, 2))


@jax.jit
def _multiply(squares: jax.Array) -> jax.Array:
    """The square of each matrix [devices, size, size]."""
    whole = squares.dtype == jnp.int8
    return jnp.matmul(squares, squares, preferred_element_type=jnp.int32 if whole else None)


@jax.jit
def _copy(values: jax.Array) -> jax.Array:
    """Read once and written once: the identity would not run at all."""
    return -values


def _read_bandwidth(device: str) -> float:
    """Bytes per second that all devices read, the host's from its one memory."""
    reads, count = _PROBE_READS[_kind(device)], len(_devices(device))
    each = _PROBE_BYTES // 4 // (count if device == "cpu" else 1)
    rows = _spread(device, each // _ROW, _ROW)
    return rows.nbytes * reads / min(_seconds(_largest, rows, reads))


def _peak(device: str, dtype: str) -> float:
    size = _PROBE_SIZE[_kind(device)]
    squares = _spread(device, size, size, dtype=dtype)
    return _operations(squares) / min(_seconds(_multiply, squares))


def _device_copy(device: str) -> float:
    """Bytes per second copied within the memories of the devices."""
    values = _spread(device, _COPY_BYTES // 4)
    return values.nbytes / median(_seconds(_copy, values))


def _matrix_products(device: str) -> float:
    """Operations per second of small float32 products, on all threads of a CPU."""
    size = _PACE_SIZE[_kind(device)]
    squares = _spread(device, size, size)
    return _operations(squares) / median(_seconds(_multiply, squares))


def _operations(squares: jax.Array) -> int:
    count, size, _ = squares.shape
    return count * 2 * size**3


def _spread(device: str, *shape: int, dtype: str = "float32") -> jax.Array:
    """Ones of this shape on each device: [devices, *shape]."""
    devices = _devices(device)
    mesh = Mesh(np.array(devices), ("devices",))
    sharding = NamedSharding(mesh, PartitionSpec("devices"))
    return jnp.ones((len(devices), *shape), dtype, device=sharding)


def _seconds(
    call: Callable[[jax.Array], jax.Array], operand: jax.Array, calls: int = 1
) -> list[float]:
    """Seconds of several runs of so many calls, the devices having nothing else to do."""
    jax.block_until_ready(call(operand))  # compiles
    return [_run_s(call, operand, calls) for _ in range(_RUNS)]


def _run_s(call: Callable[[jax.Array], jax.Array], operand: jax.Array, calls: int) -> float:
    start = time.perf_counter()
    jax.block_until_ready([call(operand) for _ in range(calls)])
    return elapsed(start, time.perf_counter())


def _devices(name: str) -> list[Any]:
    """JAX's devices for `cpu`, `tpu` (all of them) or `cuda:1` (that one)."""
    kind, _, index = name.partition(":")
    try:
        found = jax.devices(kind)
    except RuntimeError as problem:
        raise EngineUnavailable(f"jax sees no {kind}: {str(problem).splitlines()[0]}") from None
    return [found[int(index)]] if index else list(found)


def _kind(device: str) -> str:
    return device.partition(":")[0]


def _computed_in(dtype: str) -> tuple[str, ...]:
    if dtype not in _COMPUTED_IN:
        known = ", ".join(_COMPUTED_IN)
        raise EngineUnavailable(f"no products of dtype {dtype!r} are probed in jax; known: {known}")
    return _COMPUTED_IN[dtype]
