"""Whether the client kept up. Pure: records and a share of a processor to a share, or to a reason.

A client that is late sends another load than it was told to: what looks like a slow server is a
slow client. Two things are told apart. A run whose sending fell behind by a part of its own length
is VOID: its rate was not the one that was asked for. A request that was late by a part of an
answer's time spoils that answer alone, and with some others the tail of a latency.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from perfsuite.serving.request import Record, duration_s

LATE_SHARE = 0.05  # of a run, of an answer: as much as a figure may lose by default
LATE_FLOOR_S = 0.01  # what a busy machine's scheduler does to anybody
LATE_REQUESTS = 0.25  # share of the requests of a run that may be later than that
BUSY_SHARE = 0.9  # of one processor: an event loop that is never idle stamps late

_REMEDY = "lower the load, or run the client on a machine of its own"


def late_share(records: Sequence[Record]) -> float:
    """The share of requests that were sent late by over 5 % of the median time of an answer."""
    ends = [(record, record.last_token_s) for record in records]
    answers = [end - record.sent_s for record, end in ends if end is not None]
    return _later(records, LATE_SHARE * median(answers) if answers else 0.0)


def late_client(records: Sequence[Record], busy_share: float) -> str:
    """Why the client is to blame for what was measured, or ""."""
    allowed = LATE_SHARE * duration_s(records) if records else 0.0
    if (share := _later(records, allowed)) > LATE_REQUESTS:
        most = max(record.sent_s - record.intended_s for record in records)
        return (
            f"the client was late: {share:.0%} of {len(records)} requests were sent over"
            f" {1e3 * max(allowed, LATE_FLOOR_S):.0f} ms after they were due, 5 % of the run;"
            f" the latest by {most:.2f} s\n{_REMEDY}"
        )
    if busy_share > BUSY_SHARE:
        return (
            f"the client used {busy_share:.0%} of a processor, all that its event loop can:"
            f" its stamps are late\n{_REMEDY}"
        )
    return ""


def _later(records: Sequence[Record], allowed_s: float) -> float:
    """The share of requests that were sent later than that, or than the floor."""
    allowed_s = max(allowed_s, LATE_FLOOR_S)
    late = sum(record.sent_s - record.intended_s > allowed_s for record in records)
    return late / len(records) if records else 0.0
