"""Bytes of a `text/event-stream` to the data of its events, however they were cut. Pure.

By the WHATWG HTML standard, section "server-sent events": lines end with LF, CR or CRLF, a blank
line ends an event, lines that start with a colon are comments, several data lines of one event are
joined by LF. Names, ids and retry times are read over: no model server uses them.
"""

from __future__ import annotations

LARGEST_EVENT = 1 << 20  # bytes; a token with its usage takes some hundred

_BOM = b"\xef\xbb\xbf"


class EventStream:
    """What has come of one stream so far. Data is bytes: a character may be cut by a read."""

    def __init__(self) -> None:
        self._line = b""  # begun and not ended
        self._data: list[bytes] = []
        self._size = 0
        self._after_cr = False  # a LF that follows belongs to it
        self._first = True

    def feed(self, read: bytes) -> list[bytes]:
        """The data of the events that this read ended; ValueError for one that is too large."""
        if not read:
            return []
        if self._after_cr:
            read = read.removeprefix(b"\n")
        self._after_cr = read.endswith(b"\r")
        *lines, self._line = _lines(self._line + read)
        events = [data for line in lines if (data := self._take(line)) is not None]
        if self._size + len(self._line) > LARGEST_EVENT:
            raise ValueError(f"an event of over {LARGEST_EVENT} bytes")
        return events

    def _take(self, line: bytes) -> bytes | None:
        """One whole line; the data of an event that it ends."""
        if self._first:
            line, self._first = line.removeprefix(_BOM), False
        if not line:
            return self._ended()
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._size += len(value)
        return None

    def _ended(self) -> bytes | None:
        data, self._data, self._size = self._data, [], 0
        return b"\n".join(data) if data else None


def _lines(text: bytes) -> list[bytes]:
    """Split at LF, CR and CRLF; the last part is the line that has not ended."""
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
