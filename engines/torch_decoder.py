"""The layers of a Llama-family model in torch, without cache: attention is the caller's.

Letters of the shapes: B batch, T time, H query heads, K key/value heads, D head_dim, E hidden size,
V vocabulary. Projections that read the same input are one matrix (q, k, v; gate, up).

Indexing is by narrow() and select(), copying by write(): brackets and copy_() do not work on fake
CUDA tensors of a torch that was built without CUDA, and programs without data are made of those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import Tensor

from engines.torch_weights import Layer, Weights

Rope = tuple[Tensor, Tensor]  # cos and signed sin, [T, 1, D] or [B, T, 1, D]


class Decoder:
    """Weights and what is computed with them; ValueError for an unknown activation.

    `joined` is called with what attention and MLP add to the residual: where each process holds a
    part of the heads, it makes the sum of all parts. `linear` is the product of inputs with a
    matrix, where matrices are held in another way than F.linear takes them.
    """

    def __init__(
        self,
        model: Any,
        weights: Weights,
        joined: Callable[[Tensor], Tensor] | None = None,
        linear: Callable[[Tensor, Tensor], Tensor] = F.linear,
    ) -> None:
        self.model, self.weights = model, weights
        self._joined, self._linear = joined or _whole, linear
        self._activate = activation(model.activation)

    def layers(
        self,
        tokens: Tensor,
        rope: Rope,
        caches: Sequence[Any] | None,
        attend: Callable[[Any, Tensor, Tensor, Tensor], Tensor],
    ) -> Tensor:
        """Tokens [B, T] -> [B, T, E], after all layers and before the last norm.

        attend(cache of the layer, q, k, v) -> what the queries saw, [B, H, T, D]; without caches it
        is not called, and the query after RoPE stands for it: Hydragen's "noattention".
        """
        x = F.embedding(tokens, self.weights.embedding)
        if self.model.scaled_embeddings:
            x = x * torch.tensor(self.model.hidden_size**0.5, dtype=x.dtype)
        for number, layer in enumerate(self.weights.layers):
            q, k, v = self._queries(layer, x, rope)
            seen = attend(caches[number], q, k, v) if caches is not None else q
            x = x + self._joined(self._linear(seen.transpose(1, 2).flatten(2), layer.output))
            gate, up = self._linear(self._norm(x, layer.mlp_norm), layer.gate_up).chunk(2, -1)
            x = x + self._joined(self._linear(self._activate(gate) * up, layer.down))
        return x

    def scores(self, x: Tensor) -> Tensor:
        """[B, E] -> [B, V]."""
        return self._linear(self._norm(x, self.weights.norm), self.weights.head)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, (self.model.hidden_size,), weight, self.model.norm_eps)

    def _queries(self, layer: Layer, x: Tensor, rope: Rope) -> tuple[Tensor, ...]:
        """From x [B, T, E]: q [B, H, T, D], k and v [B, K, T, D], after RoPE."""
        m = self.model
        joined = self._linear(self._norm(x, layer.attention_norm), layer.qkv)
        heads = joined.view(*x.shape[:2], m.heads + 2 * m.kv_heads, m.head_dim)
        turned = rotate(heads.narrow(2, 0, m.heads + m.kv_heads), *rope)
        q, k = torch.split(turned, [m.heads, m.kv_heads], 2)
        v = heads.narrow(2, m.heads + m.kv_heads, m.kv_heads)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


def _whole(part: Tensor) -> Tensor:
    return part


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """SiLU, or the tanh form of GELU."""
    if name == "silu":
        return F.silu
    if name == "gelu_tanh":
        return partial(F.gelu, approximate="tanh")
    raise ValueError(f"got activation {name!r}, expected 'silu' or 'gelu_tanh'")


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """[B, T, heads, D] turned; cos and sin [T, 1, D], the first half of sin negated."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


def rope_tables(model: Any, length: int, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor]:
    """Both cos and signed sin [length, 1, D], computed in float64 and rounded once."""
    half = torch.arange(0, model.head_dim, 2, dtype=torch.float64, device=device)
    frequencies = model.rope_theta ** (-half / model.head_dim)
    if model.rope_scaling is not None:
        frequencies = _scaled(frequencies, model.rope_scaling)
    positions = torch.arange(length, dtype=torch.float64, device=device)
    angles = torch.outer(positions, frequencies)
    cos, sin = angles.cos(), angles.sin()
    cos, sin = torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)
    return cos.to(dtype).unsqueeze(1), sin.to(dtype).unsqueeze(1)


def _scaled(frequencies: Tensor, scaling: Any) -> Tensor:
    """Llama 3.1: slow turns are divided by the factor, quick ones kept, a band between blended."""
    wavelengths = 2 * torch.pi / frequencies
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    blend = ((scaling.original_context / wavelengths - low) / (high - low)).clamp(0.0, 1.0)
    return torch.lerp(frequencies / scaling.factor, frequencies, blend)


def write(target: Tensor, new: Tensor) -> None:
    """Copy `new`, or its broadcast, into a view of a cache."""
    torch.ops.aten.copy_(target, new)


def flash_operator(device: str) -> Any:
    """The device's flash attention operator, by name; it needs no keys repeated for groups."""
    if device == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    if device.startswith("cuda"):
        return torch.ops.aten._scaled_dot_product_flash_attention
    raise ValueError(f"got device {device!r}, expected 'cpu' or 'cuda'")


@contextmanager
def row_kernels(wanted: bool) -> Iterator[None]:
    """Within, a bfloat16 matrix times one row runs torch's own kernel instead of oneDNN's.

    On a CPU without AMX oneDNN reads the weights of one row at half of the memory's speed, torch's
    kernel at all of it (docs/engines.md has the figures). The switch is one of the process.
    """
    library: Any = torch.backends.mkldnn
    before = library.enabled
    library.enabled = before and not wanted
    try:
        yield
    finally:
        library.enabled = before
