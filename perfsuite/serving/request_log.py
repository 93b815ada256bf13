"""What became of every request, for people to look into: `--perf-requests=DIR`.

A file of JSON Lines for each workload and process, under a name that nobody has. A line is

    {"block": 1, "part": "load", "id": 0, "arrival_s": 0.0, "sent_s": 0.0012, "prompt_tokens": 12,
     "asked_tokens": 8, "token_s": [0.05, ...], "tokens": [1, ...], "finished_s": 0.09,
     "input_tokens": 12, "output_tokens": 8, "failure": "", "text": "..."}

with seconds since the load began; `arrival_s` is when it was due. `tokens` are the output tokens
known after each stamp, null where the wire does not say; `token_ids` are there where it tells them.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from perfsuite.errors import OptionError
from perfsuite.serving.request import Record

LARGEST = 256 * 2**20  # bytes of a file; loads that do not fit are left out, and said to be


class RequestLog:
    """The file of one process, whole after every load."""

    def __init__(self, folder: Path, name: str) -> None:
        """Claims a name in the folder, which is made; OptionError where it can not be written."""
        self.left_out = 0  # requests
        self._written = b""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.file = _claimed(folder, re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip("."))
        except OSError as error:
            raise _unwritable(folder, error) from None

    def add(self, block: int, part: str, records: Sequence[Record]) -> None:
        """Write these too, all of them or none; OptionError where the disk does not take them."""
        start = min((record.intended_s for record in records), default=0.0)
        rows = (_row(record, start) for record in records)
        lines = "".join(json.dumps({"block": block, "part": part} | row) + "\n" for row in rows)
        whole = self._written + lines.encode()
        if len(whole) > LARGEST:
            self.left_out += len(records)
            return
        try:
            _replace(self.file, whole)
        except OSError as error:
            raise _unwritable(self.file, error) from None
        self._written = whole


def _claimed(folder: Path, name: str) -> Path:
    """The first free of NAME.1.jsonl, NAME.2.jsonl ..., made empty: two processes never share."""
    number = 1
    while True:
        file = folder / f"{name}.{number}.jsonl"
        with suppress(FileExistsError):
            file.open("xb").close()
            return file
        number += 1


def _replace(file: Path, data: bytes) -> None:
    """In one step, so that a reader sees the old file or the new one."""
    fd, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=".partial")
    try:
        with os.fdopen(fd, "wb") as opened:
            opened.write(data)
        os.replace(name, file)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


def _row(record: Record, start: float) -> dict[str, Any]:
    prompt = record.request.prompt
    row: dict[str, Any] = {
        "id": record.request.id,
        "arrival_s": _since(record.intended_s, start),
        "sent_s": _since(record.sent_s, start),
        "prompt_tokens": None if isinstance(prompt, str) else len(prompt),
        "asked_tokens": record.request.max_tokens,
        "token_s": [_since(stamp, start) for stamp, _ in record.token_s],
        "tokens": [known for _, known in record.token_s],
        "finished_s": _since(record.finished_s, start),
        "input_tokens": record.input_tokens,
        "output_tokens": record.output_tokens,
        "failure": record.failure,
        "text": "".join(record.texts),
    }
    return row | ({"token_ids": record.token_ids} if record.token_ids else {})


def _since(moment: float, start: float) -> float:
    return round(moment - start, 6)


def _unwritable(place: Path, error: OSError) -> OptionError:
    return OptionError(
        f"--perf-requests: {place} can not be written: {error.strerror}\n"
        "name a folder that can be, with room"
    )
