"""Messages between the pytest process and a worker: one JSON object a line, built-in types only."""

from __future__ import annotations

import json
import os
import select
import time
from typing import Any

_LARGEST_LINE = 256 * 2**20


class PipeClosed(Exception):
    """The other process is gone."""


class Silence(Exception):
    """Nothing arrived in the time allowed."""


class Pipe:
    """Two file descriptors of which this side reads one and writes the other."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd, self._write_fd = read_fd, write_fd
        self._pending = b""

    def send(self, message: dict[str, Any]) -> None:
        """Write one message whole; PipeClosed when nobody reads."""
        data = memoryview(json.dumps(message).encode() + b"\n")
        try:
            while data:
                data = data[os.write(self._write_fd, data) :]
        except OSError:
            raise PipeClosed from None

    def receive(self, timeout_s: float | None = None) -> dict[str, Any]:
        """The next message; Silence after `timeout_s`, PipeClosed at the end."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while b"\n" not in self._pending:
            if deadline is not None and not self._readable(deadline - time.monotonic()):
                raise Silence
            self._pending += self._read()
        line, _, self._pending = self._pending.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def close(self) -> None:
        """Close both ends that this process holds."""
        for fd in (self._read_fd, self._write_fd):
            os.close(fd)

    def _readable(self, seconds: float) -> bool:
        poll = select.poll()  # select() refuses descriptors above 1023
        poll.register(self._read_fd, select.POLLIN)
        return bool(poll.poll(max(seconds, 0) * 1000))

    def _read(self) -> bytes:
        try:
            data = os.read(self._read_fd, 1 << 16)
        except OSError:
            raise PipeClosed from None
        if not data or len(self._pending) > _LARGEST_LINE:
            raise PipeClosed
        return data
