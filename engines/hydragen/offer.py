"""What the Hydragen engine hands over to be measured; imports torch only when it is opened."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
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
DIVIDED = ("heads", "kv_heads", "intermediate_size")
QUESTION_TOKENS = 256  # the longest question behind a needles workload's prefix


@dataclass(frozen=True)
class HydragenOffer:
    """Shared-prefix attention, on one device or a rank on each.

    By torch's own flash attention; what sequences have of their own also by the Triton kernels,
    which need a GPU.
    """

    name: str = "hydragen"
    default: bool = True
    framework: str = "torch"
    distributed: bool = True
    triton: bool = False  # decodes by the Triton kernels

    def refuses(self, workload: Any, device: str) -> str | None:
        """Why this engine cannot honestly run the workload, or None."""
        missing = missing_for(workload, device) or self._missing_kernels(workload, device)
        return f"{self.name} has no {missing}" if missing else None

    def _missing_kernels(self, workload: Any, device: str) -> str | None:
        if not self.triton:
            return None
        if workload.kind == "attention":
            return "attention without a model"
        if not device.startswith("cuda"):
            return f"{device} support: Triton compiles for GPUs"
        return None if find_spec("triton") else "Triton: it is not installed"

    @property
    def has_programs(self) -> bool:
        """Kernels do not run on fake tensors; hydragen_kernels has them compiled."""
        return not self.triton

    def open(self, workload: Any, device: str) -> Any:
        """The engine, or the attention alone; MemoryError where it cannot fit."""
        reason = self.refuses(workload, device)
        if reason:
            raise ValueError(reason)
        if workload.kind == "attention":
            require_attention_memory(workload, device)
            return _attention(workload, device)
        if process_count() > 1:
            return _open_part(workload, device, self.triton)
        require_memory(workload, device, workload.model)
        weights = weights_for(workload)
        engine = _engine(workload, device, weights, triton=self.triton)
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
        if not engine.config["verifiable"]:
            return None
        if workload.kind == "needles":
            return checking.verify_answers(engine, workload, reference_weights(workload))

        return verification.verify(engine, workload, reference_weights(workload))


def process_count() -> int:
    """Processes that torchrun has one model run in."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def missing_for(workload: Any, device: str) -> str | None:
    """What the engine lacks for the workload, or None."""
    kind, mode = workload.kind, workload.mode
    if device.split(":")[0] not in ("cpu", "cuda"):
        return f"{device} support"
    if workload.document != "hydragen" or (kind, mode) not in RUNS:
        return f"{workload.document} {kind} {mode}"
    context = workload.model.max_context
    if kind != "attention" and workload.sequence_tokens > context:
        return f"context of {workload.sequence_tokens} tokens: {workload.model.name} has {context}"
    if missing := missing_numbers(workload, device) or _missing_in_parts(workload):
        return missing
    return missing_option(workload) if kind == "shared" else None


def _missing_in_parts(workload: Any) -> str | None:
    """What can not be divided over torchrun's processes."""
    count = process_count()
    if count == 1:
        return None
    if workload.kind == "attention":
        return f"parts of an attention without a model, for {count} processes"
    model = workload.model
    odd = [name for name in DIVIDED if getattr(model, name) % count]
    return f"{count} equal parts of {model.name}: {', '.join(odd)}" if odd else None


def require_memory(workload: Any, device: str, model: Any) -> None:
    """MemoryError where a model's weights, the prefix and the sequences' own tokens do not fit."""
    size, prefix = BYTES[workload.dtype], workload.shared_tokens
    copies = workload.batch if workload.mode == "disable_hydragen" else 1
    questions = QUESTION_TOKENS * workload.batch if workload.kind == "needles" else 0
    tokens = prefix * copies + questions + workload.batch * workload.output_tokens
    memory.require(
        device,
        weights=model.parameters * size,
        cache=tokens * model.kv_values_per_token * size,
        what=f"{model.name} with {tokens} cached tokens",
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


def _open_part(workload: Any, device: str, triton: bool) -> Any:
    """The part of the model that is this rank's."""
    from engines.hydragen import tensor_parallel as parallel

    rank, count = parallel.meet(device)
    part = parallel.part_of(workload.model, count)
    require_memory(workload, device, part)
    weights: Any
    if stored := parallel.divided_file(workload.model, rank):
        weights = parallel.stored_part(workload.model, rank, count)
    else:
        whole = weights_for(workload)
        weights = whole if isinstance(whole, int) else parallel.Parts(part, whole, rank, count)
    mine = workload.sized(model=part)
    engine = _engine(mine, device, weights, triton=triton, joined=parallel.joined)
    engine.config |= {
        "weights": f"{described(workload, weights)}, divided",
        "verifiable": is_verifiable(workload) and not stored,
        "sharding": f"heads and MLP over {count} processes",
    }
    return engine


def _engine(workload: Any, device: str, weights: Any, **options: Any) -> Any:
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
        **options,
    )


def _prefill_program(workload: Any, target: str) -> Callable[[], object]:
    import torch

    engine = _engine(workload, target, None)
    time = workload.shared_tokens
    tokens = torch.zeros((1, time), dtype=torch.int64, device=target)

    def prefill() -> object:
        engine.forget()
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
