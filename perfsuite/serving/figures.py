"""Records of requests to figures, by metric id. Pure.

- **From when.** Latencies are kept from the moment a request was due and from the moment it was
  sent; the first hides nothing that a client or a connection held back.
- **Failures stay in.** A request that failed has an infinite latency, so that a server that drops
  the slow ones does not look fast. Its tokens are no throughput.
- **An event is not a token.** Counts are the server's own. Where an answer has no count, figures
  that need one are absent, with the reason.
- **A percentile needs samples.** With n of them, none beyond the true percentile p with
  probability p ** n: below `enough(p)` a claim with 99 % confidence is not possible (MLPerf
  LoadGen's early stopping without failures). Requests are counted, not tokens: the tokens of one
  answer are not independent.
- **A tail is withheld** where the client was late for more than half as many requests as lie in it:
  it may be the client's own.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from perfsuite.serving.lateness import late_share
from perfsuite.serving.request import Record, duration_s

CONFIDENCE = 0.99
SHARES = {"median": 0.5, "p99": 0.99}


@dataclass(frozen=True)
class Objectives:
    """What a good answer keeps, in seconds; None asks for nothing.

    first_token_s and whole_s count from the moment a request was due. An answer of one token has
    no time per token, and keeps any.
    """

    first_token_s: float | None = None
    per_token_s: float | None = None
    whole_s: float | None = None


@dataclass(frozen=True)
class Figures:
    """What a load gave: values by metric id, and why the others are absent."""

    values: dict[str, float] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)  # kind -> requests
    other_length: int = 0  # answers with fewer or more tokens than asked


def enough(share: float) -> int:
    """Samples that a percentile needs at least: 7 for the median, 459 for p99."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(share))


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of them stays below, by LoadGen's rule: sorted[int(n * share)]."""
    return sorted(values)[int(len(values) * share)]


def time_per_token(record: Record) -> float | None:
    """Seconds a token after those of the first event; None for one token, or an unknown count.

    The first event holds one token where the wire does not say otherwise.
    """
    if record.output_tokens is None or len(record.token_s) < 2:
        return None
    (first, known), (last, _) = record.token_s[0], record.token_s[-1]
    later = record.output_tokens - (known or 1)
    return (last - first) / later if later > 0 else None


def token_gaps(record: Record) -> list[float] | None:
    """Seconds between consecutive tokens; those of one event share its gap evenly.

    None where an event did not say how many tokens there were.
    """
    gaps: list[float] = []
    for (before, known), (stamp, now) in pairwise(record.token_s):
        if known is None or now is None:
            return None
        gaps += [(stamp - before) / (now - known)] * (now - known)
    return gaps


def figures(
    records: Sequence[Record], objectives: Objectives | None = None, *, low_load: bool = False
) -> Figures:
    """All that records tell. low_load says that requests did not wait for one another."""
    if not records:
        return Figures()
    good = [record for record in records if not record.failure]
    found: dict[str, float | str] = dict(_rates(records, good))
    late = late_share(records)
    for latency in _latencies(records, good):
        found |= latency.percentiles(late)
    found |= _queue(records).percentiles(late=0.0)
    if objectives:
        found |= [_goodput(records, objectives)]
    if low_load:
        found |= [_low_load(found)]
    values = {name: value for name, value in found.items() if not isinstance(value, str)}
    absent = {name: why for name, why in found.items() if isinstance(why, str)}
    values["failed_requests/all"] = len(records) - len(good)
    failures = Counter(record.kind_of_failure for record in records if record.failure)
    other = sum(r.output_tokens not in (None, r.request.max_tokens) for r in good)
    return Figures(values, absent, dict(failures), other)


Found = tuple[str, float | str]  # a metric id with its value, or why there is none


def _rates(records: Sequence[Record], good: Sequence[Record]) -> Iterator[Found]:
    seconds = duration_s(records)
    yield "request_throughput/whole_run", _rate(len(good), seconds)
    for metric_id, count in (
        ("output_throughput/whole_run", lambda record: record.output_tokens),
        ("input_throughput/whole_run", lambda record: record.input_tokens),
    ):
        yield metric_id, _token_rate(good, count, seconds)


def _rate(count: float, seconds: float) -> float | str:
    return count / seconds if count else "no request was answered"


def _token_rate(
    good: Sequence[Record], count: Callable[[Record], int | None], seconds: float
) -> float | str:
    counts = [count(record) for record in good]
    if missing := counts.count(None):
        return f"{missing} of {len(good)} answers have no usage"
    return _rate(sum(tokens for tokens in counts if tokens), seconds)


@dataclass(frozen=True)
class _Latency:
    """The values of one latency over a run; absent says why there are none."""

    name: str
    values: Sequence[float] = ()
    samples: int | None = None  # that are independent, where these are fewer than the values
    absent: str = ""

    def percentiles(self, late: float) -> Iterator[Found]:
        """The median and p99. late is the share of requests that the client sent late."""
        count = len(self.values) if self.samples is None else self.samples
        for word, share in SHARES.items():
            yield f"{self.name}_{word}", self.absent or self._percentile(word, share, count, late)

    def _percentile(self, word: str, share: float, count: int, late: float) -> float | str:
        if count < enough(share):
            return f"{count} samples, {word} needs {enough(share)}"
        if share > 0.5 and late > (1 - share) / 2:
            return f"the client sent {late:.1%} of the requests late: {word} may be its own"
        value = percentile(self.values, share)
        return f"{word} is a request that failed" if math.isinf(value) else value


def _latencies(records: Sequence[Record], good: Sequence[Record]) -> Iterator[_Latency]:
    first, whole = "served_time_to_first_token", "end_to_end_latency"
    firsts = [(record, record.first_token_s) for record in records]
    lasts = [(record, record.last_token_s) for record in records]
    for name, ends in ((first, firsts), (whole, lasts)):
        due = [_since(record, end, record.intended_s) for record, end in ends]
        sent = [_since(record, end, record.sent_s) for record, end in ends]
        yield _Latency(f"{name}/from_due", due)
        yield _Latency(f"{name}/from_sent", sent)
    yield _per_token(records, good)
    yield _gaps(good)


def _since(record: Record, end: float | None, start: float) -> float:
    """Seconds from start to end, infinite for what failed or brought nothing."""
    return math.inf if record.failure or end is None else end - start


def _per_token(records: Sequence[Record], good: Sequence[Record]) -> _Latency:
    name = "served_time_per_output_token/excluding_first_event"
    if missing := sum(record.output_tokens is None for record in good):
        return _Latency(name, absent=f"{missing} of {len(good)} answers have no usage")
    times = (math.inf if record.failure else time_per_token(record) for record in records)
    return _Latency(name, [seconds for seconds in times if seconds is not None])


def _gaps(good: Sequence[Record]) -> _Latency:
    name = "served_inter_token_latency/per_token"
    gaps = [token_gaps(record) for record in good]
    if unknown := gaps.count(None):
        why = f"{unknown} of {len(good)} answers do not say how many tokens an event has"
        return _Latency(name, absent=why)
    tokens = [gap for of_answer in gaps if of_answer for gap in of_answer]
    return _Latency(name, tokens, samples=sum(map(bool, gaps)))


def _queue(records: Sequence[Record]) -> _Latency:
    return _Latency("queue_time/on_the_client", [r.sent_s - r.intended_s for r in records])


def _low_load(found: dict[str, float | str]) -> Found:
    """From sending: without a queue both starts are the same but for the client."""
    source = "served_time_to_first_token/from_sent_median"
    return "served_time_to_first_token/low_load_median", found[source]


def _goodput(records: Sequence[Record], objectives: Objectives) -> Found:
    kept = sum(keeps(record, objectives) for record in records)
    value = _rate(kept, duration_s(records))
    return "goodput/all_objectives", value if kept else "no request kept the objectives"


def keeps(record: Record, objectives: Objectives) -> bool:
    """Whether an answer kept every objective; one that failed keeps none."""
    if record.failure or not record.token_s:
        return False
    per_token = time_per_token(record)
    if objectives.per_token_s is not None and per_token is None and record.output_tokens != 1:
        return False  # not known is not kept
    found = (
        (objectives.first_token_s, _since(record, record.first_token_s, record.intended_s)),
        (objectives.per_token_s, per_token or 0.0),
        (objectives.whole_s, _since(record, record.last_token_s, record.intended_s)),
    )
    return all(limit is None or seconds <= limit for limit, seconds in found)
