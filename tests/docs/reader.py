"""A reader who types a page: its blocks, one after the other, in a project of their own.

Every number and every unit behind it may differ. A busy machine must change no verdict, which is
why limits are fifteenfold, and losses on pages fiftyfold. What the page shows of an output has to
stand there line for line; `...` on a line of its own stands for lines that are left out, within a
line for a part of it, and lines before the first and after the last need not be shown.

Two readers on one machine would fight for the port that a page names: each takes a free one of its
own in its place, in files, commands and what they print.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.docs.pages import Block, Command

# The defaults would take half a minute a command, and fail where another process works beside it.
_QUICK = """
[pytest]
addopts = -p calm
perf_budget = 0.2
perf_processes = 1
perf_drift = 20%
perf_sessions = 2
perf_limits =
    time:1400%
    throughput:1400%
"""

# A shared machine is always disturbed a little, its clients are late: such runs are not saved.
_CALM = """
import perfsuite.environment
perfsuite.environment.OTHERS_LIMIT = perfsuite.environment.STEAL_LIMIT = 100.0
perfsuite.environment.PACE_LIMIT = perfsuite.environment.FREQUENCY_LIMIT = 100.0
import perfsuite.serving.lateness
perfsuite.serving.lateness.LATE_FLOOR_S = perfsuite.serving.lateness.BUSY_SHARE = 100.0
"""
_SECONDS = 600  # for a command; none takes a minute, on a machine that has nothing else to do
_PORT = "8137"  # that pages name
# What is started in the background ends with this process, also where that is killed: then the
# kernel closes the pipe from which a shell in the background's process group reads.
_BACKGROUND = """\
exec 3<&0 </dev/null
(read -r _ <&3; kill -KILL 0) &
exec 3<&-
"""
_UNIT = r"[kMGT]?(?:ns|us|ms|s|B|iB|B/s|op|op/s|tok/s|req/s)\b"
_VARIES = (
    (re.compile(r"(cpu|cuda)-[\w.-]+(?=/|\.calibration)"), r"\1-CLASS"),
    (re.compile(rf"(?<![\w#])\d+(?:[.,:]\d+)*(?: ?%| {_UNIT})?"), "#"),
    (re.compile(r"(?<=[\dx#])x?\d+\b"), "#"),
    (re.compile(", noise reaches #"), ""),  # which needs sessions that differ
    (re.compile(r"[=_-]{3,}"), "---"),
    (re.compile(r"\s+"), " "),
)


class Reader:
    """Types the blocks of one page into a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "project"
        tools = folder / "tools"
        locks = folder / "locks"  # the pytest process that runs these tests may hold the machine's
        for made in (self.folder, tools, locks):
            made.mkdir()
        (self.folder / "pytest.ini").write_text(_QUICK)
        (tools / "calm.py").write_text(_CALM)
        self._environment = _environment(tools, locks)
        self._port = _free_port()
        self.running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.running:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def read(self, block: Block) -> None:
        """Do what a block says; AssertionError where it does not hold."""
        if block.title:
            self._write(block)
        elif block.is_python:
            self._run(block, [sys.executable, "-c", block.text], 0)
        elif block.in_background:
            self._start(block)
        else:
            for number, command in enumerate(block.commands, 1):
                last = number == len(block.commands)
                self._type(block, command, block.status if last else 0)

    def _write(self, block: Block) -> None:
        file = self.folder / block.title
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(self._ported(block.text))

    def _type(self, block: Block, command: Command, status: int) -> None:
        printed = self._run(block, ["bash", "-c", self._ported(command.line)], status)
        missing = first_missing(command.output, printed)
        assert missing is None, (
            f"{block.place}: {command.line}\nthe page shows: {missing}\nprinted was:\n{printed}"
        )

    def _start(self, block: Block) -> None:
        (command,) = block.commands
        log = self.folder.parent / f"background{len(self.running)}"
        with log.open("w") as output:
            process = subprocess.Popen(
                ["bash", "-c", _BACKGROUND + self._ported(command.line)],
                cwd=self.folder, env=self._environment,
                stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        self.running.append(process)
        end = time.monotonic() + _SECONDS
        while first_missing(command.output, log.read_text()) is not None:
            assert process.poll() is None, f"{block.place}: ended\n{log.read_text()}"
            assert time.monotonic() < end, f"{block.place}: never said it\n{log.read_text()}"
            time.sleep(0.1)

    def _ported(self, text: str) -> str:
        return text.replace(_PORT, str(self._port))

    def _run(self, block: Block, arguments: list[str], status: int) -> str:
        try:
            done = subprocess.run(
                arguments, cwd=self.folder, env=self._environment, timeout=_SECONDS, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired as slow:
            said = (slow.output or b"").decode(errors="replace")
            raise AssertionError(
                f"{block.place}: {arguments[-1]}\nhad not ended after {_SECONDS} s:\n{said}"
            ) from None
        assert done.returncode == status, (
            f"{block.place}: {arguments[-1]}\nended with {done.returncode}, not {status}:\n"
            f"{done.stdout}"
        )
        return done.stdout


def _free_port() -> int:
    """A port that nobody has; another may take it until it is used, which is seldom."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def first_missing(shown: str, printed: str) -> str | None:
    """The first line of `shown` that is not in `printed` at its place; None where all are."""
    lines = [_plain(line) for line in printed.splitlines()]
    start, gap = 0, True
    for text in shown.strip("\n").splitlines():
        if text.strip() == "...":
            gap = True
            continue
        pattern = _pattern(text)
        places = range(start, len(lines)) if gap else range(start, min(start + 1, len(lines)))
        found = next((place for place in places if pattern.fullmatch(lines[place])), None)
        if found is None:
            return text
        start, gap = found + 1, False
    return None


def _plain(line: str) -> str:
    for varies, put in _VARIES:
        line = varies.sub(put, line)
    return line.strip()


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(_plain(part)) for part in text.split("...")))


def _environment(tools: Path, locks: Path) -> Mapping[str, str]:
    """The environment of this process without pytest's; its Python's commands come first."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST", "COV", "TOX")) and name != "NO_COLOR"
    }
    commands = Path(sys.executable).parent
    return kept | {
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(tools),
        "TMPDIR": str(locks),
        "PYTHONUNBUFFERED": "1",
        "COLUMNS": "100",
    }
