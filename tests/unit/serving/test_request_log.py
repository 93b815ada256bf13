"""The file of requests: whole, in its folder, nobody else's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perfsuite.errors import OptionError
from perfsuite.serving import request_log
from perfsuite.serving.request import Record
from perfsuite.serving.request_log import RequestLog

Make = Callable[..., Record]


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_line_tells_what_became_of_a_request(tmp_path: Path, make_record: Make) -> None:
    """Moments count from the start of the load."""
    log = RequestLog(tmp_path / "new" / "folder", "jetstream-serving")
    good = make_record(texts=["a", "b"], token_ids=[7, 8, 9, 9])
    late = make_record(
        intended_s=10.5, sent_s=10.75, token_s=[], finished_s=11.0, output_tokens=None,
        input_tokens=None, failure="http 503: busy",
    )  # fmt: skip
    log.add(1, "load", [good, late])
    assert log.file == tmp_path / "new" / "folder" / "jetstream-serving.1.jsonl"
    first, second = lines(log.file)
    assert first == {
        "block": 1, "part": "load", "id": 0, "arrival_s": 0.0, "sent_s": 0.001,
        "prompt_tokens": 3, "asked_tokens": 4, "token_s": [0.05, 0.06, 0.07, 0.08],
        "tokens": [1, 2, 3, 4], "finished_s": 0.081, "input_tokens": 3, "output_tokens": 4,
        "failure": "", "text": "ab", "token_ids": [7, 8, 9, 9],
    }  # fmt: skip
    assert (second["arrival_s"], second["sent_s"], second["finished_s"]) == (0.5, 0.75, 1.0)
    assert (second["failure"], second["token_s"], second["output_tokens"]) == (
        "http 503: busy", [], None,
    )  # fmt: skip
    log.add(2, "alone", [good])
    assert [line["block"] for line in lines(log.file)] == [1, 1, 2]


def test_a_name_stays_in_its_folder_and_takes_nobodys_file(
    tmp_path: Path, make_record: Make
) -> None:
    """Nothing is overwritten: two processes of one workload have two files."""
    first = RequestLog(tmp_path, "../../etc/x")
    second = RequestLog(tmp_path, "../../etc/x")
    assert first.file.parent == second.file.parent == tmp_path
    assert first.file != second.file
    first.add(1, "load", [make_record()])
    second.add(1, "load", [make_record(), make_record()])
    assert (len(lines(first.file)), len(lines(second.file))) == (1, 2)
    assert len(list(tmp_path.iterdir())) == 2  # and no half of a file


def test_what_was_written_stays_when_the_next_load_can_not_be(
    tmp_path: Path, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = RequestLog(tmp_path, "w")
    log.add(1, "load", [make_record()])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(request_log.os, "replace", full)
    with pytest.raises(OptionError, match="can not be written: No space left on device"):
        log.add(2, "load", [make_record()])
    assert [line["block"] for line in lines(log.file)] == [1]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_is_bounded(
    tmp_path: Path, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load that does not fit is left out whole, and counted."""
    log = RequestLog(tmp_path, "w")
    log.add(1, "load", [make_record()])
    monkeypatch.setattr(request_log, "LARGEST", log.file.stat().st_size + 10)
    log.add(2, "load", [make_record()] * 3)
    assert len(lines(log.file)) == 1
    assert log.left_out == 3


def test_a_folder_that_can_not_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OptionError, match=r"--perf-requests: .*file.* can not be written"):
        RequestLog(tmp_path / "file" / "below", "w")
