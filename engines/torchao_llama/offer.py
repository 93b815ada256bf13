"""What the torchao Llama hands over to be measured; imports torch only when it is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engines.offers import (
    cache_tokens,
    described,
    is_verifiable,
    missing_numbers,
    reference_weights,
    weights_for,
)
from engines.torchao_llama.plan import NORMAL, missing_option, plan_of


@dataclass(frozen=True)
class TorchaoLlamaOffer:
    """The document's torchao rows on one device, eager or with prefill and decode compiled."""

    name: str = "torchao_llama"
    compiled: bool = False
    default: bool = True  # False: runs only when asked for by name
    framework: str = "torch"

    @property
    def has_programs(self) -> bool:
        """The compiled engine's are the eager one's; see programs."""
        return not self.compiled

    def refuses(self, workload: Any, device: str) -> str | None:
        """Why this engine cannot honestly run the workload, or None."""
        missing = missing_for(workload, device)
        return f"{self.name} has no {missing}" if missing else None

    def open(self, workload: Any, device: str) -> Any:
        """The engine with its weights; MemoryError where weights, cache and mask cannot fit."""
        reason = self.refuses(workload, device)
        if reason:
            raise ValueError(reason)
        from engines.torchao_llama.programs import engine_for
        from engines.torchao_llama.room import require_memory

        require_memory(workload, device)
        weights = weights_for(workload)
        engine = engine_for(workload, device, weights, compiled=self.compiled)
        engine.config |= {
            "weights": described(workload, weights),
            "verifiable": is_verifiable(workload),
        }
        return engine

    def programs(self, workload: Any, target: str) -> list[Any]:
        """Prefill, and the step at the cache's last place, on "cpu" or "cuda" without data.

        The compiled offer has none: Inductor does not run on fake tensors. That its functions stay
        one program at every length is what the programs' `lengths()` are for.
        """
        if self.compiled:
            return []
        from engines.torchao_llama.programs import Decode, Prefill

        return [Prefill(workload, target), Decode(workload, target)]

    def verify(self, engine: Any, workload: Any) -> str | None:
        """Why the outputs are wrong, or None; None unchecked where config says not verifiable."""
        if not is_verifiable(workload):
            return None
        from engines.torchao_llama import checking

        return checking.verify(engine, workload, reference_weights(workload))

    def compare(self, engine: Any, workload: Any) -> Mapping[str, float]:
        """How far the techniques move the model's distribution.

        Empty where nothing can be said: without a technique, of a large model with random weights,
        and where the plain model does not fit beside this engine.
        """
        says_something = is_verifiable(workload) or workload.model.checkpoint is not None
        if not says_something or engine.plan == NORMAL:
            return {}
        from engines.torchao_llama import accuracy
        from engines.torchao_llama.room import require_memory

        plain = accuracy.plain(workload)
        try:
            require_memory(plain, engine.device)
        except MemoryError:
            return {}
        return accuracy.compare(engine, plain, weights_for(workload))

    def negative_log_likelihood(self, engine: Any, stream: Any) -> float:
        """Of token ids [B, T], nats a token, through the cache as it is held."""
        from engines.likelihood import mean_loss

        return mean_loss(engine, stream)

    def model_shape(self, directory: str) -> dict[str, Any]:
        """The fields of a Model that a checkpoint folder holds; ValueError where it is none."""
        from engines import checkpoint

        return checkpoint.read_shape(directory)


def missing_for(workload: Any, device: str) -> str | None:
    """What the engine lacks for the workload, or None."""
    if device.split(":")[0] not in ("cpu", "cuda"):
        return f"{device} support"
    if (workload.document, workload.kind) != ("torchao", "generate"):
        return f"{workload.document} {workload.kind}"
    if missing := missing_option(workload) or missing_numbers(workload, device):
        return missing
    return _missing_context(workload) or _missing_scheme(workload, device)


def _missing_context(workload: Any) -> str | None:
    if workload.is_rolling:
        held, needed = workload.cache_tokens, workload.sequence_tokens
        return f"rolling cache: {held} cached of {needed} tokens"
    context, name = workload.model.max_context, workload.model.name
    longest = max(cache_tokens(workload), workload.sequence_tokens)
    return f"context of {longest} tokens: {name} has {context}" if longest > context else None


def _missing_scheme(workload: Any, device: str) -> str | None:
    scheme = plan_of(workload).scheme
    if not scheme:
        return None
    from engines.torchao_llama.schemes import missing_scheme

    return missing_scheme(workload.model, scheme, workload.dtype, device)
