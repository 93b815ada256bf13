"""The engine of the document's torchao Llama: one cache, of int8 where asked, under a mask.

Letters of the shapes: B batch, T time, K key/value heads, D head_dim, C cache length, V vocabulary.

Prompts and steps are one function each, whether they run as they are or compiled. A step gets its
position as a tensor; what it reads of the cache is a number: as they are, steps read the live part
up to the next multiple of BLOCK, compiled ones the whole cache, and the mask decides what is seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from engines.prompts import of_one_length
from engines.torch_decoder import Decoder, flash_operator, rope_tables, row_kernels
from engines.torch_llama import Step
from engines.torch_weights import Weights, fill
from engines.torchao_llama.attention import Masked, attend, bias_of
from engines.torchao_llama.cache import cache_for
from engines.torchao_llama.masks import mask_for
from engines.torchao_llama.plan import NORMAL, Plan
from engines.torchao_llama.schemes import scheme_for
from engines.torchao_llama.weights import QuantisedWeights

BLOCK = 64  # places: a step reads at most BLOCK - 1 behind its own; divides a cache's TILE


class TorchaoLlama:
    """The engine: prefill, decode, wait, close.

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
        plan: Plan = NORMAL,
        dtype: str = "bfloat16",
        device: str = "cpu",
        compiled: bool = False,
    ) -> None:
        if batch < 1 or cache_tokens < 1:
            raise ValueError(
                f"got batch {batch} and a cache of {cache_tokens} tokens, expected at least 1: "
                "give the workload a size"
            )
        self.model, self.plan, self.batch, self.device = model, plan, batch, device
        self.cache_tokens, self.dtype = cache_tokens, getattr(torch, dtype)
        self._scheme = scheme_for(model, plan.scheme, self.dtype, device)
        self.weights = self._empty_weights()
        if weights is not None:
            fill(self.weights, weights)
        self.decoder = self._decoder()
        self.cos, self.sin = rope_tables(model, cache_tokens, self.dtype, device)
        self.caches = self._empty_caches()
        self.mask = mask_for(plan, cache_tokens, device)
        self._flash, self._masked = flash_operator(device), Masked(device, self.dtype)
        self._row_kernels = self._scheme is None and self._is_one_row_on_a_cpu()
        self._is_compiled = compiled
        self._run_prompt, self._run_step = self._functions()
        self.config = self._config(dtype)

    def _empty_weights(self) -> Weights | QuantisedWeights:
        if self._scheme is None:
            return Weights(self.model, self.dtype, self.device)
        return QuantisedWeights(self.model, self.dtype, self.device, self._scheme)

    def _decoder(self) -> Decoder:
        if self._scheme is None:
            return Decoder(self.model, self.weights)
        return Decoder(self.model, self.weights, linear=self._scheme.linear)

    def _empty_caches(self) -> list[Any]:
        m = self.model
        shape = (self.batch, m.kv_heads, self.cache_tokens, m.head_dim)
        return [cache_for(self.plan, shape, self.dtype, self.device) for _ in range(m.layers)]

    def _is_one_row_on_a_cpu(self) -> bool:
        return self.device == "cpu" and self.batch == 1 and self.dtype == torch.bfloat16

    def _functions(self) -> tuple[Any, Any]:
        """What runs a prompt and a step: prompts of any length are one program, and so are steps
        of all positions.
        """
        if not self._is_compiled:
            return self.prompt, self.step
        for tensor in self.held().values():
            torch._dynamo.mark_static_address(tensor)  # CUDA graphs then do not copy it
        mode = "reduce-overhead" if self.device.startswith("cuda") else "default"
        return (
            torch.compile(self.prompt, fullgraph=True, dynamic=True),
            torch.compile(self.step, fullgraph=True, dynamic=False, mode=mode),
        )

    # What it holds

    def held(self) -> dict[str, Tensor]:
        """Every tensor that stays, by the name of its place."""
        weights = {"embedding": self.weights.embedding, "norm": self.weights.norm}
        if not self.model.tied_embeddings:
            weights["head"] = self.weights.head
        for number, layer in enumerate(self.weights.layers):
            weights |= {f"layers.{number}.{name}": tensor for name, tensor in vars(layer).items()}
        caches = {
            f"layers.{number}.{name}": tensor
            for number, cache in enumerate(self.caches)
            for name, tensor in cache.held().items()
        }
        found = {f"weights.{name}": tensor for name, tensor in weights.items()}
        found |= {f"cache.{name}": tensor for name, tensor in caches.items()}
        return found | {"mask": self.mask.held, "rope.cos": self.cos, "rope.sin": self.sin}

    def _config(self, dtype: str) -> dict[str, Any]:
        """The effective configuration, read off the tensors and operators where there are any."""
        return {
            "model": self.model.name,
            "dtype": dtype,
            "device": self.device,
            "batch": self.batch,
            "cache_tokens": self.cache_tokens,
            "cache": ", ".join(f"{n} {shown(t)}" for n, t in self.caches[0].held().items()),
            "cache_bytes": self._bytes("cache."),
            "mask": shown(self.mask.held),
            "matrices": type(self.weights.layers[0].qkv).__name__,
            "weights_bytes": self._bytes("weights."),
            "attention": f"prompt {self._flash.__name__}, step {self._masked} over {self._read()}",
            "linear": self._linear(),
            "compiled": "prefill and decode" if self._is_compiled else "no",
            "threads": torch.get_num_threads(),
        }

    def _bytes(self, kind: str) -> int:
        return sum(held_bytes(t) for name, t in self.held().items() if name.startswith(kind))

    def _read(self) -> str:
        return "the whole cache" if self._is_compiled else f"its live part in blocks of {BLOCK}"

    def _linear(self) -> str:
        if self._scheme is not None:
            return str(self._scheme)
        return "row kernels in decode" if self._row_kernels else "default"

    # The protocol

    @torch.inference_mode()
    def prefill(self, token_ids: Sequence[Sequence[int]]) -> Step:
        """Forget all sequences, run these prompts [B, T], produce the first token of each."""
        return self.run_prompts(self._checked(token_ids))

    @torch.inference_mode()
    def run_prompts(self, tokens: Tensor) -> Step:
        """Tokens [B, T] on the device, T at most C."""
        time = tokens.shape[1]
        self.mask.start(time)
        return Step(*self._run_prompt(tokens), time)

    @torch.inference_mode()
    def decode(self, step: Step) -> Step:
        """One more token for every sequence. An older step may be given: it is decoded again."""
        position = step.position
        if position >= self.cache_tokens:
            raise ValueError(
                f"the cache holds {self.cache_tokens} tokens and is full: "
                "open the engine with more cache_tokens; it does not roll"
            )
        self.mask.rewind(position)
        place = torch.full((1,), position, dtype=torch.int64, device=self.device)
        with row_kernels(self._row_kernels):
            return Step(*self._run_step(step.tokens, place, self._span(position)), position + 1)

    def wait(self, step: Step) -> None:
        """Block until the device has finished this step."""
        if step.tokens.is_cuda:
            torch.cuda.synchronize(step.tokens.device)

    def close(self) -> None:
        """Give the memory back; the engine cannot be used any more."""
        if self._is_compiled:
            torch.compiler.reset()  # code of all compiled engines; few variants are kept at a time
        del self.weights, self.decoder, self.caches, self.mask, self._run_prompt, self._run_step
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def _checked(self, token_ids: Any) -> Tensor:
        ids = of_one_length(token_ids, self.batch, self.cache_tokens, self.model.vocab_size)
        return torch.from_numpy(ids).to(self.device)

    def _span(self, position: int) -> int:
        """Places that a step reads."""
        if self._is_compiled:
            return self.cache_tokens
        return min(self.cache_tokens, (position // BLOCK + 1) * BLOCK)

    # What runs, eager or compiled

    def prompt(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [B, T] -> the next token [B] and its scores [B, V]; fills the caches."""
        time = tokens.shape[1]
        rope = self.cos.narrow(0, 0, time), self.sin.narrow(0, 0, time)
        places = torch.arange(time, device=self.device)

        def seen(cache: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            cache.put(k, v, places)
            found: Tensor = self._flash(q, k, v, 0.0, True)[0]
            return found

        x = self.decoder.layers(tokens, rope, self.caches, seen)
        scores = self.decoder.scores(x.select(1, time - 1))
        return scores.argmax(-1), scores

    def step(self, tokens: Tensor, position: Tensor, span: int) -> tuple[Tensor, Tensor]:
        """Tokens [B] at position [1], reading `span` places -> tokens [B], scores [B, V]."""
        rope = self.cos.index_select(0, position), self.sin.index_select(0, position)
        bias = bias_of(self.mask.row(position).narrow(0, 0, span), self.dtype)

        def seen(cache: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            cache.put(k, v, position)
            return attend(self._masked, q, cache.tiles(span), bias)

        x = self.decoder.layers(tokens.unsqueeze(1), rope, self.caches, seen)
        scores = self.decoder.scores(x.squeeze(1))
        return scores.argmax(-1), scores


def held_bytes(tensor: Tensor) -> int:
    """Bytes of a tensor, or of what a subclass of torchao is made of."""
    if type(tensor) is not Tensor and hasattr(tensor, "__tensor_flatten__"):
        return sum(held_bytes(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    return tensor.numel() * tensor.element_size()


def shown(tensor: Tensor) -> str:
    """A tensor in words: "int8 [1, 8, 4096, 16]"."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
