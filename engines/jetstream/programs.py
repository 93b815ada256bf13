"""The jitted programs of a plan: prefill, insert, generate; caches are donated, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from engines.jetstream import model as decoder
from engines.jetstream.cache import Cache, abstract_caches, inserted, visible, written
from engines.jetstream.plan import Plan
from engines.jetstream.sampling import choose
from engines.jetstream.weights import Weights

# Otherwise XLA brings some layers' rings into on-chip memory to write one place of them, and copies
# them back whole: up to 1.44 times the traffic of a step.
TPU_OPTIONS = {"xla_tpu_msa_inefficient_use_to_copy_ratio": "1.0"}


class Slots(NamedTuple):
    """What a batch of sequences is apart from its caches."""

    tokens: Any  # [B] int32, the newest of each sequence; its keys are not cached yet
    lengths: Any  # [B] int32, tokens that were cached, rolled ones included; 0: an empty slot
    position: Any  # [] int32, the place of the ring that the next step writes
    draw: Any  # [] int32, steps so far, which number the draws of sampling
    hidden: Any  # [B, E] behind the newest tokens: their logits, for who asks


class Prefix(NamedTuple):
    """A prompt that was run: its keys and values, padded to a bucket, and its first token."""

    caches: tuple[Cache, ...]  # [K, T, D], in the type of the activations
    token: Any  # [1] int32
    length: Any  # [] int32, without the padding
    hidden: Any  # [1, E] of the last token


@dataclass(frozen=True)
class Programs:
    """Each is compiled when it is first called with a shape."""

    plan: Plan

    @cached_property
    def prefill(self) -> Any:
        """(weights, tokens [T], length, draw) -> Prefix."""
        return jax.jit(self._prefill, out_shardings=self._prefix_places())

    @cached_property
    def insert(self) -> Any:
        """(caches, slots, prefix, slot) -> caches, slots; the old caches are gone."""
        places = self.cache_places(), self.slot_places()
        return jax.jit(self._insert, donate_argnums=0, out_shardings=places)

    @cached_property
    def generate(self) -> Any:
        """(weights, caches, slots) -> caches, slots; the old caches are gone."""
        places = self.cache_places(), self.slot_places()
        on_tpu = self.plan.sharding.platform == "tpu"
        return jax.jit(
            self._generate,
            donate_argnums=1,
            out_shardings=places,
            compiler_options=TPU_OPTIONS if on_tpu else None,
        )

    @cached_property
    def release(self) -> Any:
        """(slots, slot) -> slots with that one empty."""
        return jax.jit(_release, out_shardings=self.slot_places())

    @cached_property
    def scores(self) -> Any:
        """(weights, hidden [B, E]) -> logits [B, V]."""
        return jax.jit(self._scores)

    def cache_places(self) -> Any:
        """The shardings of all caches."""
        return jax.tree.map(lambda leaf: leaf.sharding, abstract_caches(self.plan))

    def slot_places(self) -> Slots:
        """The shardings of Slots."""
        return jax.tree.map(lambda leaf: leaf.sharding, abstract_slots(self.plan))

    def _prefix_places(self) -> Prefix:
        part, whole = self.plan.sharding.place("KTD"), self.plan.sharding.place("")
        return Prefix((Cache(part, part),) * self.plan.model.layers, whole, whole, whole)

    def _prefill(self, weights: Weights, tokens: Any, length: Any, draw: Any) -> Prefix:
        caches = []

        def attend(number: int, q: Any, k: Any, v: Any) -> Any:  # noqa: ARG001  (as in generate)
            caches.append(Cache(k[0].swapaxes(0, 1), v[0].swapaxes(0, 1)))
            return decoder.attend_prompt(q, k, v, self.plan.cache_tokens)

        # Padding beyond the longest sequence takes the last place: NaN would reach the prompt.
        places = jnp.minimum(jnp.arange(tokens.shape[0]), self.plan.tokens - 1)[None]
        x = decoder.hidden(self.plan, weights, tokens[None], places, attend)
        last = jax.lax.dynamic_slice_in_dim(x[0], length - 1, 1, axis=0)
        token = choose(self.plan.sampling, self._scores(weights, last), draw)
        return Prefix(tuple(caches), token, length, last)

    def _insert(self, caches: Any, slots: Slots, prefix: Prefix, slot: Any) -> Any:
        def placed(cache: Any, part: Any) -> Any:
            return inserted(cache, slot, part, prefix.length, slots.position)

        new = tuple(
            Cache(placed(cache.keys, part.keys), placed(cache.values, part.values))
            for cache, part in zip(caches, prefix.caches, strict=True)
        )
        return new, _changed(slots, slot, prefix.token, prefix.length[None], prefix.hidden)

    def _generate(self, weights: Weights, caches: Any, slots: Slots) -> Any:
        new, ring = [], self.plan.cache_tokens
        busy = slots.lengths > 0
        # An empty slot sees what it has just written, so that nothing is divided by zero.
        seen = visible(slots.position, slots.lengths + 1, ring)

        def attend(number: int, q: Any, k: Any, v: Any) -> Any:
            cache = caches[number]
            keys = written(cache.keys, slots.position, k[:, 0])
            values = written(cache.values, slots.position, v[:, 0])
            new.append(Cache(keys, values))
            return decoder.attend_ring(q, keys, values, seen)

        places = slots.lengths[:, None]
        x = decoder.hidden(self.plan, weights, slots.tokens[:, None], places, attend)[:, 0]
        chosen = choose(self.plan.sampling, self._scores(weights, x), slots.draw)
        after = Slots(
            tokens=jnp.where(busy, chosen, 0),
            lengths=jnp.where(busy, slots.lengths + 1, 0),
            position=(slots.position + 1) % ring,
            draw=slots.draw + 1,
            hidden=x,
        )
        return tuple(new), after

    def _scores(self, weights: Weights, x: Any) -> Any:
        return decoder.scores(self.plan.model, weights, x)


def abstract_slots(plan: Plan) -> Slots:
    """Without data."""
    of_slot, whole = plan.abstract("B", jnp.int32), plan.abstract("", jnp.int32)
    return Slots(of_slot, of_slot, whole, whole, plan.abstract("BE"))


def _release(slots: Slots, slot: Any) -> Slots:
    nobody = jnp.zeros(1, jnp.int32)
    return _changed(slots, slot, nobody, nobody, jnp.zeros_like(slots.hidden[:1]))


def _changed(slots: Slots, slot: Any, token: Any, length: Any, hidden: Any) -> Slots:
    """One slot's; a scatter would gather what is divided over the slots."""
    update = partial(jax.lax.dynamic_update_slice_in_dim, start_index=slot, axis=0)
    return slots._replace(
        tokens=update(slots.tokens, token),
        lengths=update(slots.lengths, length),
        hidden=update(slots.hidden, hidden),
    )
