"""The command as a process: it says where it listens, answers, and stops in good order."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import IO

import pytest

pytest.importorskip("aiohttp", reason="needs perfsuite[serve]")
pytest.importorskip("grpc", reason="needs perfsuite[serve]")
pytest.importorskip("torch", reason="needs torch")

ROOT = Path(__file__).parents[2]
TINY = ["--model=llama-2", "--param_size=tiny", "--batch_size=2", "--max_cache_length=4096"]
FREE = ["--port=0", "--http_port=0", "--max_input_length=16"]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "engines.serve", "--engine=torch", *arguments]


@contextmanager
def server(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], HTTPConnection, str]]:
    """The process, a connection to it, its gRPC address."""
    with subprocess.Popen(
        command(*TINY, *FREE, *arguments),
        cwd=ROOT, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        try:
            assert process.stderr is not None
            address, grpc = said(process.stderr)
            host, _, port = address.partition(":")
            yield process, HTTPConnection(host, int(port), timeout=60), grpc
        finally:
            process.kill()


def said(lines: IO[str]) -> tuple[str, str]:
    """What the line "ready" says: HTTP and gRPC addresses."""
    for line in lines:
        if found := re.match(r"ready: http://(\S+) gRPC (\S+) model llama2_tiny", line):
            return found[1], found[2]
    raise AssertionError("the server ended before it was ready")


def test_a_signal_lets_answers_under_way_end_and_takes_no_more() -> None:
    with server() as (process, connection, _):
        body = {"prompt": "hello", "max_tokens": 2500, "stream": True,
                "stream_options": {"include_usage": True}}  # fmt: skip
        connection.request("POST", "/v1/completions", json.dumps(body))
        response = connection.getresponse()
        assert response.readline().startswith(b"data: ")
        other = HTTPConnection(connection.host, connection.port, timeout=60)
        process.send_signal(signal.SIGTERM)
        assert "stopping" in process.stderr.readline()
        other.request("POST", "/v1/completions", json.dumps({"prompt": "late"}))
        assert other.getresponse().status == 503
        rest = response.read()
        assert b'"completion_tokens":2500' in rest
        assert rest.endswith(b"data: [DONE]\n\n")
        other.close()
        connection.close()
        assert process.wait(60) == 0


def test_the_grace_ends_and_answers_fail_visibly() -> None:
    with server("--grace_seconds=0") as (process, connection, _):
        body = {"prompt": "hello", "max_tokens": 4000, "stream": True}
        connection.request("POST", "/v1/completions", json.dumps(body))
        response = connection.getresponse()
        response.readline()
        process.send_signal(signal.SIGINT)
        rest = response.read()
        connection.close()
        assert b"the server was stopped before this answer was complete" in rest
        assert b"[DONE]" not in rest
        assert process.wait(60) == 0


def test_a_port_that_is_taken_is_an_error_in_one_line() -> None:
    with server() as (_, connection, grpc):
        for taken in (f"--http_port={connection.port}", f"--port={grpc.rpartition(':')[2]}"):
            found = subprocess.run(
                command(*TINY, *FREE, taken), cwd=ROOT, capture_output=True, text=True,
                timeout=120, check=False,
            )  # fmt: skip
            assert found.returncode == 2
            assert "Traceback" not in found.stderr
            assert "address" in found.stderr.lower()


def test_a_bad_start_says_why_in_one_line() -> None:
    found = subprocess.run(
        command("--checkpoint_path=/nowhere"), cwd=ROOT, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert found.returncode == 2
    assert found.stderr == (
        "/nowhere/config.json is missing: a checkpoint folder holds it\n"
    )
