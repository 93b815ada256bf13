"""The engine of one Llama-family model in torch: one cache for every sequence, flash attention.

Letters of the shapes: B batch, T time, H query heads, K key/value heads, G = H / K, D head_dim,
E hidden size, C cache length, V vocabulary.

A decode step looks at its G query heads of one key/value head as G queries of that head, so no key
is repeated or read twice; eager steps read the live part of the cache, compiled ones all of it
under a mask. Attention operators are called by name: another one is never taken instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import Tensor

from engines import memory
from engines.prompts import of_one_length
from engines.torch_decoder import Decoder, flash_operator, rope_tables, row_kernels, write
from engines.torch_weights import Weights, fill

PREFILL_TOKENS = 32_768  # of all rows together in one pass; bounds the activations of the MLP


@dataclass
class Step:
    """The newest token of every sequence and its place in the cache; work may be under way."""

    tokens: Tensor  # [B] int64
    scores: Tensor  # [B, V] in the engine's dtype
    position: int

    def logits(self) -> np.ndarray[Any, Any]:
        """[B, V] float32; waits for the device."""
        return self.scores.float().cpu().numpy()


class TorchLlama:
    """The engine: prefill, prefill_shared, decode, wait, close.

    attention=False is Hydragen's "noattention": attention returns the query after RoPE, nothing is
    cached, and the positions of decoded tokens start at 0 again.
    weights: a mapping of names to numpy arrays, an int (a seed: drawn on the device) or None
    (left empty, for programs that run without data).
    """

    def __init__(
        self,
        model: Any,
        *,
        batch: int,
        cache_tokens: int,
        weights: Mapping[str, Any] | int | None,
        dtype: str = "bfloat16",
        device: str = "cpu",
        attention: bool = True,
        compiled: bool = False,
    ) -> None:
        if batch < 1 or cache_tokens < 1:
            raise ValueError(
                f"got batch {batch} and a cache of {cache_tokens} tokens, expected at least 1: "
                "give the workload a size"
            )
        self.model, self.batch, self.cache_tokens, self.device = model, batch, cache_tokens, device
        self.dtype = getattr(torch, dtype)
        self.weights = Weights(model, self.dtype, device)
        if weights is not None:
            fill(self.weights, weights)
        self.decoder = Decoder(model, self.weights)
        self._cached = attention
        self.caches = self._empty_caches() if attention else None
        self.cos, self.sin = rope_tables(model, cache_tokens, self.dtype, device)
        self.positions = torch.arange(cache_tokens, device=device)
        self._flash = flash_operator(device)
        self._decode_static = self._compiled() if compiled else None
        self._row_kernels = self._has_row_kernels()
        self.config = self._config(dtype, attention)

    def _empty_caches(self) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of each layer, both [B, K, C, D]; what was not written is never read."""
        m = self.model
        shape = (self.batch, m.kv_heads, self.cache_tokens, m.head_dim)

        def empty() -> Tensor:
            # A mask multiplies unwritten values by zero, and zero times NaN is NaN.
            return torch.zeros(shape, dtype=self.dtype, device=self.device)

        return [(empty(), empty()) for _ in range(m.layers)]

    def _compiled(self) -> Callable[..., tuple[Tensor, Tensor]]:
        caches = [tensor for pair in self.caches or [] for tensor in pair]
        for tensor in [*self.weights.tensors(), *caches, self.cos, self.sin, self.positions]:
            torch._dynamo.mark_static_address(tensor)  # CUDA graphs then do not copy it
        mode = "reduce-overhead" if self.device.startswith("cuda") else "default"
        return torch.compile(self._decode_masked, mode=mode, fullgraph=True, dynamic=False)

    def _config(self, dtype: str, attention: bool) -> dict[str, Any]:
        eager = f"{self._flash.__name__}, decode over the live part of the cache"
        masked = f"prefill {self._flash.__name__}, decode sdpa over the whole cache with a mask"
        if not attention:
            name = "none: the query after RoPE"
        else:
            name = masked if self._decode_static else eager
        return {
            "model": self.model.name,
            "dtype": dtype,
            "device": self.device,
            "batch": self.batch,
            "cache_tokens": self.cache_tokens if attention else 0,
            "attention": name,
            "compiled": "decode" if self._decode_static else "no",
            "linear": self._linear(),
            "threads": torch.get_num_threads(),
        }

    def _has_row_kernels(self) -> bool:
        return self.device == "cpu" and self.batch == 1 and self.dtype == torch.bfloat16

    def _linear(self) -> str:
        return "row kernels in decode" if self._row_kernels else "default"

    # The protocol

    def prefill(self, token_ids: Sequence[Sequence[int]]) -> Step:
        """Forget all sequences, run these prompts [B, T], produce the first token of each."""
        self._take_batch(len(token_ids))
        return self.run_prompts(self._checked(token_ids, self.batch))

    def prefill_shared(self, prefix_ids: Sequence[int], batch: int) -> Step:
        """Run one prompt [T] once and give its keys and values to all `batch` sequences."""
        self._take_batch(batch)
        return self.run_shared(self._checked([prefix_ids], 1))

    @torch.inference_mode()
    def decode(self, step: Step) -> Step:
        """One more token for every sequence. An older step may be given: it is decoded again."""
        if step.position >= self.cache_tokens:
            raise ValueError(
                f"the cache holds {self.cache_tokens} tokens and is full: "
                "open the engine with more cache_tokens; it does not roll"
            )
        with row_kernels(self._row_kernels):
            return self._decode(step)

    def wait(self, step: Step) -> None:
        """Block until the device has finished this step."""
        if step.tokens.is_cuda:
            torch.cuda.synchronize(step.tokens.device)

    def close(self) -> None:
        """Give the memory back; the engine cannot be used any more."""
        if self._decode_static:
            torch.compiler.reset()  # code of all compiled engines; few variants are kept at a time
        del self.weights, self.decoder, self.caches, self._decode_static
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def _take_batch(self, batch: int) -> None:
        """Caches for another number of sequences, once the old ones are gone."""
        if batch == self.batch or batch < 1:
            return
        if self._cached:
            self.caches, self.batch = None, 0  # stays so where the new ones do not fit
            values = batch * self.cache_tokens * self.model.kv_values_per_token
            what = f"a batch of {batch} with {self.cache_tokens} tokens each"
            memory.require(self.device, weights=0, cache=values * self.dtype.itemsize, what=what)
        self.batch = self.config["batch"] = batch
        self.caches = self._empty_caches() if self._cached else None
        self._row_kernels = self._has_row_kernels()
        self.config["linear"] = self._linear()
        if self._decode_static:
            self._decode_static = self._compiled()

    # Prefill

    def _checked(self, token_ids: Any, rows: int) -> Tensor:
        ids = of_one_length(token_ids, rows, self.cache_tokens, self.model.vocab_size)
        return torch.from_numpy(ids).to(self.device)

    @torch.inference_mode()
    def run_prompts(self, tokens: Tensor) -> Step:
        """Tokens [rows, T] of the first `rows` sequences; a few rows at a time when long."""
        rows, time = tokens.shape
        few = max(1, PREFILL_TOKENS // time)
        starts = range(0, rows, few)
        scores = [self._prompt(tokens.narrow(0, n, min(few, rows - n)), n) for n in starts]
        return self._step(torch.cat(scores) if len(scores) > 1 else scores[0], self._next(time))

    @torch.inference_mode()
    def run_shared(self, tokens: Tensor) -> Step:
        """Tokens [1, T] for all sequences of the batch."""
        first = self.run_prompts(tokens)
        time = tokens.shape[1]
        for cache in (cache for pair in self.caches or [] for cache in pair):
            filled = cache.narrow(2, 0, time)
            write(filled.narrow(0, 1, self.batch - 1), filled.narrow(0, 0, 1))
        vocabulary = first.scores.shape[1]
        return self._step(first.scores.expand(self.batch, vocabulary), first.position)

    def _next(self, time: int) -> int:
        """Where the first decoded token goes: positions start again where nothing is cached."""
        return time if self.caches else 0

    def _prompt(self, tokens: Tensor, start: int) -> Tensor:
        """Rows from `start` on: tokens [rows, T] -> scores [rows, V] of the last position."""
        rows, time = tokens.shape
        rope = self.cos.narrow(0, 0, time), self.sin.narrow(0, 0, time)

        def attend(cache: tuple[Tensor, Tensor], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            for whole, new in zip(cache, (k, v), strict=True):
                write(whole.narrow(0, start, rows).narrow(2, 0, time), new)
            seen: Tensor = self._flash(q, k, v, 0.0, True)[0]
            return seen

        x = self.decoder.layers(tokens, rope, self.caches, attend)
        return self.decoder.scores(x.select(1, time - 1))

    # Decode

    def _decode(self, step: Step) -> Step:
        position = step.position
        if self._decode_static:
            tokens, scores = self._decode_static(step.tokens, self.positions.narrow(0, position, 1))
            return Step(tokens, scores, position + 1)
        rope = self.cos.narrow(0, position, 1), self.sin.narrow(0, position, 1)

        def attend(cache: tuple[Tensor, Tensor], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = cache
            write(keys.narrow(2, position, 1), k)
            write(values.narrow(2, position, 1), v)
            return self._attend_one(
                q, keys.narrow(2, 0, position + 1), values.narrow(2, 0, position + 1)
            )

        x = self.decoder.layers(step.tokens.unsqueeze(1), rope, self.caches, attend)
        return self._step(self.decoder.scores(x.squeeze(1)), position + 1)

    def _attend_one(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """One query q [B, H, 1, D] on keys and values [B, K, time, D] -> [B, H, 1, D]."""
        grouped = q.reshape(self.batch, self.model.kv_heads, -1, self.model.head_dim)
        if grouped.shape[2] == 1 and self._doubles_queries:
            twice = grouped.expand(-1, -1, 2, -1)
            both: Tensor = self._flash(twice, keys, values, 0.0, False)[0]
            return both.narrow(2, 0, 1)
        seen: Tensor = self._flash(grouped, keys, values, 0.0, False)[0]
        return seen.reshape(q.shape)

    @property
    def _doubles_queries(self) -> bool:
        # On a CPU in bfloat16 a single query for a head goes through a kernel twice as slow as two.
        return self.device == "cpu" and self.dtype == torch.bfloat16

    def _decode_masked(self, tokens: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """One shape for every position [1]: tokens [B] -> tokens [B], scores [B, V]."""
        rope = self.cos.index_select(0, position), self.sin.index_select(0, position)
        mask = (self.positions <= position).view(1, 1, 1, -1)

        def attend(cache: tuple[Tensor, Tensor], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = cache
            keys.index_copy_(2, position, k)
            values.index_copy_(2, position, v)
            grouped = q.reshape(self.batch, self.model.kv_heads, -1, self.model.head_dim)
            return F.scaled_dot_product_attention(grouped, keys, values, mask).reshape(q.shape)

        x = self.decoder.layers(tokens.unsqueeze(1), rope, self.caches, attend)
        scores = self.decoder.scores(x.squeeze(1))
        return scores.argmax(-1), scores

    def _step(self, scores: Tensor, position: int) -> Step:
        return Step(scores.argmax(-1), scores, position)
