"""The weights of a Llama-family model with its matrices quantised, filled one at a time.

Embedding and norms stay as they are, and so does a head that is the embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engines.torch_weights import added, joined_layer
from engines.weights import spread, tensor_shapes

Fill = Callable[[str, Tensor], object]  # writes the weights of a Hugging Face name in place


class QuantisedWeights:
    """Preallocated, with the fields of engines.torch_weights.Weights; `scheme` holds matrices."""

    def __init__(self, model: Any, dtype: torch.dtype, device: str, scheme: Any) -> None:
        self.model, self._dtype, self._device, self._scheme = model, dtype, device, scheme
        self._shapes = tensor_shapes(model)
        self._parts: list[tuple[Tensor, tuple[str, ...]]] = []
        self.embedding = self._kept("model.embed_tokens.weight")
        self.layers = [joined_layer(f"model.layers.{n}.", self._held) for n in range(model.layers)]
        self.norm = self._kept("model.norm.weight")
        self.head = self.embedding if model.tied_embeddings else self._held("lm_head.weight")

    def _held(self, *names: str) -> Tensor:
        """One matrix for all names, or a vector as it is."""
        shapes = [self._shapes[name] for name in names]
        if len(shapes[0]) == 1:
            return self._kept(*names)
        matrix: Tensor = self._scheme.empty(sum(shape[0] for shape in shapes), shapes[0][1])
        self._parts.append((matrix, names))
        return matrix

    def _kept(self, *names: str) -> Tensor:
        whole = torch.empty(self._shapes[names[0]], dtype=self._dtype, device=self._device)
        self._parts.append((whole, names))
        return whole

    def tensors(self) -> list[Tensor]:
        """All of them, for the compiler."""
        return [tensor for tensor, _ in self._parts]

    def copy_from(self, source: Mapping[str, Any]) -> None:
        """By name a numpy array; the source may be lazy."""

        def copied(name: str, part: Tensor) -> None:
            part.copy_(torch.from_numpy(np.array(source[name]) + added(self.model, name)))

        self._fill(copied)

    def draw(self, seed: int) -> None:
        """Random numbers of the usual spread, made on the device: those of unquantised weights."""
        generator = torch.Generator(self._device).manual_seed(seed)

        def drawn(name: str, part: Tensor) -> None:
            mean, deviation = spread(self.model, name)
            part.normal_(mean + added(self.model, name), deviation, generator=generator)

        self._fill(drawn)

    def _fill(self, fill: Fill) -> None:
        """One matrix at a time, so that a second copy of one is all that is held beside."""
        for tensor, names in self._parts:
            if not _is_quantised(tensor):
                self._set(tensor, names, fill)
                continue
            matrix = torch.empty(tensor.shape, dtype=self._dtype, device=self._device)
            self._set(matrix, names, fill)
            self._scheme.fill(tensor, matrix)

    def _set(self, whole: Tensor, names: tuple[str, ...], fill: Fill) -> None:
        for name, part in zip(names, torch.split(whole, self._rows(names)), strict=True):
            fill(name, part)

    def _rows(self, names: tuple[str, ...]) -> list[int]:
        return [self._shapes[name][0] for name in names]

    def numbers(self) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
        """By Hugging Face name, what quantised weights stand for: float64 [outputs, inputs]."""
        for tensor, names in self._parts:
            if _is_quantised(tensor):
                numbers = self._scheme.numbers(tensor).cpu()
                parts = torch.split(numbers, self._rows(names))
                yield from ((n, part.numpy()) for n, part in zip(names, parts, strict=True))


def _is_quantised(tensor: Tensor) -> bool:
    return type(tensor) is not Tensor and hasattr(tensor, "__tensor_flatten__")
