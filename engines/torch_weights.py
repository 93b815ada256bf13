"""The weights of a Llama-family model as torch holds them: joined, filled in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engines.weights import spread, tensor_shapes


@dataclass
class Layer:
    """Weights of one layer, matrices as [outputs, inputs]."""

    attention_norm: Tensor  # [E]
    qkv: Tensor  # [(H + 2K) * D, E]
    output: Tensor  # [E, H * D]
    mlp_norm: Tensor  # [E]
    gate_up: Tensor  # [2 * intermediate, E]
    down: Tensor  # [E, intermediate]


class Weights:
    """Preallocated weights; `targets` are views of them under their Hugging Face names."""

    def __init__(self, model: Any, dtype: torch.dtype, device: str) -> None:
        self.model = model
        self.targets: dict[str, Tensor] = {}
        shapes = tensor_shapes(model)

        def joined(*names: str) -> Tensor:
            rows = [shapes[name][0] for name in names]
            whole = torch.empty(sum(rows), *shapes[names[0]][1:], dtype=dtype, device=device)
            self.targets.update(zip(names, torch.split(whole, rows), strict=True))
            return whole

        self.embedding = joined("model.embed_tokens.weight")
        self.layers = [joined_layer(f"model.layers.{n}.", joined) for n in range(model.layers)]
        self.norm = joined("model.norm.weight")
        self.head = self.embedding if model.tied_embeddings else joined("lm_head.weight")

    def tensors(self) -> list[Tensor]:
        """All of them, for the compiler."""
        layers = [tensor for layer in self.layers for tensor in vars(layer).values()]
        return [self.embedding, self.norm, self.head, *layers]

    def copy_from(self, source: Mapping[str, Any]) -> None:
        """By name a numpy array; one tensor at a time, so that the source may be lazy."""
        for name, target in self.targets.items():
            target.copy_(torch.from_numpy(np.array(source[name]) + added(self.model, name)))

    def draw(self, seed: int) -> None:
        """Random numbers of the usual spread, made on the device."""
        generator = torch.Generator(self.embedding.device).manual_seed(seed)
        for name, target in self.targets.items():
            mean, deviation = spread(self.model, name)
            target.normal_(mean + added(self.model, name), deviation, generator=generator)


def fill(weights: Any, source: Mapping[str, Any] | int) -> None:
    """From arrays by name, or from a seed; `weights` have copy_from and draw."""
    with torch.inference_mode():
        if isinstance(source, int):
            weights.draw(source)
        else:
            weights.copy_from(source)


def added(model: Any, name: str) -> int:
    """What an engine adds to a weight when it loads it: Gemma's norms scale by 1 + weight."""
    return int(model.norm_adds_one and name.endswith("norm.weight"))


def joined_layer(prefix: str, joined: Callable[..., Tensor]) -> Layer:
    """One layer; `joined` makes one tensor for all weights of the names that it is given."""

    def named(*parts: str) -> Tensor:
        return joined(*(f"{prefix}{part}.weight" for part in parts))

    return Layer(
        attention_norm=named("input_layernorm"),
        qkv=named("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        output=named("self_attn.o_proj"),
        mlp_norm=named("post_attention_layernorm"),
        gate_up=named("mlp.gate_proj", "mlp.up_proj"),
        down=named("mlp.down_proj"),
    )
