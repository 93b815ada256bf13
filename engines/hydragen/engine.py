"""The engine that reads a shared prefix once for all its sequences, and trees of prefixes.

A level's keys and values are kept once, padded to its longest row; decoded tokens go to a cache of
the sequences' own.

Letters of the shapes: B sequences, b rows of a level, T time, H query heads, K key/value heads,
D head_dim, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engines import memory
from engines.hydragen.attention import Flash, Prefixes, attend_joined, attend_prefixes, combine
from engines.hydragen.tree import Rows, arrays, check_last, checked, padded
from engines.prompts import Ids, check_ids
from engines.torch_decoder import Decoder, rope_tables, row_kernels, write
from engines.torch_weights import Weights, fill


@dataclass
class Level:
    """The rows of a level in every layer."""

    layers: list[Prefixes]
    starts: tuple[int, ...]  # tokens before each row

    @property
    def ends(self) -> tuple[int, ...]:
        """Tokens up to the end of each row."""
        lengths = self.layers[0].lengths
        return tuple(start + length for start, length in zip(self.starts, lengths, strict=True))


@dataclass
class Own:
    """One layer's keys and values [B, K, C, D] of what was decoded."""

    keys: Tensor
    values: Tensor


@dataclass
class Step:
    """The newest token of every sequence; `decoded` of its own tokens are cached."""

    tokens: Tensor  # [B] int64
    scores: Tensor  # [B, V] in the engine's dtype
    decoded: int

    def logits(self) -> np.ndarray[Any, Any]:
        """[B, V] float32; waits for the device."""
        return self.scores.float().cpu().numpy()


class Hydragen:
    """prefill_shared or prefill_tree, then decode; a plain prefill is a tree of one level.

    shared_tokens: the longest way through a tree; own_tokens: decoded tokens of a sequence, the
    first one included, which the last step does not cache. share=False copies a shared prefix to
    every sequence, which then reads its own copy: what Hydragen is compared with. triton=True
    decodes by the Triton kernels, on a GPU as one CUDA graph a step (on_device.py). `joined` makes
    the sum over processes where each has a part of the model (tensor_parallel.py).
    """

    def __init__(
        self,
        model: Any,
        *,
        batch: int,
        shared_tokens: int,
        own_tokens: int,
        weights: Mapping[str, Any] | int | None,
        dtype: str = "bfloat16",
        device: str = "cpu",
        share: bool = True,
        triton: bool = False,
        joined: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        sizes = {"batch": batch, "shared_tokens": shared_tokens, "own_tokens": own_tokens}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"got {name} {size}, expected at least 1")
        self.model, self.batch, self.device, self._share = model, batch, device, share
        self.shared_tokens, self.own_tokens = shared_tokens, own_tokens
        self.dtype = getattr(torch, dtype)
        self.weights = Weights(model, self.dtype, device)
        if weights is not None:
            fill(self.weights, weights)
        self.decoder = Decoder(model, self.weights, joined)
        self.cos, self.sin = rope_tables(model, shared_tokens + own_tokens, self.dtype, device)
        self.attend = Flash(device, self.dtype)
        self.levels: list[Level] = []
        self._spare: list[Tensor] = []  # keys and values of the prompts before
        self.starts: tuple[int, ...] = (0,)  # tokens before a sequence's own, one where all equal
        self.own = self._own_caches()
        self._on_device = self._decode_on_device() if triton else None
        self.config = self._config(dtype)

    def _own_caches(self) -> list[Own]:
        shape = (self.batch, self.model.kv_heads, self.own_tokens, self.model.head_dim)
        return [Own(self._empty(shape), self._empty(shape)) for _ in range(self.model.layers)]

    def _empty(self, shape: tuple[int, ...]) -> Tensor:
        return torch.empty(shape, dtype=self.dtype, device=self.device)

    def _config(self, dtype: str) -> dict[str, Any]:
        return {
            "model": self.model.name,
            "dtype": dtype,
            "device": self.device,
            "batch": self.batch,
            "cache_tokens": self.own_tokens,
            "shared_tokens": self.shared_tokens,
            "attention": self._described(),
            "graphs": "decode" if self._on_device and self.device.startswith("cuda") else "none",
            "prefix": "read once for all sequences" if self._share else "copied to each sequence",
            "threads": torch.get_num_threads(),
        }

    def _described(self) -> str:
        suffix, by = ("Triton split-K", "by Triton ") if self._on_device else ("suffix", "")
        between = " over prefix, " if self._on_device else " over prefix and "
        return f"{self.attend}{between}{suffix}, combined {by}in float32"

    def _decode_on_device(self) -> Any:
        """Triton is imported where it is asked for; it was checked by whoever asks."""
        from engines.hydragen.on_device import DecodeOnDevice

        return DecodeOnDevice(self, graph=self.device.startswith("cuda"))

    # Prompts

    def prefill(self, token_ids: Rows) -> Step:
        """Forget all sequences, run these prompts, of any lengths above 0; nothing is shared."""
        return self.prefill_tree([token_ids])

    def prefill_shared(self, prefix_ids: Sequence[int], batch: int) -> Step:
        """Run one prompt once for all `batch` sequences."""
        self._take_batch(batch)
        step = self.prefill_tree([[prefix_ids]])
        if not self._share:
            self.levels = [_copied(level, batch) for level in self.levels]
        return step

    def answer(self, questions: Rows, new_tokens: int) -> np.ndarray[Any, Any]:
        """[questions, new_tokens] greedy, each question behind the prefix of `prefill_shared`."""
        steps = [self.ask(questions)]
        for _ in range(new_tokens - 1):
            steps.append(self.decode(steps[-1]))
        found: np.ndarray[Any, Any] = torch.stack([s.tokens for s in steps], 1).cpu().numpy()
        return found

    @torch.inference_mode()
    def ask(self, questions: Rows) -> Step:
        """Forget what was asked before, run a question for each sequence behind the prefix."""
        if len(questions) != self.batch or not self.levels:
            raise ValueError(
                f"got {len(questions)} questions for {self.batch} sequences behind "
                f"{len(self.levels)} prefixes: call prefill_shared for as many sequences first"
            )
        prefix, rows = self.levels[0], arrays(questions)
        way = max(prefix.ends) + max(len(row) for row in rows)
        check_last(rows, way, self.shared_tokens)
        check_ids(rows, self.model.vocab_size)
        self.forget(keep=1)
        return self._continued(rows)

    @torch.inference_mode()
    def prefill_tree(self, tree: Sequence[Rows]) -> Step:
        """Forget all sequences, run each row of each level once.

        Rows may be of different lengths and, above the last level, empty; ValueError otherwise.
        """
        room, vocabulary = self.shared_tokens, self.model.vocab_size
        *above, last = checked(tree, self.batch, vocabulary, room)
        self.forget()
        for rows in above:
            self._run(rows, is_last=False)
        return self._continued(last)

    def forget(self, keep: int = 0) -> None:
        """All levels but the first `keep`; levels of the same shapes get their memory."""
        gone = [prefixes for level in self.levels[keep:] for prefixes in level.layers]
        self._spare = [tensor for each in gone for tensor in (each.keys, each.values)]
        self.levels = self.levels[:keep]

    def _kept(self, new: Tensor) -> Tensor:
        """A copy of keys or values where those before lay, so that a recorded step finds it."""
        if not self._spare or self._spare[0].shape != new.shape:
            self._spare = []
            return new.contiguous()
        place = self._spare.pop(0)
        write(place, new)
        return place

    def lies(self) -> object:
        """Where and how long everything is that a decode step reads: what a record depends on."""
        levels = [prefixes for level in self.levels for prefixes in level.layers]
        places = [(p.keys.data_ptr(), p.values.data_ptr(), p.lengths) for p in levels]
        return places, self.starts, self.batch

    def hold(self, tokens: int) -> None:
        """One prefix of so many tokens for all sequences, unwritten: a program without data."""
        shape = (1, self.model.kv_heads, tokens, self.model.head_dim)
        prefixes = [
            Prefixes(self._empty(shape), self._empty(shape), (tokens,))
            for _ in range(self.model.layers)
        ]
        self.levels, self.starts = [Level(prefixes, (0,))], (tokens,)

    def _continued(self, rows: list[Ids]) -> Step:
        """The last level behind those that were run."""
        scores = self._run(rows, is_last=True)
        assert scores is not None  # the last level has tokens
        self._spare = []
        self.starts = _shortened(self._starts_of(self.batch))
        repeated = scores.repeat_interleave(self.batch // len(scores), 0)
        return Step(repeated.argmax(-1), repeated, 0)

    def _take_batch(self, batch: int) -> None:
        """Caches for another number of sequences, once the old ones are gone."""
        if batch == self.batch or batch < 1:
            return
        self.own, self.batch = [], 0  # stays so where the new ones do not fit
        values = batch * self.own_tokens * self.model.kv_values_per_token
        what = f"a batch of {batch} with {self.own_tokens} tokens each"
        memory.require(self.device, weights=0, cache=values * self.dtype.itemsize, what=what)
        self.batch = self.config["batch"] = batch
        self.own = self._own_caches()
        self._on_device = self._decode_on_device() if self._on_device else None

    def _run(self, rows: list[Ids], is_last: bool) -> Tensor | None:
        """One level, padded to its longest row: no token sees the padding behind it."""
        tokens = torch.from_numpy(padded(rows)).to(self.device)
        return self.run_level(tokens, tuple(len(row) for row in rows), is_last)

    @torch.inference_mode()
    def run_level(self, tokens: Tensor, lengths: tuple[int, ...], is_last: bool) -> Tensor | None:
        """Tokens [b, T] behind the levels that were run; scores [b, V] of the last ones' ends."""
        count, time = tokens.shape
        level = Level([], self._starts_of(count))

        def attend(above: list[Prefixes], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            level.layers.append(Prefixes(self._kept(k), self._kept(v), lengths))
            parts = [attend_prefixes(self.attend, q, prefixes) for prefixes in above]
            return combine([*parts, self.attend(q, k, v, causal=True)])

        if time == 0:
            nothing = self._empty((count, self.model.kv_heads, 0, self.model.head_dim))
            level.layers = [Prefixes(nothing, nothing, lengths)] * self.model.layers
            self.levels.append(level)
            return None
        rope = self._rope(_shortened(level.starts), time)
        x = self.decoder.layers(tokens, rope, self._above(), attend)
        self.levels.append(level)
        return self.decoder.scores(_last(x, lengths)) if is_last else None

    def _above(self) -> list[list[Prefixes]]:
        """By layer, the prefixes of all levels that were run; those without a token see nothing."""
        levels = [level for level in self.levels if max(level.layers[0].lengths)]
        return [[level.layers[n] for level in levels] for n in range(self.model.layers)]

    def _starts_of(self, count: int) -> tuple[int, ...]:
        """Tokens before each of `count` rows behind the levels that were run."""
        if not self.levels:
            return (0,) * count
        ends = self.levels[-1].ends
        each = count // len(ends)
        return tuple(end for end in ends for _ in range(each))

    def _rope(self, starts: tuple[int, ...], time: int) -> tuple[Tensor, Tensor]:
        """Both cos and sin of `time` places from each start on, or from one for all rows."""
        if len(starts) == 1:
            return self.cos.narrow(0, starts[0], time), self.sin.narrow(0, starts[0], time)
        # the padding of a short row behind a long way may lie beyond the tables
        first = torch.tensor(starts, device=self.device).unsqueeze(1)
        places = (first + torch.arange(time, device=self.device)).clamp_(max=len(self.cos) - 1)
        shape = (*places.shape, 1, self.cos.shape[2])
        return tuple(  # type: ignore[return-value]
            table.index_select(0, places.flatten()).view(shape) for table in (self.cos, self.sin)
        )

    # Decode

    @torch.inference_mode()
    def decode(self, step: Step) -> Step:
        """One more token for every sequence. An older step may be given: it is decoded again."""
        if step.decoded >= self.own_tokens:
            raise ValueError(
                f"the cache holds {self.own_tokens} tokens of a sequence's own and is full: "
                "open the engine with more own_tokens"
            )
        with row_kernels(self.device == "cpu" and self.batch == 1 and self.dtype == torch.bfloat16):
            return self._decode(step)

    def _decode(self, step: Step) -> Step:
        place = step.decoded
        if self._on_device:
            return Step(*self._on_device(step.tokens, place), place + 1)
        starts = tuple(start + place for start in self.starts)

        def attend(cache: tuple[list[Prefixes], Own], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            above, own = cache
            write(own.keys.narrow(2, place, 1), k)
            write(own.values.narrow(2, place, 1), v)
            live = own.keys.narrow(2, 0, place + 1), own.values.narrow(2, 0, place + 1)
            parts = [attend_prefixes(self.attend, q, prefixes) for prefixes in above]
            return combine([*parts, attend_joined(self.attend, q, *live)])

        rope = self._rope(starts, 1)
        x = self.decoder.layers(step.tokens.unsqueeze(1), rope, self.caches(), attend)
        scores = self.decoder.scores(x.squeeze(1))
        return Step(scores.argmax(-1), scores, place + 1)

    def caches(self) -> list[tuple[list[Prefixes], Own]]:
        """By layer, what a decode step attends to."""
        return list(zip(self._above(), self.own, strict=True))

    def wait(self, step: Step) -> None:
        """Block until the device has finished this step."""
        if step.tokens.is_cuda:
            torch.cuda.synchronize(step.tokens.device)

    def close(self) -> None:
        """Give the memory back; the engine cannot be used any more."""
        del self.weights, self.decoder, self.levels, self.own, self._on_device, self._spare
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()


def _copied(level: Level, batch: int) -> Level:
    """The one row of a level, once for each of the batch's sequences."""
    layers = [
        Prefixes(
            prefixes.keys.repeat(batch, 1, 1, 1),
            prefixes.values.repeat(batch, 1, 1, 1),
            prefixes.lengths * batch,
        )
        for prefixes in level.layers
    ]
    return Level(layers, level.starts * batch)


def _shortened(starts: tuple[int, ...]) -> tuple[int, ...]:
    """One start for all rows where they are equal."""
    return starts[:1] if len(set(starts)) == 1 else starts


def _last(x: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """[b, T, E] -> [b, E] at the end of each row."""
    if len(set(lengths)) == 1:
        return x.select(1, lengths[0] - 1)
    ends = torch.tensor(lengths, device=x.device) - 1
    return x.gather(1, ends.view(-1, 1, 1).expand(-1, 1, x.shape[2])).squeeze(1)
