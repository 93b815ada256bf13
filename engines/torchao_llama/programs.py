"""The full-size programs for the static tier: a prompt, and the step that fills the cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from engines.offers import cache_tokens
from engines.torch_llama import Step
from engines.torchao_llama.cache import TILE
from engines.torchao_llama.engine import TorchaoLlama
from engines.torchao_llama.plan import plan_of

Call = Callable[[], object]
SEVERAL = 3  # lengths at which a function is traced


def engine_for(workload: Any, device: str, weights: Any, *, compiled: bool = False) -> TorchaoLlama:
    """The engine of a workload."""
    return TorchaoLlama(
        workload.model,
        plan=plan_of(workload),
        batch=workload.batch,
        cache_tokens=cache_tokens(workload),
        weights=weights,
        dtype=workload.dtype,
        device=device,
        compiled=compiled,
    )


@dataclass
class Prefill:
    """The workload's prompt."""

    workload: Any
    target: str
    name: str = "prefill"

    def make(self) -> Call:
        """The engine without data, and the call that runs the prompt."""
        self._engine = engine_for(self.workload, self.target, None)
        self._tokens = _tokens(self.target, self.workload.batch, self.workload.input_tokens)
        return lambda: self._engine.run_prompts(self._tokens)

    def held(self) -> Mapping[str, Tensor]:
        """What stays, by name."""
        return {**self._engine.held(), "inputs.tokens": self._tokens}

    def lengths(self) -> list[Call]:
        """The function of a prompt, as the compiled engine runs it, at several lengths."""
        engine = _traced(self.workload)
        longest = min(engine.cache_tokens, self.workload.input_tokens + SEVERAL)
        times = range(longest, max(1, longest - SEVERAL), -1)  # a length of 1 is a program apart
        prompts = [_tokens(engine.device, engine.batch, time) for time in times]
        for tokens in prompts:
            torch._dynamo.mark_dynamic(tokens, 1)  # compiled, the length is a variable
        return [lambda tokens=tokens: engine.prompt(tokens) for tokens in prompts]


@dataclass
class Decode:
    """A step at the cache's last place: the document's context length is all in use."""

    workload: Any
    target: str
    name: str = "decode"

    def make(self) -> Call:
        """The engine without data, and the call that makes the step."""
        self._engine = engine_for(self.workload, self.target, None)
        tokens = _tokens(self.target, self.workload.batch)
        scores = torch.empty((self.workload.batch, 0), device=self.target)  # a step reads none
        self._step = Step(tokens, scores, self._engine.cache_tokens - 1)
        return lambda: self._engine.decode(self._step)

    def held(self) -> Mapping[str, Tensor]:
        """What stays, by name."""
        return {**self._engine.held(), "inputs.tokens": self._step.tokens}

    def lengths(self) -> list[Call]:
        """The function of a step, as the compiled engine runs it, at several places."""
        engine = _traced(self.workload)
        tokens, room = _tokens(engine.device, engine.batch), engine.cache_tokens
        places = [
            torch.full((1,), place, dtype=torch.int64, device=engine.device)
            for place in sorted({0, room // 2, room - 1})
        ]
        return [lambda place=place: engine.step(tokens, place, room) for place in places]


def _traced(workload: Any) -> TorchaoLlama:
    """The engine as torch.compile traces it: one layer, all being alike, and two tiles of cache.

    For a CPU: AOTAutograd writes to what a function changes in a way that fake CUDA tensors of a
    torch without CUDA do not have. Only the names of operators are others there.
    """
    room = min(cache_tokens(workload), 2 * TILE)
    small = workload.sized(model=replace(workload.model, layers=1), cache_tokens=room)
    return engine_for(small, "cpu", None)


def _tokens(device: str, *shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.int64, device=device)
