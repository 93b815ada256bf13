"""One request, and what a client records of it. Seconds of one monotonic clock, and tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Request:
    """What is asked: a prompt as token ids or as text, and how many tokens to generate.

    arrival_s is when it is due, counted from the start of the load. In a closed loop it has no
    meaning: a request is due when a user is free.
    """

    id: int
    prompt: tuple[int, ...] | str
    max_tokens: int
    arrival_s: float = 0.0


@dataclass
class Record:
    """What became of a request.

    token_s has a stamp for each event that brought output, with the output tokens known after
    it; None where the wire does not say, because an event is not a token. Counts that the answer
    did not name are None, never 0. failure is "" or `kind: detail`; a failed request keeps what
    came before it failed.
    """

    request: Request
    intended_s: float  # when it was due
    sent_s: float  # when it was written to the connection
    token_s: list[tuple[float, int | None]] = field(default_factory=list)
    finished_s: float = 0.0  # the end of the answer, or its failure
    output_tokens: int | None = None
    input_tokens: int | None = None
    failure: str = ""
    texts: list[str] = field(default_factory=list)  # what its events said, in order
    token_ids: list[int] = field(default_factory=list)  # where the wire tells them

    @property
    def first_token_s(self) -> float | None:
        """When its first output came."""
        return self.token_s[0][0] if self.token_s else None

    @property
    def last_token_s(self) -> float | None:
        """When the last output of an answer that did not fail came."""
        return self.token_s[-1][0] if self.token_s and not self.failure else None

    @property
    def kind_of_failure(self) -> str:
        """The part of `failure` by which failures are counted: "http 503", "early end"."""
        return self.failure.partition(":")[0]


def duration_s(records: Sequence[Record]) -> float:
    """Seconds from the first request that was due to the end of the last one, drain included."""
    return max(r.finished_s for r in records) - min(r.intended_s for r in records)
