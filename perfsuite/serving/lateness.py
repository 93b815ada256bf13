"""Whether the client kept up. Pure: records and a share of a processor to a share, or to a reason.

A client that is late sends another load than it was told to: what looks like a slow server is a
slow client. Two things are told apart. A run whose sending fell behind by a part of its own length
is VOID: its rate was not the one that was asked for. A request that was late by a part of an
answer's time spoils that answer alone, and with some others the tail of a latency.

Requests due within 2 ms are a burst: they are sent one after the other, whoever sends them. Each
may be late by 2 ms more for each that is due with it, which is several times what this client
takes; what is later than that is late. And at least half of a burst's time, until its last answer,
has to be the server's: where sending it takes longer, what is measured is how fast the client
sends. A run is VOID if more than a quarter of its requests came in such bursts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from perfsuite.serving.request import Record, duration_s

LATE_SHARE = 0.05  # of a run, of an answer: as much as a figure may lose by default
LATE_FLOOR_S = 0.01  # what a busy machine's scheduler does to anybody
LATE_REQUESTS = 0.25  # share of the requests of a run that may be later than that
BUSY_SHARE = 0.9  # of one processor: an event loop that is never idle stamps late
TURN_S = 0.002  # for each request that is due at the same moment
SENDING_SHARE = 0.5  # of the time of a burst, that sending it may take

_REMEDY = "lower the load, let more processes send it (--perf-clients), or use another machine"


def late_share(records: Sequence[Record]) -> float:
    """The share of requests that were sent late by over 5 % of the median time of an answer."""
    ends = [(record, record.last_token_s) for record in records]
    answers = [end - record.sent_s for record, end in ends if end is not None]
    late = [record.sent_s - record.intended_s for record in records]
    return _share_over(late, LATE_SHARE * median(answers) if answers else 0.0)


def late_client(records: Sequence[Record], busy_share: float) -> str:
    """Why the client is to blame for what was measured, or ""."""
    allowed = LATE_SHARE * duration_s(records) if records else 0.0
    if (share := _share_over(_beyond_their_burst(records), allowed)) > LATE_REQUESTS:
        most = max(record.sent_s - record.intended_s for record in records)
        return (
            f"the client was late: {share:.0%} of {len(records)} requests were sent over"
            f" {1e3 * max(allowed, LATE_FLOOR_S):.0f} ms later than due, 5 % of the run,"
            f" and 2 ms for each due with it; the latest by {most:.2f} s\n{_REMEDY}"
        )
    slow = [burst for burst in _bursts(records) if _sending_share(burst) > SENDING_SHARE]
    if sum(map(len, slow)) > LATE_REQUESTS * len(records):
        worst = max(slow, key=len)
        return (
            f"the server is too fast for this client: of {len(worst)} requests that were due at"
            f" once {1 - LATE_REQUESTS:.0%} were sent after {_sending_share(worst):.0%} of their"
            f" time, half at most; sending all took {1e3 * sending_s(worst):.0f} ms\n"
            f"{_REMEDY}, or more prompts"
        )
    if busy_share > BUSY_SHARE:
        return (
            f"the client used {busy_share:.0%} of a processor, all that its event loop can:"
            f" its stamps are late\n{_REMEDY}"
        )
    return ""


def is_burst(records: Sequence[Record]) -> bool:
    """Whether all requests, of several, were due at one moment."""
    return len(records) > 1 and len(_bursts(records)) == 1


def sending_s(records: Sequence[Record]) -> float:
    """Seconds from the first request that was due until the last was sent; 0 without any."""
    if not records:
        return 0.0
    return max(r.sent_s for r in records) - min(r.intended_s for r in records)


def _bursts(records: Sequence[Record]) -> list[list[Record]]:
    """The records by the moment at which they were due; one moment lasts a turn."""
    found: list[list[Record]] = []
    for record in sorted(records, key=lambda record: record.intended_s):
        if not found or record.intended_s - found[-1][0].intended_s > TURN_S:
            found.append([])
        found[-1].append(record)
    return found


def _sending_share(burst: Sequence[Record]) -> float:
    """The part of a burst's time after which three quarters of its requests were sent.

    Not the last: one that was held up says nothing of the others. Few requests are no burst: they
    may all be sent within the floor, and what holds them up is not their own number.
    """
    if (len(burst) - 1) * TURN_S <= LATE_FLOOR_S:
        return 0.0
    sent = sorted(record.sent_s - record.intended_s for record in burst)
    most = sent[math.ceil(len(sent) * (1 - LATE_REQUESTS)) - 1]
    return most / max(duration_s(burst), 1e-9) if most > LATE_FLOOR_S else 0.0


def _share_over(seconds: Sequence[float], allowed_s: float) -> float:
    """The share that is more than that, or than the floor."""
    allowed_s = max(allowed_s, LATE_FLOOR_S)
    return sum(late > allowed_s for late in seconds) / len(seconds) if seconds else 0.0


def _beyond_their_burst(records: Sequence[Record]) -> list[float]:
    """Seconds that each request was sent later than those due with it may take together."""
    return [
        record.sent_s - record.intended_s - TURN_S * (len(burst) - 1)
        for burst in _bursts(records)
        for record in burst
    ]
