"""How a server is measured: the document's load, and a few requests that do not wait.

A block is one load of all prompts at once, as JetStream's benchmark sends them, and then one user
who asks a few times: throughput and time per token come from the first, the time to the first token
from the second, where no request waits for another. No prompt is sent twice, not even in another
block, so that a server with a prefix cache has nothing to remember.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import SystemRandom
from typing import Any, Protocol

from perfsuite.adapters import Adapter
from perfsuite.errors import Void
from perfsuite.generation import Clock
from perfsuite.generation import Figures as Block
from perfsuite.serving.arrivals import Arrivals, ClosedLoop, at_once
from perfsuite.serving.client import Outcome, offer, run
from perfsuite.serving.datasets import LengthLimits, LogNormal, synthetic
from perfsuite.serving.figures import Figures, figures
from perfsuite.serving.request import Request
from perfsuite.workloads import Workload

_ALONE = 8  # requests of the one user: a median needs 7
_WARM = 4
_VOCAB = 256  # token ids that every model has
# Shares of the longest prompt and answer, near those of ShareGPT's turns within JetStream's limits.
_MEAN_INPUT, _MEAN_OUTPUT, _SIGMA = 0.25, 0.25, 0.8
_LOW_LOAD = "served_time_to_first_token/low_load_median"


class Endpoint(Protocol):
    """What an offer opens for a workload of the kind "serving"."""

    config: dict[str, Any]

    def adapter(self) -> Adapter:
        """A new one, not open; several may be asked for, one after the other."""

    def close(self) -> None:
        """Give the server up, where it was started for this."""


class ServingLoad:
    """The document's serving protocol on an endpoint."""

    def __init__(self, engine: Endpoint, workload: Workload, clock: Clock) -> None:
        self._endpoint, self._workload, self._clock = engine, workload, clock
        self._count = int(workload.option("num_prompts") or 1)
        self._rounds = 0
        self._told: dict[str, Any] = {}

    def warm_up(self) -> None:
        """A few other prompts; how late they are sent is no matter."""
        self._outcome(self._requests(_WARM), ClosedLoop(2))

    def block(self) -> Block:
        """The load, then the user who is alone."""
        loaded = self._answered(self._requests(self._count), at_once(self._count))
        alone = self._answered(self._requests(_ALONE), ClosedLoop(1))
        found = figures(loaded.records)
        self._told = _words(loaded, found)
        low = figures(alone.records, low_load=True).values
        return found.values | {name: low[name] for name in (_LOW_LOAD,) if name in low}

    def once(self) -> Callable[[], object]:
        """Nothing: a client's own memory says nothing of the server."""
        return lambda: None

    def finish(self) -> None:
        """Whatever broke the contract was told by the block in which it did."""

    def facts(self) -> dict[str, Any]:
        """The endpoint's configuration, the load, what was left out and why."""
        return {"config": dict(self._endpoint.config), "batch": self._count, **self._told}

    def _requests(self, count: int) -> Sequence[Request]:
        """Of other lengths in every round, the same rounds in every process."""
        self._rounds += 1
        longest_in, longest_out = self._workload.input_tokens, self._workload.output_tokens
        limits = LengthLimits(min(4, longest_in, longest_out), longest_in, longest_in + longest_out)
        drawn = synthetic(
            count,
            LogNormal(max(4.0, _MEAN_INPUT * longest_in), _SIGMA),
            LogNormal(max(4.0, _MEAN_OUTPUT * longest_out), _SIGMA),
            _VOCAB,
            seed=self._rounds,
            limits=limits,
        )
        return _own(drawn.requests)

    def _answered(self, requests: Sequence[Request], arrivals: Arrivals) -> Outcome:
        """Void where the client could not keep up, or nothing was answered."""
        outcome = self._outcome(requests, arrivals)
        if outcome.void:
            raise Void(outcome.void)
        failures = [record.failure for record in outcome.records]
        if all(failures):
            raise Void(f"none of {len(failures)} requests was answered; the first: {failures[0]}")
        return outcome

    def _outcome(self, requests: Sequence[Request], arrivals: Arrivals) -> Outcome:
        """Void where the server is gone."""
        outcome = run(_offered(self._endpoint.adapter(), requests, arrivals, self._clock))
        if outcome.ended:
            raise Void(outcome.ended)
        return outcome


def _own(requests: Sequence[Request]) -> list[Request]:
    """Lengths are drawn from a seed and are the same in every run; the token ids never are.

    So every process measures the same work, and none finds another's prompts in a cache.
    """
    draw = SystemRandom().choices
    return [
        replace(request, prompt=tuple(draw(range(_VOCAB), k=len(request.prompt))))
        for request in requests
    ]


async def _offered(
    adapter: Adapter, requests: Sequence[Request], arrivals: Arrivals, clock: Clock
) -> Outcome:
    await adapter.open()
    try:
        return await offer(adapter, requests, arrivals, clock)
    finally:
        await adapter.close()


def _words(outcome: Outcome, found: Figures) -> dict[str, Any]:
    """What a reader asks of the last load beside its figures."""
    told: dict[str, Any] = {"load": outcome.arrivals}
    if found.failures:
        told["failures"] = dict(found.failures)
    if found.other_length:
        told["other_length"] = found.other_length
    return told
