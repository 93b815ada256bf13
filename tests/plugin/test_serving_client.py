"""The client against a server in a process of its own: what only real processes show."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")
pytest.importorskip("uvloop")

from perfsuite.adapters.openai import OpenAI
from perfsuite.errors import OptionError, Void
from perfsuite.pipe import Pipe
from perfsuite.serving import clients, lateness
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


def asked(count: int) -> list[Request]:
    return [Request(number, (number, 1), 8) for number in range(count)]


@pytest.mark.parametrize("arrivals", [constant(40, 40.0), ClosedLoop(4), at_once(40)])
def test_three_processes_send_one_load(
    server: Server, arrivals: Arrivals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every request is answered once, by its own process, on one clock."""
    monkeypatch.setattr(lateness, "LATE_FLOOR_S", 100.0)
    before = time.perf_counter()
    outcome = clients.offered(OpenAI(server.url), asked(40), arrivals, 3)
    after = time.perf_counter()
    assert (outcome.clients, outcome.ended, outcome.unsent) == (3, "", 0)
    assert outcome.arrivals == arrivals.name
    assert sorted(record.request.id for record in outcome.records) == list(range(40))
    found = figures(outcome.records)
    assert (found.failures, found.other_length) == ({}, 0)
    for record in outcome.records:
        assert [known for _, known in record.token_s] == list(range(1, 9))
        assert record.texts == [" a"] * 8
        assert before < record.intended_s <= record.sent_s < record.finished_s < after
        assert record.token_s[0][0] - record.sent_s > 0.045
    if arrivals.name.startswith("constant"):
        due = sorted(record.intended_s for record in outcome.records)
        assert [moment - due[0] for moment in due] == pytest.approx(list(arrivals.times_s))


_SLOW = """
import time
from perfsuite.adapters.openai import OpenAI

class Slow(OpenAI):
    async def send(self, request):
        time.sleep(0.1)  # the whole client stands still
        async for event in super().send(request):
            yield event
"""


def test_a_process_that_is_too_slow_makes_the_run_void(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten requests a second each, of forty that were due: the records of both together say so."""
    (tmp_path / "slow_client.py").write_text(_SLOW)
    monkeypatch.syspath_prepend(tmp_path)
    adapter = OpenAI(server.url)
    adapter.elsewhere = lambda: ("slow_client:Slow", {"url": server.url})
    outcome = clients.offered(adapter, asked(40), constant(40, 80.0), 2)
    assert outcome.void.startswith("the client was late: ")
    assert outcome.clients == 2


def test_processes_that_find_no_server_say_so(server: Server) -> None:
    server.process.kill()
    server.process.wait()
    with pytest.raises(OptionError, match="no server answers at"):
        clients.offered(OpenAI(server.url), asked(4), at_once(4), 2)


def test_a_process_that_dies_is_no_result(server: Server) -> None:
    """What it printed is told."""
    adapter = OpenAI(server.url)
    adapter.elsewhere = lambda: ("os:abort", {})
    with pytest.raises(Void, match="a process that sends the load is gone"):
        clients.offered(adapter, asked(4), at_once(4), 2)
    adapter.elsewhere = lambda: ("no_such_module:Client", {})
    with pytest.raises(Void, match=r"(?s)its last output: .*No module named 'no_such_module'"):
        clients.offered(adapter, asked(4), at_once(4), 2)


def test_a_process_whose_parent_is_gone_ends(server: Server) -> None:
    """In the middle of a load that would go on for minutes."""
    with clients._Sender() as sender:
        schedule = constant(40, 0.1)
        share = [
            replace(one, arrival_s=due)
            for one, due in zip(asked(40), schedule.times_s, strict=True)
        ]
        sender.tell(OpenAI(server.url).elsewhere(), share, schedule.name, 0)
        sender.wait_until_ready()
        sender.start(time.perf_counter())
        time.sleep(0.5)
        assert sender._process.poll() is None
        sender._pipe.close()
        assert sender._process.wait(30) == 3
        sender._pipe = Pipe(*os.pipe())  # for the end of the block to close
