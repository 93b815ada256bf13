"""Messages over real pipes: whole, in order, and what happens when the other side is not there."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Iterator

import pytest

from perfsuite.pipe import Pipe, PipeClosed, Silence


@pytest.fixture
def ends() -> Iterator[tuple[Pipe, Pipe]]:
    """Two connected sides."""
    their_read, our_write = os.pipe()
    our_read, their_write = os.pipe()
    ours, theirs = Pipe(our_read, our_write), Pipe(their_read, their_write)
    yield ours, theirs
    for side in (ours, theirs):
        try:
            side.close()
        except OSError:
            continue  # a test closed it


def test_messages_arrive_in_order(ends: tuple[Pipe, Pipe]) -> None:
    """Several in one read, each on its own; newlines and other alphabets inside."""
    ours, theirs = ends
    sent = [{"say": "a\nb"}, {"figures": {"x": 0.1, "n": None}}, {"say": "日本", "list": [1, 2]}]
    for message in sent:
        ours.send(message)
    assert [theirs.receive(1) for _ in sent] == sent


def test_both_ways(ends: tuple[Pipe, Pipe]) -> None:
    """A question and its answer."""
    ours, theirs = ends
    ours.send({"do": "block"})
    theirs.send(theirs.receive())
    assert ours.receive() == {"do": "block"}


def test_a_message_may_be_larger_than_the_pipe(ends: tuple[Pipe, Pipe]) -> None:
    """A megabyte is written in pieces and read as one."""
    ours, theirs = ends
    large = {"text": "x" * 2**20}
    writer = threading.Thread(target=ours.send, args=(large,))
    writer.start()
    assert theirs.receive(10) == large
    writer.join()


def test_floats_arrive_bit_by_bit(ends: tuple[Pipe, Pipe]) -> None:
    """Infinity and NaN included: they are judged, not lost."""
    ours, theirs = ends
    ours.send({"x": 0.1 + 0.2, "y": float("inf"), "z": float("nan")})
    got = theirs.receive(1)
    assert (got["x"], got["y"]) == (0.1 + 0.2, float("inf"))
    assert got["z"] != got["z"]


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_silence_is_told_after_the_time_allowed(ends: tuple[Pipe, Pipe], timeout: float) -> None:
    """And what comes later is still heard."""
    ours, theirs = ends
    start = time.monotonic()
    with pytest.raises(Silence):
        theirs.receive(timeout)
    assert time.monotonic() - start >= timeout
    ours.send({"late": 1})
    assert theirs.receive(1) == {"late": 1}


def test_half_a_message_is_silence_too(ends: tuple[Pipe, Pipe]) -> None:
    """Its second half completes it."""
    ours, theirs = ends
    os.write(ours._write_fd, b'{"say": ')
    with pytest.raises(Silence):
        theirs.receive(0.01)
    os.write(ours._write_fd, b'"all"}\n')
    assert theirs.receive(1) == {"say": "all"}


@pytest.mark.parametrize("timeout", [None, 5])
def test_a_closed_pipe_is_told_at_once(ends: tuple[Pipe, Pipe], timeout: float | None) -> None:
    """After what had been sent before; writing to nobody tells it as well."""
    ours, theirs = ends
    ours.send({"last": 1})
    ours.close()
    assert theirs.receive(timeout) == {"last": 1}
    with pytest.raises(PipeClosed):
        theirs.receive(timeout)
    with pytest.raises(PipeClosed):
        theirs.send({"anybody": 1})


def test_descriptors_may_be_large() -> None:
    """Beyond the 1024 that select() can watch."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] <= 1100:
        pytest.skip("this user may not open 1100 files")
    read, write = os.pipe()
    high = os.dup2(read, 1050)
    os.close(read)
    pipe = Pipe(high, write)
    with pytest.raises(Silence):
        pipe.receive(0)
    pipe.send({"own": 1})
    assert pipe.receive(1) == {"own": 1}
    pipe.close()
