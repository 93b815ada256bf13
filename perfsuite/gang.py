"""The workers of one process number, one for each rank, that answer as one worker does.

All get the same order, and a block is asked of all at once, so ranks whose collectives wait for
each other always do the same thing. One that dies or fails leaves the others waiting in a
collective: they are ended after a few seconds, and the test is told what happened to that one.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from perfsuite.crew import BlockFailed, ItemRun, Order, Worker, is_over
from perfsuite.devices import Device
from perfsuite.errors import WorkerLost
from perfsuite.ranks import COUNT_VARIABLE, together, worst
from perfsuite.sampling import Block, Measured, take_blocks
from perfsuite.trees import Side

_GRACE_S = 5.0  # for the other ranks, once one has failed
_LOOPBACK = "lo"
Answer = TypeVar("Answer")


class _Ended(Exception):
    """A rank's test ended otherwise than by measuring."""


class Gang:
    """As a `Worker`, with `count` processes; their figures are those of the slowest."""

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        side: Side | None = None,
        *,
        count: int,
        device: Device,
    ) -> None:
        self._arguments, self._folder, self._side = arguments, folder, side
        self._count, self._device = count, device
        self._pool = ThreadPoolExecutor(count)
        self._members = self._start()

    def _start(self) -> list[Worker]:
        meeting = _meeting(self._count)
        return [
            Worker(
                on_device(self._arguments, self._device, rank),
                self._folder,
                self._side,
                meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank in range(self._count)
        ]

    def wait_until_ready(self, timeout_s: float) -> None:
        """Until every rank has collected the tests; those that a failure ended are new ones."""
        self._members = self._members or self._start()
        self._ask(lambda member: member.wait_until_ready(timeout_s))

    def run(self, order: Order) -> ItemRun:
        """One test in all ranks; WorkerLost, naming the rank, when one dies or hangs."""
        runs = [member.begin(order) for member in self._members]
        try:
            while (part := self._next_part()) is not None:
                taken = self._blocks(order)
                for run in runs:
                    run.measured[part] = Measured(blocks=taken)
        except _Ended as ended:
            self.kill()  # whatever the others were doing, they did not get to its end
            return _named(runs, ended.args[0])
        return _merged(runs)

    def _next_part(self) -> str | None:
        def part_of(member: Worker) -> str | None:
            part = member.until_ready()
            if part is None and is_over(member.answered):
                raise _Ended(self._members.index(member))
            return part

        parts = self._ask(part_of)
        if len(set(parts)) > 1:
            told = ", ".join(f"rank {rank} {part!r}" for rank, part in enumerate(parts))
            raise WorkerLost(f"the ranks measure different things: {told}")
        return parts[0]

    def _blocks(self, order: Order) -> list[Block]:
        taken: list[Block] = []
        with suppress(BlockFailed):
            taken = take_blocks(self._block, order.budget_s, time.monotonic)
            for member in self._members:
                member.stop()
        return taken

    def _block(self) -> Block:
        return worst(self._ask(Worker.block))

    def _ask(self, call: Callable[[Worker], Answer]) -> list[Answer]:
        """The answer of every rank; the first cause where one has none."""
        futures = [self._pool.submit(call, member) for member in self._members]
        wait(futures, return_when=FIRST_EXCEPTION)
        failed = [future for future in futures if future.done() and future.exception()]
        if failed:
            wait(futures, timeout=_GRACE_S)
            self._end_late(futures)
            self._raise_cause(futures, failed)
        return [future.result() for future in futures]

    def _end_late(self, futures: Sequence[Future[Answer]]) -> None:
        """The ranks that still wait, most likely for the one that failed."""
        for member, future in zip(self._members, futures, strict=True):
            if not future.done():
                member.signal(signal.SIGKILL)
        wait(futures)

    def _raise_cause(
        self, futures: Sequence[Future[Answer]], failed: Sequence[Future[Answer]]
    ) -> None:
        """A death rather than what it led to; of equal ones the first that was seen."""
        lost = [f for f in failed if isinstance(f.exception(), WorkerLost)]
        cause = (lost or failed)[0]
        problem = cause.exception()
        if isinstance(problem, WorkerLost):
            raise type(problem)(f"rank {futures.index(cause)}: {problem}") from None
        assert problem is not None  # it failed
        raise problem

    def dismiss(self) -> None:
        """Ask all to end."""
        for member in self._members:
            member.dismiss()

    def end(self, deadline: float) -> None:
        """Wait until the deadline, then kill."""
        for member in self._members:
            member.end(deadline)
        self._pool.shutdown()

    def kill(self) -> None:
        """End all processes and their children."""
        for member in self._members:
            member.kill()
        self._members = []


def on_device(arguments: Sequence[str], device: Device, rank: int) -> list[str]:
    """A worker's command line on its own GPU, counted from the one that was asked for."""
    given = list(arguments)
    if device.kind != "cuda":
        return given
    at = given.index("--") if "--" in given else len(given)
    return [*given[:at], f"--perf-device=cuda:{device.index + rank}", *given[at:]]


def _meeting(count: int) -> dict[str, str]:
    """Where and how many they are, in the words of torch.distributed's `env://`.

    A free port for each gang: their processes live beside each other. Gloo asks for a machine's
    own name, which need not resolve; all ranks are on this machine.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    meeting = {
        COUNT_VARIABLE: str(count),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "False",  # rank 0 of the gang keeps the store
    }
    has_loopback = any(name == _LOOPBACK for _, name in socket.if_nameindex())
    if has_loopback and "GLOO_SOCKET_IFNAME" not in os.environ:
        meeting["GLOO_SOCKET_IFNAME"] = _LOOPBACK
    return meeting


def _merged(runs: Sequence[ItemRun]) -> ItemRun:
    """Rank 0's, with what all ranks measured once and told of themselves."""
    first = runs[0]
    for part, measured in first.measured.items():
        others = [run.measured[part] for run in runs]
        measured.once = worst([one.once for one in others])
        measured.facts = together([one.facts for one in others])
    return first


def _named(runs: Sequence[ItemRun], rank: int) -> ItemRun:
    """What the rank answered that failed, saying which one it was."""
    run = runs[rank]
    if run.void:
        run.void = f"rank {rank}: {run.void}"
    for report in run.reports:
        if report["outcome"] == "failed":
            report["text"] = f"rank {rank}: {report['text']}"
    return run
