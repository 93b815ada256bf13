"""What the Hydragen engine hands over to be measured; imports torch only when it is opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engines import memory
from engines.offers import (
    BYTES,
    Program,
    described,
    is_verifiable,
    missing_numbers,
    missing_option,
    reference_weights,
    sharding,
    weights_for,
)

RUNS = {
    ("shared", "hydragen"),
    ("attention", "base"),
    ("attention", "hydragen"),
    ("needles", "hydragen"),
    ("needles", "disable_hydragen"),
}
QUESTION_TOKENS = 256  # the longest question behind a needles workload's prefix


@dataclass(frozen=True)
class HydragenOffer:
    """Shared-prefix attention on one device, by torch's own flash attention."""

    name: str = "hydragen"
    default: bool = True
    framework: str = "torch"

    def refuses(self, workload: Any, device: str) -> str | None:
        """Why this engine cannot honestly run the workload, or None."""
        missing = missing_for(workload, device)
        return f"{self.name} has no {missing}" if missing else None

    def open(self, workload: Any, device: str) -> Any:
        """The engine, or the attention alone; MemoryError where it cannot fit."""
        reason = self.refuses(workload, device)
        if reason:
            raise ValueError(reason)
        if workload.kind == "attention":
            require_attention_memory(workload, device)
            return _attention(workload, device)
        require_memory(workload, device)
        weights = weights_for(workload)
        engine = _engine(workload, device, weights)
        engine.config |= {
            "weights": described(workload, weights),
            "verifiable": is_verifiable(workload),
            "sharding": sharding(workload),
        }
        return engine

    def programs(self, workload: Any, target: str) -> list[Program]:
        """Prefill of the prefix, and the last decode step, without data."""
        if workload.kind != "shared":
            return []
        return [
            Program("prefill", lambda: _prefill_program(workload, target)),
            Program("decode", lambda: _decode_program(workload, target)),
        ]

    def verify(self, engine: Any, workload: Any) -> str | None:
        """Why the outputs are wrong, or None; None unchecked where config says not verifiable."""
        from engines import verification
        from engines.hydragen import checking

        if workload.kind == "attention":
            return checking.verify(engine)
        if not is_verifiable(workload):
            return None
        if workload.kind == "needles":
            return checking.verify_answers(engine, workload, reference_weights(workload))

        return verification.verify(engine, workload, reference_weights(workload))


def missing_for(workload: Any, device: str) -> str | None:
    """What the engine lacks for the workload, or None."""
    kind, mode = workload.kind, workload.mode
    if device.split(":")[0] not in ("cpu", "cuda"):
        return f"{device} support"
    if workload.document != "hydragen" or (kind, mode) not in RUNS:
        return f"{workload.document} {kind} {mode}"
    if workload.option("one_process_per_point") == "true":
        return "a process of its own for each point"
    context = workload.model.max_context
    if kind != "attention" and workload.sequence_tokens > context:
        return f"context of {workload.sequence_tokens} tokens: {workload.model.name} has {context}"
    if missing := missing_numbers(workload, device):
        return missing
    return missing_option(workload) if kind == "shared" else None


def require_memory(workload: Any, device: str) -> None:
    """MemoryError where weights, the prefix and the sequences' own tokens do not fit."""
    size, prefix = BYTES[workload.dtype], workload.shared_tokens
    copies = workload.batch if workload.mode == "disable_hydragen" else 1
    questions = QUESTION_TOKENS * workload.batch if workload.kind == "needles" else 0
    tokens = prefix * copies + questions + workload.batch * workload.output_tokens
    memory.require(
        device,
        weights=workload.model.parameters * size,
        cache=tokens * workload.model.kv_values_per_token * size,
        what=f"{workload.model.name} with {tokens} cached tokens",
    )


def require_attention_memory(workload: Any, device: str) -> None:
    """MemoryError where keys and values do not fit; `base` copies the prefix to every sequence."""
    copies = workload.batch if workload.mode == "base" else 0
    tokens = workload.shared_tokens * (1 + copies)
    tokens += workload.batch * workload.output_tokens * (2 if copies else 1)
    model = workload.model
    values = 2 * model.kv_heads * model.head_dim * tokens
    what = f"attention over {workload.batch} x {workload.shared_tokens} tokens"
    memory.require(device, weights=0, cache=values * BYTES[workload.dtype], what=what)


def _attention(workload: Any, device: str) -> Any:
    import torch

    from engines.hydragen.attention import Flash
    from engines.hydragen.microbenchmark import AttentionBenchmark

    return AttentionBenchmark(
        workload.model,
        batch=workload.batch,
        shared_tokens=workload.shared_tokens,
        own_tokens=workload.output_tokens,
        mode=workload.mode,
        attend=Flash(device, getattr(torch, workload.dtype)),
        dtype=workload.dtype,
        device=device,
    )


def _engine(workload: Any, device: str, weights: Any) -> Any:
    from engines.hydragen.engine import Hydragen

    questions = QUESTION_TOKENS if workload.kind == "needles" else 0
    return Hydragen(
        workload.model,
        batch=workload.batch,
        shared_tokens=workload.shared_tokens + workload.input_tokens + questions,
        own_tokens=workload.output_tokens,
        weights=weights,
        dtype=workload.dtype,
        device=device,
        share=workload.mode != "disable_hydragen",
    )


def _prefill_program(workload: Any, target: str) -> Callable[[], object]:
    import torch

    engine = _engine(workload, target, None)
    time = workload.shared_tokens
    tokens = torch.zeros((1, time), dtype=torch.int64, device=target)

    def prefill() -> object:
        engine.levels = []
        return engine.run_level(tokens, (time,), is_last=True)

    return prefill


def _decode_program(workload: Any, target: str) -> Callable[[], object]:
    import torch

    from engines.hydragen.engine import Step

    engine = _engine(workload, target, None)
    engine.hold(workload.shared_tokens)
    tokens = torch.zeros((workload.batch,), dtype=torch.int64, device=target)
    scores = torch.empty((workload.batch, 0), device=target)  # decode reads none
    step = Step(tokens, scores, workload.output_tokens - 1)
    return lambda: engine.decode(step)
