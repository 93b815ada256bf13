"""The worker processes of a run: started when first needed, asked one at a time, ended with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from perfsuite import boot
from perfsuite.errors import WorkerLost
from perfsuite.pipe import Pipe, PipeClosed, Silence
from perfsuite.sampling import Measured, take_blocks
from perfsuite.trees import Side
from perfsuite.worker import PIPE_VARIABLE

_LOG_LINES = 12
_FAREWELL_S = 10.0


@dataclass
class ItemRun:
    """What one process answered for one test."""

    measured: dict[str, Measured] = field(default_factory=dict)
    benchmark: dict[str, Any] | None = None
    void: str = ""
    reports: list[dict[str, Any]] = field(default_factory=list)
    origins: list[list[str]] = field(default_factory=list)  # [module, file] of the project's

    @property
    def failure(self) -> dict[str, Any] | None:
        """The first report that failed, or was expected to fail, which a gate can't accept."""
        return next((r for r in self.reports if r["outcome"] == "failed" or r["xfail"]), None)

    @property
    def skip(self) -> dict[str, Any] | None:
        """The report of a test that skipped itself."""
        return next((r for r in self.reports if r["outcome"] == "skipped" and not r["xfail"]), None)


def is_over(run: ItemRun) -> bool:
    """Whether this process ended otherwise than by measuring."""
    return bool(run.void or run.failure or run.skip)


@dataclass(frozen=True)
class Order:
    """One test to run in one process."""

    nodeid: str
    following: str | None  # the test after it, so that wider fixtures stay set up
    first: bool
    budget_s: float
    timeout_s: float
    slow: float | None = None  # share of its time by which what is measured is slowed, if it is


class Crew:
    """As many worker processes of one side as have been asked for; number 0 is the first."""

    def __init__(
        self,
        arguments: Callable[[int], Sequence[str]],
        folder: Path,
        side: Side | None = None,
        start: Callable[[Sequence[str], Path, Side | None], Any] | None = None,
    ) -> None:
        """`start` makes what answers as a `Worker` does, in its place: `gang.Gang`."""
        self._arguments, self._folder, self._side = arguments, folder, side
        self._start = start or Worker
        self._workers: dict[int, Any] = {}

    def prepare(self, numbers: Iterable[int], timeout_s: float) -> None:
        """Start these workers side by side; returns when all have collected.

        One that does not come up is told by `run`, which is where its test fails.
        """
        wanted = [self.worker(number) for number in numbers]
        for worker in wanted:
            with suppress(WorkerLost):
                worker.wait_until_ready(timeout_s)

    def worker(self, number: int) -> Any:
        """The worker of this number, started when it is first asked for."""
        if number not in self._workers:
            self._workers[number] = self._start(self._arguments(number), self._folder, self._side)
        return self._workers[number]

    def run(self, number: int, order: Order) -> ItemRun:
        """Run one test in one worker; WorkerLost when it dies or hangs, and a new one next time."""
        worker = self.worker(number)
        try:
            worker.wait_until_ready(order.timeout_s)
            run: ItemRun = worker.run(order)
            return run
        except BaseException:
            self.drop(number)
            raise

    def drop(self, number: int) -> None:
        """End one worker at once; the next time that it is asked for it is a new one."""
        worker = self._workers.pop(number, None)
        if worker is not None:
            worker.kill()

    def close(self) -> None:
        """Ask all to end, then make sure of it."""
        for worker in self._workers.values():
            worker.dismiss()
        deadline = time.monotonic() + _FAREWELL_S
        for worker in self._workers.values():
            worker.end(deadline)
        self._workers.clear()


class Worker:
    """One worker process and the pipe to it."""

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        side: Side | None = None,
        told: Mapping[str, str] | None = None,
    ) -> None:
        """`told` are variables that it gets beside this process's."""
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by kill()
        self._ready = False
        their_read, our_write = os.pipe()
        our_read, their_write = os.pipe()
        self._pipe = Pipe(our_read, our_write)
        fds = (their_read, their_write)
        environment = _environment() | {PIPE_VARIABLE: f"{their_read},{their_write}"}
        environment |= dict(told or {}) | {boot.VARIABLE: _start(side)}
        self._process = subprocess.Popen(
            [*_command(side), "-p", "perfsuite.worker", *arguments],
            cwd=folder, pass_fds=fds, start_new_session=True, env=environment,
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        for fd in fds:
            os.close(fd)

    def wait_until_ready(self, timeout_s: float) -> None:
        """Until it has collected the tests."""
        if not self._ready:
            self._hear(timeout_s, "collecting the tests")
            self._ready = True

    def run(self, order: Order) -> ItemRun:
        """One test, from its set-up to its tear-down."""
        run = self.begin(order)
        while (part := self.until_ready()) is not None:
            run.measured[part] = Measured(blocks=self._blocks(order))
        return run

    def begin(self, order: Order) -> ItemRun:
        """Start one test; what it answers is gathered in the value returned."""
        self._tell({
            "do": "run", "nodeid": order.nodeid, "next": order.following, "first": order.first,
            "slow": order.slow,
        })  # fmt: skip
        self._order, self.answered = order, ItemRun()
        return self.answered

    def until_ready(self) -> str | None:
        """Until the test asks for its next part to be measured; None when it has ended."""
        order, run = self._order, self.answered
        while True:
            answer = self._hear(order.timeout_s, "running the test")
            match answer.pop("say"):
                case "ready":
                    part: str = answer["part"]
                    return part
                case "measured":
                    call = run.measured.setdefault(answer["part"], Measured())
                    call.once, call.facts = answer["once"], answer["facts"]
                case "benchmark":
                    run.benchmark = answer
                case "void":
                    run.void = answer["reason"]
                case "missing":
                    raise NotCollected(self._missing(order, answer["items"]))
                case _:
                    run.reports, run.origins = answer["reports"], answer.get("origins", [])
                    return None

    def _blocks(self, order: Order) -> list[dict[str, float]]:
        taken: list[dict[str, float]] = []
        with suppress(BlockFailed):
            taken = take_blocks(self.block, order.budget_s, time.monotonic)
            self.stop()
        return taken

    def block(self) -> dict[str, float]:
        """One block of the part that is ready; BlockFailed when the test answers otherwise."""
        self._tell({"do": "block"})
        figures: dict[str, float] = self._hear_block(self._order)["figures"]
        return figures

    def stop(self) -> None:
        """No more blocks of this part."""
        self._tell({"do": "stop"})

    def pause(self) -> None:
        """Stop every thread of the process and its children until `resume`."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """Send this to the process and its children."""
        with suppress(ProcessLookupError):  # its death is told where its answer is awaited
            os.killpg(self._process.pid, number)

    def _hear_block(self, order: Order) -> dict[str, Any]:
        answer = self._hear(order.timeout_s, "measuring a block")
        if answer["say"] != "block":  # the engine raised: what it says belongs to the run
            self._pushed_back = answer
            raise BlockFailed
        return answer

    _pushed_back: dict[str, Any] | None = None

    def _hear(self, timeout_s: float, what: str) -> dict[str, Any]:
        if self._pushed_back is not None:
            answer, self._pushed_back = self._pushed_back, None
            return answer
        try:
            return self._pipe.receive(timeout_s)
        except Silence:
            raise WorkerLost(
                f"the worker said nothing for {timeout_s:g} s while {what} and was ended\n"
                "a slow engine needs a larger --perf-timeout; a hang needs a debugger:"
                " --perf-in-process"
            ) from None
        except PipeClosed:
            raise WorkerLost(f"the worker {self._death()} while {what}\n{self._tail()}") from None

    def _tell(self, message: dict[str, Any]) -> None:
        with suppress(PipeClosed):  # its death is told where its answer is awaited
            self._pipe.send(message)

    def _missing(self, order: Order, count: int) -> str:
        return (
            f"the worker collected {count} tests, {order.nodeid} not among them\n"
            f"tests must be collected equally in every process\n{self._tail()}"
        )

    def _death(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "closed its pipe"
        if code >= 0:
            return f"ended with exit status {code}"
        meaning = " (out of memory, most likely)" if code == -signal.SIGKILL else ""
        return f"was killed by {signal.Signals(-code).name}{meaning}"

    def _tail(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        if not lines:
            return "it printed nothing"
        return "\n".join(["its last output:", *lines[-_LOG_LINES:]])

    def dismiss(self) -> None:
        """Ask it to end."""
        self.resume()
        self._tell({"do": "quit"})

    def end(self, deadline: float) -> None:
        """Wait until the deadline, then kill."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=max(deadline - time.monotonic(), 0.01))
        self.kill()

    def kill(self) -> None:
        """End the process and its children; close what belongs to it."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._pipe.close()
        self._log.close()


def _command(side: Side | None) -> list[str]:
    """How a worker of this side starts; another Python may lack the entry point of perfsuite."""
    if side is None or side.interpreter is None:
        return [sys.executable, "-P", boot.__file__]
    return [str(side.interpreter), "-P", boot.__file__, "-p", "perfsuite.plugin"]


def _start(side: Side | None) -> str:
    """What its boot script is told; sys.path as it is now, whatever way this run was started."""
    path = [entry for entry in sys.path if isinstance(entry, str)]
    same_python = side is None or side.interpreter is None
    return boot.start(path, side.subject if side else None, same_python=same_python)


class BlockFailed(Exception):
    """A block ended in something else than figures: what, `until_ready` tells."""


class NotCollected(WorkerLost):
    """The worker does not have the test."""


# glibc moves its threshold for mapping memory with every large block that is freed, so that one
# process maps and zeroes every activation anew and the next one, with another past, does not: its
# prefill was seen 1.8 times as fast. These are the values that a long-running process reaches.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20)}


def _environment() -> dict[str, str]:
    """The environment without the marks of pytest-xdist, which would disable pytest-benchmark.

    Whoever sets the allocator's thresholds keeps them.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST")}
    return _ALLOCATOR | kept
