"""Events survive any cut of the bytes."""

from __future__ import annotations

import random

import pytest

from perfsuite.serving.server_sent_events import LARGEST_EVENT, EventStream

# Three events with every line end, a comment, fields that are read over, two data lines in one
# event, a character of several bytes, and blank lines that end nothing.
TEXT = (
    b": keep-alive\n\n"
    b'data: {"text": "caf\xc3\xa9 \xe2\x9c\x93"}\r\n\r\n'
    b"event: token\rid: 7\rretry: 3\rdata:one\rdata: two\r\r"
    b"data: three\r\ndata: four\r\n\r\n"
    b"\n\n:another comment\ndata:  spaced\ndatafile: none\n\n"
    b"data: [DONE]\n\n"
    b"data: not ended"
)
EVENTS = ['{"text": "café ✓"}'.encode(), b"one\ntwo", b"three\nfour", b" spaced", b"[DONE]"]


def fed(pieces: list[bytes]) -> list[bytes]:
    stream = EventStream()
    return [event for piece in pieces for event in stream.feed(piece)]


def test_all_events_of_one_read() -> None:
    """Comments and blank lines are none."""
    assert fed([TEXT]) == EVENTS


def test_every_cut_in_two_gives_the_same_events() -> None:
    """In the middle of a character, of a line end, of a name."""
    for at in range(len(TEXT) + 1):
        assert fed([TEXT[:at], TEXT[at:]]) == EVENTS, at


def test_byte_by_byte_and_at_random() -> None:
    """Any number of cuts, empty reads among them."""
    assert fed([TEXT[at : at + 1] for at in range(len(TEXT))]) == EVENTS
    source = random.Random(1)
    for _ in range(200):
        cuts = sorted(source.choices(range(len(TEXT) + 1), k=source.randint(1, 40)))
        pieces = [TEXT[a:b] for a, b in zip([0, *cuts], [*cuts, len(TEXT)], strict=True)]
        assert fed(pieces) == EVENTS, cuts


def test_an_event_is_there_with_its_blank_line_and_not_before() -> None:
    """Its stamp is that of the read that ended it."""
    stream = EventStream()
    assert stream.feed(b"data: a\n") == []
    assert stream.feed(b"\n") == [b"a"]
    assert stream.feed(b"data: b\n\ndata: c\n\n") == [b"b", b"c"]


def test_a_byte_order_mark_is_no_part_of_the_first_name() -> None:
    """The standard allows one at the start."""
    assert fed([b"\xef\xbb\xbfdata: a\n\n"]) == [b"a"]
    assert fed([b"\xef", b"\xbb\xbfda", b"ta: a\n\n"]) == [b"a"]


@pytest.mark.parametrize("piece", [b"x" * 65536, b"data: " + b"x" * 65529 + b"\n"])
def test_what_never_ends_is_refused(piece: bytes) -> None:
    """A line, or an event of many lines, without bound would fill the memory."""
    with pytest.raises(ValueError, match="an event of over"):
        fed([piece] * (LARGEST_EVENT // 65536 + 2))
