"""What the JetStream engine hands over to be measured; imports JAX only when it is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from engines.offers import (
    BYTES,
    MISSING_KINDS,
    cache_tokens,
    described,
    is_verifiable,
    reference_weights,
    weights_for,
)

RUNS = {
    ("jetstream", "generate", "bf16"),
    ("jetstream", "generate", "int8"),
    ("llm", "single_user", "plain"),
}
OPTIONS = ("quantize_weights", "quantize_kv_cache", "shard_on_batch")
CUDA_PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")


@dataclass(frozen=True)
class Program:
    """A full-size program: `jitted.lower(*arguments).compile()` needs no device and no data.

    `weights_bytes` and `cache_bytes` are what a chip must hold, with the scales of what is
    quantised; a prefill's cache is the prefix that it returns.
    """

    name: str
    jitted: Any
    arguments: tuple[Any, ...]
    weights_bytes: int
    cache_bytes: int


@dataclass(frozen=True)
class JetStreamOffer:
    """The slot engine of jetstream-pytorch on all devices of a kind, on one GPU for `cuda:N`."""

    name: str = "jetstream"
    default: bool = True
    framework: str = "jax"

    def refuses(self, workload: Any, device: str) -> str | None:
        """Why this engine cannot honestly run the workload, or None."""
        missing = missing_for(workload, device)
        return f"{self.name} has no {missing}" if missing else None

    def open(self, workload: Any, device: str) -> Any:
        """The engine with its weights; MemoryError where weights and cache cannot fit."""
        reason = self.refuses(workload, device)
        if reason:
            raise ValueError(reason)
        from engines.jetstream.engine import JetStream
        from engines.jetstream.room import require_memory

        plan = plan_for(workload, attached(device))
        require_memory(plan)
        weights = weights_for(numbers(workload))
        engine = JetStream(plan, weights)
        engine.config |= {
            "weights": described(workload, weights),
            "verifiable": is_verifiable(workload),
        }
        return engine

    def programs(self, workload: Any, target: Any) -> list[Program]:
        """Prefill of one prompt and a decode step of the full batch, on the target's devices."""
        from engines.jetstream.abstract import decode_program, prefill_program

        plan = plan_for(workload, target.devices)
        return [Program(*prefill_program(plan, workload.input_tokens)),
                Program(*decode_program(plan))]  # fmt: skip

    def verify(self, engine: Any, workload: Any) -> str | None:
        """Why the outputs are wrong, or None; None unchecked where config says not verifiable."""
        if not is_verifiable(workload):
            return None
        from engines.jetstream.checking import verify

        return verify(engine, workload, reference_weights(numbers(workload)))

    def model_shape(self, directory: str) -> dict[str, Any]:
        """The fields of a Model that a checkpoint folder holds; ValueError where it is none."""
        from engines import checkpoint

        return checkpoint.read_shape(directory)


def missing_for(workload: Any, device: str) -> str | None:
    """What the engine lacks for the workload, or None."""
    kind, mode = workload.kind, workload.mode
    if kind in MISSING_KINDS:
        return f"{kind}: {MISSING_KINDS[kind]}"
    if (workload.document, kind, mode) not in RUNS:
        return f"{workload.document} {kind} {mode}"
    context = workload.model.max_context
    if workload.sequence_tokens > context:
        return f"context of {workload.sequence_tokens} tokens: {workload.model.name} has {context}"
    return missing_numbers(workload) or missing_option(workload) or missing_framework(device)


def missing_numbers(workload: Any) -> str | None:
    """A type of numbers that is not held, or int8 without saying of what."""
    if workload.dtype == "int8":
        asked = wants(workload, "quantize_weights") or wants(workload, "quantize_kv_cache")
        return None if asked else "int8 without quantize_weights or quantize_kv_cache"
    return None if workload.dtype in BYTES else f"{workload.dtype} weights"


def missing_option(workload: Any) -> str | None:
    """A flag that would have no effect, or a value that is neither true nor false."""
    asked = {name: value for name, value in workload.options if value != "false"}
    unknown = [f"{name}={value}" for name, value in sorted(asked.items())
               if name not in OPTIONS or value != "true"]  # fmt: skip
    return f"option {', '.join(unknown)}" if unknown else None


def missing_framework(device: str) -> str | None:
    """JAX, or what it needs for this kind of device; a TPU's programs need no TPU."""
    kind = device.split(":")[0]
    if kind not in ("cpu", "cuda", "tpu"):
        return f"{device} support"
    if find_spec("jax") is None:
        return "jax: install it with pip install 'perfsuite[jax]'"
    if kind == "cuda" and not any(find_spec(name) for name in CUDA_PLUGINS):
        return "CUDA in its jax: install it with pip install 'jax[cuda13]'"
    return None


def attached(device: str) -> Sequence[Any]:
    """The devices that JAX sees; ValueError where there is none."""
    import jax

    kind, _, index = device.partition(":")
    try:
        devices = jax.devices(kind)
    except RuntimeError as problem:
        raise ValueError(f"jax sees no {kind} device on this machine: {problem}") from None
    if index and int(index) >= len(devices):
        raise ValueError(f"jax sees {len(devices)} {kind} devices, expected one numbered {index}")
    return [devices[int(index)]] if index else devices


def plan_for(workload: Any, devices: Sequence[Any]) -> Any:
    """What the workload asks for, on these devices; ValueError where it does not divide."""
    from engines.jetstream.plan import Plan
    from engines.jetstream.sharding import sharding_over

    return Plan(
        workload.model,
        sharding_over(
            devices,
            workload.model,
            batch=workload.batch,
            on_batch=wants(workload, "shard_on_batch"),
        ),
        batch=workload.batch,
        cache_tokens=cache_tokens(workload),
        tokens=workload.sequence_tokens,
        dtype=numbers(workload).dtype,
        quantize_weights=wants(workload, "quantize_weights"),
        quantize_cache=wants(workload, "quantize_kv_cache"),
    )


def wants(workload: Any, option: str) -> bool:
    """Whether the document switches the option on."""
    return bool(workload.option(option) == "true")


def numbers(workload: Any) -> Any:
    """The workload in the type of its activations: beside int8 they are bfloat16."""
    return workload.sized(dtype="bfloat16") if workload.dtype == "int8" else workload
