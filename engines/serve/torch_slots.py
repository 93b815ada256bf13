"""Slots on the torch decoder: a cache of each slot's own, a place in it for each slot.

Prompts that start together run as one row, so that short ones share the reading of the weights;
each attends to itself alone. A step runs the slots up to the last busy one, over the cache up to
the longest sequence, under a mask of what each slot has. The row and the slots are padded to few
sizes: oneDNN makes code for each size of a bfloat16 matrix, 10 ms and some megabytes every time.

With a prefix, the sequences that begin with it read its keys and values where they lie, once for
all of them (Hydragen), and hold their own tokens behind it; the others are as without.

Letters of the shapes: N sequences, T tokens, H query heads, K key/value heads, D head_dim,
P tokens of the prefix, S tokens of the longest sequence's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engines.hydragen.attention import (
    Flash,
    Part,
    Prefixes,
    attend_joined,
    attend_prefixes,
    combine,
)
from engines.torch_decoder import Decoder, flash_operator, rope_tables, row_kernels, write
from engines.torch_weights import Weights, fill

Cache = tuple[Tensor, Tensor]  # keys and values of a layer


@dataclass
class Seat:
    """One slot."""

    busy: bool = False
    token: int = 0  # the newest, not cached yet
    own: int = 0  # tokens in the slot's cache
    shares: bool = False  # whether they come behind the prefix


def padded_tokens(count: int) -> int:
    """A power of two from 8 to 64, then a multiple of 64."""
    return max(8, 1 << (count - 1).bit_length()) if count <= 64 else -(-count // 64) * 64


def padded_rows(count: int) -> int:
    """One alone, or a multiple of 8."""
    return 1 if count == 1 else -(-count // 8) * 8


class TorchSlots:
    """A SlotEngine; greedy, on one CPU. `tokens` is the longest sequence, the prefix included."""

    def __init__(
        self,
        model: Any,
        *,
        slots: int,
        tokens: int,
        weights: Mapping[str, Any] | int,
        dtype: str = "bfloat16",
        prefix: Sequence[int] = (),
    ) -> None:
        self.model, self.slots, self.tokens = model, slots, tokens
        self.dtype = getattr(torch, dtype)
        self.weights = Weights(model, self.dtype, "cpu")
        fill(self.weights, weights)
        self.decoder = Decoder(model, self.weights)
        self.cos, self.sin = rope_tables(model, tokens, self.dtype, "cpu")
        self._flash = Flash("cpu", self.dtype)
        shape = (slots, model.kv_heads, tokens, model.head_dim)
        # A mask multiplies unwritten values by zero, and zero times NaN is NaN.
        self._caches: list[Cache] = [
            (torch.zeros(shape, dtype=self.dtype), torch.zeros(shape, dtype=self.dtype))
            for _ in range(model.layers)
        ]
        self.seats = [Seat() for _ in range(slots)]
        self.scores = torch.empty(0)  # [slots or fewer, V] of the last start or step, for tests
        self.prefix = tuple(prefix)
        self._prefixes: list[Prefixes] = []
        if prefix:
            self._prefixes = self._run_prefix(prefix)
        self.config = self._config(dtype)

    def _config(self, dtype: str) -> dict[str, Any]:
        attention = f"{self._flash}, a step over the cache up to the longest sequence with a mask"
        return {
            "model": self.model.name,
            "dtype": dtype,
            "device": "cpu",
            "batch": self.slots,
            "cache_tokens": self.tokens,
            "attention": attention,
            "prefix": f"{len(self.prefix)} tokens, read once" if self.prefix else "none",
            "prefill": "prompts that start together run as one row",
            "sampling": "greedy",
            "threads": torch.get_num_threads(),
        }

    # As SlotEngine says

    def cached(self, prompt: Sequence[int]) -> int:
        """The prefix, where the prompt goes on behind it."""
        count = len(self.prefix)
        begins = 0 < count < len(prompt) and tuple(prompt[:count]) == self.prefix
        return count if begins else 0

    @torch.inference_mode()
    def start(self, prompts: Mapping[int, Sequence[int]]) -> Mapping[int, int]:
        """Run these prompts in these empty slots; the first token of each."""
        owns = {}
        for slot, prompt in prompts.items():
            cached = self.cached(prompt)
            owns[slot] = list(prompt)[cached:]
            self.seats[slot] = Seat(True, 0, len(owns[slot]), cached > 0)
        self.scores = self._prompts(owns)
        tokens = self.scores.argmax(-1).tolist()
        for slot, token in zip(owns, tokens, strict=True):
            self.seats[slot].token = token
        return dict(zip(owns, tokens, strict=True))

    @torch.inference_mode()
    def step(self) -> Sequence[int]:
        """One more token for every busy slot, 0 for the others."""
        last = max(slot for slot, seat in enumerate(self.seats) if seat.busy)
        rows = min(padded_rows(last + 1), self.slots)
        seats = self.seats[:rows]
        with row_kernels(rows == 1 and self.dtype == torch.bfloat16):
            self.scores = self._decoded(seats)
        tokens = self.scores.argmax(-1).tolist()
        for seat, token in zip(seats, tokens, strict=True):
            if seat.busy:
                seat.token, seat.own = token, seat.own + 1
        return [seat.token for seat in self.seats]

    def end(self, slot: int) -> None:
        """The slot is empty; the other sequences go on."""
        self.seats[slot] = Seat()

    def warm_up(self) -> None:
        """One sequence, so that torch has its threads and its memory."""
        self.start({0: [0]})
        self.step()
        self.end(0)

    def close(self) -> None:
        """Give the memory back."""
        del self.weights, self.decoder, self._caches, self._prefixes

    # Prompts

    def _offset(self, seat: Seat) -> int:
        return len(self.prefix) if seat.shares else 0

    @torch.inference_mode()
    def _run_prefix(self, prefix: Sequence[int]) -> list[Prefixes]:
        found = []

        def attend(_: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            found.append(Prefixes(k.contiguous(), v.contiguous(), (len(prefix),)))
            return self._flash(q, k, v, causal=True).out

        rope = self.cos.narrow(0, 0, len(prefix)), self.sin.narrow(0, 0, len(prefix))
        nothing = [None] * self.model.layers
        self.decoder.layers(torch.tensor([list(prefix)]), rope, nothing, attend)
        return found

    def _prompts(self, owns: Mapping[int, list[int]]) -> Tensor:
        """Slots' own tokens -> scores [N, V] behind each; all of them are one row."""
        places = [self._offset(self.seats[slot]) + n
                  for slot, own in owns.items() for n in range(len(own))]  # fmt: skip
        row = [token for own in owns.values() for token in own]
        padding = [0] * (padded_tokens(len(row)) - len(row))
        ends = torch.tensor([len(own) for own in owns.values()]).cumsum(0) - 1

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            seen, first = [], 0
            for slot, own in owns.items():
                mine = [x.narrow(2, first, len(own)) for x in (q, k, v)]
                seen.append(self._attend_prompt(layer, slot, *mine))
                first += len(own)
            nothing = q.new_zeros(*q.shape[:2], len(padding), q.shape[3])
            return torch.cat([*seen, nothing], 2)

        tokens, rope = torch.tensor([row + padding]), self._rope(places + padding)
        x = self.decoder.layers(tokens, rope, range(self.model.layers), attend)
        return self.decoder.scores(x.select(0, 0).index_select(0, ends))

    def _attend_prompt(self, layer: int, slot: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """One prompt's own tokens, q [1, H, T, D]; they are written to the slot's cache."""
        for whole, new in zip(self._caches[layer], (k, v), strict=True):
            write(whole.narrow(0, slot, 1).narrow(2, 0, new.shape[2]), new)
        parts = [self._flash(q, k, v, causal=True)]
        if self.seats[slot].shares:
            parts.append(attend_prefixes(self._flash, q, self._prefixes[layer]))
        return combine(parts)

    def _rope(self, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        index = torch.tensor(places)
        return self.cos.index_select(0, index), self.sin.index_select(0, index)

    # A step

    def _decoded(self, seats: list[Seat]) -> Tensor:
        """Scores [N, V] of the slots from 0 on; an empty one sees the place that it writes."""
        rows = len(seats)
        own = torch.tensor([seat.own for seat in seats])
        longest = int(own.max()) + 1
        mask, places = self._mask(own, longest), self._places(own)
        shares = torch.tensor([seat.shares for seat in seats])

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = self._caches[layer]
            for cache, new in ((keys, k), (values, v)):
                flat = cache.view(-1, cache.shape[3])
                flat.index_copy_(0, places, new.reshape(-1, new.shape[3]))
            live_keys = keys.narrow(0, 0, rows).narrow(2, 0, longest)
            live_values = values.narrow(0, 0, rows).narrow(2, 0, longest)
            part = self._attend_own(q, live_keys, live_values, mask)
            return self._joined(layer, q, part, shares)

        tokens = torch.tensor([[seat.token] for seat in seats])
        cos, sin = self._rope([self._offset(seat) + seat.own for seat in seats])
        rope = cos.unsqueeze(1), sin.unsqueeze(1)
        x = self.decoder.layers(tokens, rope, range(self.model.layers), attend)
        return self.decoder.scores(x.squeeze(1))

    def _places(self, own: Tensor) -> Tensor:
        """[N * K]: where the newest tokens go in a cache that is looked at as rows of D."""
        heads = torch.arange(len(own) * self.model.kv_heads)
        return heads * self.tokens + own.repeat_interleave(self.model.kv_heads)

    def _mask(self, own: Tensor, longest: int) -> Tensor:
        """[N, 1, 1, S]: 0 where a slot has a token, the newest included, else minus infinity."""
        hidden = torch.arange(longest) > own.unsqueeze(1)
        mask = torch.zeros(hidden.shape, dtype=self.dtype).masked_fill_(hidden, -torch.inf)
        return mask.view(len(own), 1, 1, longest)

    def _attend_own(self, q: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Part:
        """One query q [N, H, 1, D] of each slot; those of a key/value head as one matrix."""
        rows, heads, _, dim = q.shape
        grouped = q.reshape(rows, keys.shape[1], -1, dim)
        seen, lse = flash_operator("cpu")(grouped, keys, values, 0.0, False, attn_mask=mask)[:2]
        return Part(seen.reshape(q.shape), lse.reshape(rows, heads, 1))

    def _joined(self, layer: int, q: Tensor, own: Part, shares: Tensor) -> Tensor:
        """What the slots saw of their own and, where they share it, of the prefix."""
        if not shares.any():
            return own.out
        seen = attend_joined(self._flash, q, *self._prefixes[layer].live(0))
        kept = seen.lse.masked_fill(~shares.view(-1, 1, 1), -torch.inf)
        return combine([own, Part(seen.out, kept)])
