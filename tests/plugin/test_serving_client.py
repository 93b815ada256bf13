"""The client against a server in a process of its own: what only real processes show."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")
pytest.importorskip("uvloop")

from perfsuite.adapters.openai import OpenAI
from perfsuite.errors import OptionError
from perfsuite.serving.arrivals import Arrivals, ClosedLoop, at_once, constant
from perfsuite.serving.client import Outcome, offer, run
from perfsuite.serving.figures import figures
from perfsuite.serving.request import Request

# The bench's fake server: the first token after 50 ms, then one every 5 ms.
SERVER = Path(__file__).parents[2] / "bench" / "serving.py"


class Server:
    """A running process and its URL."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        self.process = process
        self.url = f"http://127.0.0.1:{process.stdout.readline().strip()}"


@pytest.fixture
def server() -> Iterator[Server]:
    command = [sys.executable, str(SERVER), "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Server(process)
        finally:
            process.kill()


def offered(url: str, count: int, arrivals: Arrivals) -> Outcome:
    """Requests of eight tokens, through sockets."""

    async def main() -> Outcome:
        adapter = OpenAI(url)
        await adapter.open()
        try:
            return await offer(
                adapter, [Request(number, (number, 1), 8) for number in range(count)], arrivals
            )
        finally:
            await adapter.close()

    return run(main())


def test_a_load_needs_no_http_library_to_be_imported() -> None:
    """It is the adapter's, which is imported when it is named."""
    code = (
        "import sys, perfsuite.plugin, perfsuite.serving.client, perfsuite.serving.datasets\n"
        "print([name for name in ('aiohttp', 'uvloop', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_token_of_every_request_is_stamped(server: Server) -> None:
    """Counts are the server's; a busy machine makes times longer, never shorter."""
    outcome = offered(server.url, 40, constant(40, 40.0))
    found = figures(outcome.records)
    assert (found.failures, found.other_length, outcome.unsent, outcome.ended) == ({}, 0, 0, "")
    for record in outcome.records:
        assert [known for _, known in record.token_s] == list(range(1, 9))
        assert record.sent_s >= record.intended_s
        assert record.token_s[0][0] - record.sent_s > 0.045
        assert record.finished_s - record.sent_s > 0.080
    assert found.values["served_time_per_output_token/excluding_first_event_median"] > 0.0045


def test_a_closed_loop_over_sockets(server: Server) -> None:
    """Every request is answered once."""
    outcome = offered(server.url, 30, ClosedLoop(3))
    assert sorted(record.request.id for record in outcome.records) == list(range(30))
    assert figures(outcome.records).failures == {}


def test_a_client_without_files_left_does_not_blame_the_server(server: Server) -> None:
    """Two hundred connections where the system allows a few dozen."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 24, hard))
    try:
        with pytest.raises(OptionError, match="ulimit -n"):
            offered(server.url, 200, at_once(200))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("arrivals", [constant(3000, 30.0), ClosedLoop(4)])
def test_a_server_that_is_killed_ends_the_run(server: Server, arrivals: Arrivals) -> None:
    """With what was measured, failed, and long before the schedule would have ended it."""
    killer = threading.Timer(1.5, server.process.kill)
    killer.start()
    start = time.monotonic()
    outcome = offered(server.url, 3000, arrivals)
    took = time.monotonic() - start
    killer.join()
    assert took < 50.0  # of 100 s; a few milliseconds after the kill on an idle machine
    assert "the server is gone: no server answers at" in outcome.ended
    assert outcome.unsent > 0
    found = figures(outcome.records)
    assert found.values["request_throughput/whole_run"] > 0
    assert sum(found.failures.values()) > 0
