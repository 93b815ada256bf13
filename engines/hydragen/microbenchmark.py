"""The attention operation of one decode step alone, on tensors that it holds.

`base` is one attention over prefix and suffix, the prefix copied to every sequence; `hydragen`
reads the prefix once. Queries, keys and values are standard normal, drawn from a seed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engines.hydragen.attention import Attend, Part, attend_joined, combine
from engines.hydragen.graphs import captured

FLUSH_BYTES = 128 << 20  # the document's script overwrites as much; more than any cache of today


class AttentionBenchmark:
    """`attention()` is what is timed; `flush()` before it, `wait()` behind it."""

    def __init__(
        self,
        model: Any,
        *,
        batch: int,
        shared_tokens: int,
        own_tokens: int,
        mode: str,
        attend: Attend,
        dtype: str = "bfloat16",
        device: str = "cpu",
        seed: int = 0,
    ) -> None:
        """ValueError for a mode that is neither "base" nor "hydragen"."""
        if mode not in ("base", "hydragen"):
            raise ValueError(f"got mode {mode!r}, expected 'base' or 'hydragen'")
        self.mode, self._attend, self.device = mode, attend, device
        draw = torch.Generator(device).manual_seed(seed)

        def normal(rows: int, heads: int, time: int) -> Tensor:
            shape, number = (rows, heads, time, model.head_dim), getattr(torch, dtype)
            return torch.randn(shape, generator=draw, device=device, dtype=number)

        kv_heads = model.kv_heads
        self.queries = normal(batch, model.heads, 1)
        self.prefix = normal(1, kv_heads, shared_tokens), normal(1, kv_heads, shared_tokens)
        self.suffix = normal(batch, kv_heads, own_tokens), normal(batch, kv_heads, own_tokens)
        if mode == "base":
            self.whole = tuple(map(_joined, self.prefix, self.suffix))
        self._flushed = torch.empty(FLUSH_BYTES, dtype=torch.int8, device=device)
        on_gpu = device.startswith("cuda")
        with torch.inference_mode():
            self._run = captured(self._attended) if on_gpu else self._attended
        self.config = {
            "mode": mode,
            "dtype": dtype,
            "device": device,
            "batch": batch,
            "attention": str(attend),
            "graphs": "the call" if on_gpu else "none",
            "threads": torch.get_num_threads(),
        }

    @torch.inference_mode()
    def attention(self) -> Tensor:
        """[B, H, 1, D]; work may be under way."""
        return self._run()[0]

    def _attended(self) -> tuple[Tensor, ...]:
        if self.mode == "base":
            return (attend_joined(self._attend, self.queries, *self.whole).out,)
        return (combine(self._parts()),)

    def _parts(self) -> list[Part]:
        """Without a suffix the prefix is all there is."""
        pairs = [self.prefix, self.suffix] if self.suffix[0].shape[2] else [self.prefix]
        return [attend_joined(self._attend, self.queries, *pair) for pair in pairs]

    def flush(self) -> None:
        """Leave nothing of the tensors in the last-level cache; waits."""
        self._flushed.zero_()
        self.wait(self._flushed)

    def wait(self, result: Tensor) -> None:
        """Block until the device has finished."""
        if result.is_cuda:
            torch.cuda.synchronize(result.device)

    def close(self) -> None:
        """Give the memory back."""
        del self.queries, self.prefix, self.suffix, self._flushed, self._run
        self.__dict__.pop("whole", None)


def _joined(prefix: Tensor, suffix: Tensor) -> Tensor:
    """Keys or values [1, K, S, D] and [B, K, U, D] -> [B, K, S + U, D]."""
    batch, _, own, _ = suffix.shape
    whole = suffix.new_empty((batch, prefix.shape[1], prefix.shape[2] + own, prefix.shape[3]))
    whole.narrow(2, 0, prefix.shape[2]).copy_(prefix)
    whole.narrow(2, prefix.shape[2], own).copy_(suffix)
    return whole
