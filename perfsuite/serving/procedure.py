"""How a server is measured: the document's load, and a few requests that do not wait.

A block is one load of all prompts, at once as JetStream's benchmark sends them or as the run was
told, and then one user who asks a few times: throughput and time per token come from the first, the
time to the first token from the second, where no request waits for another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from perfsuite.adapters import Adapter
from perfsuite.errors import EngineUnavailable, OptionError, Void
from perfsuite.generation import Clock
from perfsuite.generation import Figures as Block
from perfsuite.serving import clients
from perfsuite.serving.arrivals import Arrivals, ClosedLoop
from perfsuite.serving.client import Outcome, offer, run
from perfsuite.serving.demand import Demand
from perfsuite.serving.figures import Figures, figures
from perfsuite.serving.lateness import is_burst, sending_s
from perfsuite.serving.request import Request, duration_s
from perfsuite.serving.request_log import RequestLog
from perfsuite.workloads import Workload

_ALONE = 8  # requests of the one user: a median needs 7
_WARM = 4
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

    def __init__(
        self,
        engine: Endpoint,
        workload: Workload,
        clock: Clock,
        timeout_s: float | None = None,
    ) -> None:
        """timeout_s: a block that takes longer is given up by whoever asked for it."""
        self._endpoint, self._clock, self._timeout_s = engine, clock, timeout_s
        self._count = int(workload.option("num_prompts") or 1)
        self._demand = Demand(workload, _WARM + self._count + _ALONE)
        self._clients = int(workload.option("clients") or 0)
        folder = workload.option("requests_folder")
        with _void():
            self._log = RequestLog(Path(folder), workload.id) if folder else None
        self._blocks = 0
        self._told: dict[str, Any] = {}

    def warm_up(self) -> None:
        """A few other prompts; how late they are sent is no matter."""
        self._outcome(self._demand.requests(_WARM), ClosedLoop(2), "warm-up")

    def block(self) -> Block:
        """The load, then the user who is alone."""
        self._blocks += 1
        asked = self._demand.requests(self._count)
        arrivals = self._demand.arrivals(self._count)
        self._check_patience(arrivals)
        loaded = self._answered(asked, arrivals, "load", self._processes(asked, arrivals))
        alone = self._answered(self._demand.requests(_ALONE), ClosedLoop(1), "alone")
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
        told = {"config": dict(self._endpoint.config) | self._demand.config(), "batch": self._count}
        told |= self._told
        if notes := self._demand.notes():
            told["dataset_notes"] = notes
        if self._log is not None:
            told["requests_file"] = str(self._log.file)
            told |= {"requests_left_out": self._log.left_out} if self._log.left_out else {}
        return told

    def _check_patience(self, arrivals: Arrivals) -> None:
        """Void, before anything is sent, where the schedule alone outlasts the timeout."""
        last_s = 0.0 if isinstance(arrivals, ClosedLoop) else arrivals.times_s[self._count - 1]
        if self._timeout_s is not None and last_s >= self._timeout_s:
            raise Void(
                f"{arrivals.name}: the last of {self._count} requests is due after {last_s:.0f} s,"
                f" a block may take {self._timeout_s:g} s\n"
                "give a --perf-timeout that has room for its answer too, or a faster schedule"
            )

    def _processes(self, requests: Sequence[Request], arrivals: Arrivals) -> int:
        """As many as were asked for, or as the planned rate needs, where the adapter allows it."""
        if self._clients:
            return self._clients
        splits = hasattr(self._endpoint.adapter(), "elsewhere")
        return clients.needed(requests, arrivals) if splits else 1

    def _answered(
        self, requests: Sequence[Request], arrivals: Arrivals, part: str, processes: int = 1
    ) -> Outcome:
        """Void where the client could not keep up, or nothing was answered."""
        outcome = self._outcome(requests, arrivals, part, processes)
        if outcome.void:
            raise Void(outcome.void)
        failures = [record.failure for record in outcome.records]
        if all(failures):
            raise Void(f"none of {len(failures)} requests was answered; the first: {failures[0]}")
        return outcome

    def _outcome(
        self, requests: Sequence[Request], arrivals: Arrivals, part: str, processes: int = 1
    ) -> Outcome:
        """Void where the server is gone; whatever it gave is logged first."""
        adapter = self._endpoint.adapter()
        with _void():
            if processes > 1:
                outcome = clients.offered(adapter, requests, arrivals, processes)
            else:
                outcome = run(_offered(adapter, requests, arrivals, self._clock))
            if self._log is not None:
                self._log.add(self._blocks, part, outcome.records)
        if outcome.ended:
            raise Void(outcome.ended)
        return outcome


@contextmanager
def _void() -> Iterator[None]:
    """What is the user's to mend ends the measurement with its own words, without a traceback."""
    try:
        yield
    except (OptionError, EngineUnavailable) as problem:
        raise Void(str(problem)) from None


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
    told: dict[str, Any] = {"load": outcome.arrivals, "clients": outcome.clients}
    if is_burst(outcome.records):
        seconds = sending_s(outcome.records)
        share = seconds / duration_s(outcome.records)
        told["sending"] = f"took {1e3 * seconds:.0f} ms, {share:.0%} of the load"
    if found.failures:
        told["failures"] = dict(found.failures)
    if found.other_length:
        told["other_length"] = found.other_length
    return told
