"""Attention in parts: over each shared prefix once for all its sequences, and over each suffix.

Letters of the shapes: B sequences, b prefixes, H query heads, K key/value heads, G = H / K,
T queries of a sequence, S keys, D head_dim. Softmax over all keys is a mean of the softmaxes over
its parts, weighted by the exponents of their log-sum-exps (Hydragen, arXiv 2402.05099, section 3),
so keys that many sequences share need not be copied: their queries become one matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from engines.torch_decoder import flash_operator


class Part(NamedTuple):
    """What queries saw of some keys."""

    out: Tensor  # [B, H, T, D], the mean of the values; 0 where there was no key
    lse: Tensor  # [B, H, T] float32, the natural log of the sum of exp(score); -inf without a key


class Attend(Protocol):
    """An attention operator that says its log-sum-exp; `str()` of it is its name."""

    def __call__(self, q: Tensor, keys: Tensor, values: Tensor, *, causal: bool = False) -> Part:
        """Queries [B, H, T, D] on keys and values [B, K, S, D]."""


@dataclass(frozen=True)
class Prefixes:
    """Keys and values of b prefixes, of which the first `lengths[i]` are live."""

    keys: Tensor  # [b, K, S, D]
    values: Tensor  # [b, K, S, D]
    lengths: tuple[int, ...]

    @property
    def is_ragged(self) -> bool:
        """Whether their lengths differ."""
        return len(set(self.lengths)) > 1

    def live(self, number: int) -> tuple[Tensor, Tensor]:
        """Keys and values [1, K, length, D] of one prefix."""
        length = self.lengths[number]
        keys, values = self.keys.narrow(0, number, 1), self.values.narrow(0, number, 1)
        return keys.narrow(2, 0, length), values.narrow(2, 0, length)


@dataclass(frozen=True)
class Flash:
    """Torch's own flash attention for a device."""

    device: str
    dtype: torch.dtype

    def __call__(self, q: Tensor, keys: Tensor, values: Tensor, *, causal: bool = False) -> Part:
        """As Attend says."""
        if keys.shape[2] == 0:
            return empty(q)
        # On a CPU in bfloat16 a single query for a head goes through a kernel twice as slow as two.
        doubled = q.shape[2] == 1 and self.device == "cpu" and self.dtype == torch.bfloat16
        queries = q.expand(-1, -1, 2, -1) if doubled else q
        out, lse = flash_operator(self.device)(queries, keys, values, 0.0, causal)[:2]
        return Part(out.narrow(2, 0, q.shape[2]), lse.narrow(2, 0, q.shape[2]))

    def __str__(self) -> str:
        return str(flash_operator(self.device).__name__)


def empty(q: Tensor) -> Part:
    """What queries see of no key."""
    nothing = torch.full(q.shape[:3], -torch.inf, dtype=torch.float32, device=q.device)
    return Part(torch.zeros_like(q), nothing)


def attend_prefixes(attend: Attend, q: Tensor, prefixes: Prefixes) -> Part:
    """Queries [B, H, T, D] on b prefixes; each is read once for its B / b sequences, in order."""
    if prefixes.is_ragged:
        return _ragged(attend, q, prefixes)
    length = prefixes.lengths[0]
    keys, values = prefixes.keys.narrow(2, 0, length), prefixes.values.narrow(2, 0, length)
    return attend_joined(attend, q, keys, values)


def attend_joined(attend: Attend, q: Tensor, keys: Tensor, values: Tensor) -> Part:
    """All queries of B / b sequences and of one key/value head as one matrix on its keys."""
    count, kv_heads, _, dim = keys.shape
    batch, heads, time = q.shape[:3]
    each, group = batch // count, heads // kv_heads
    split = q.reshape(count, each, kv_heads, group, time, dim).transpose(1, 2)
    seen = attend(split.reshape(count, kv_heads, -1, dim), keys, values)
    out = seen.out.reshape(count, kv_heads, each, group, time, dim).transpose(1, 2)
    lse = seen.lse.reshape(count, kv_heads, each, group, time).transpose(1, 2)
    return Part(out.reshape(q.shape), lse.reshape(q.shape[:3]))


def _ragged(attend: Attend, q: Tensor, prefixes: Prefixes) -> Part:
    """One prefix after the other, so that nothing is read but what is live."""
    each = q.shape[0] // len(prefixes.lengths)
    parts = [
        attend_joined(attend, q.narrow(0, number * each, each), *prefixes.live(number))
        for number in range(len(prefixes.lengths))
    ]
    return Part(torch.cat([part.out for part in parts]), torch.cat([part.lse for part in parts]))


def combine(parts: Sequence[Part]) -> Tensor:
    """[B, H, T, D] over the keys of all parts, one of which has keys; summed in float32."""
    if len(parts) == 1:
        return parts[0].out
    if len(parts) == 2:  # half as many operators, which is what one sequence feels
        first, second = parts
        share = torch.sigmoid(first.lse - second.lse).unsqueeze(-1)
        return torch.lerp(second.out.float(), first.out.float(), share).to(first.out.dtype)
    lse = torch.stack([part.lse for part in parts])
    shares = torch.softmax(lse, 0).unsqueeze(-1)
    total = shares.select(0, 0) * parts[0].out
    for number, part in enumerate(parts[1:], 1):
        total = torch.addcmul(total, shares.select(0, number), part.out.float())
    return total.to(parts[0].out.dtype)
