"""What a client needs to know of somebody else's engine: open it, send a request, close it.

An adapter is a module of its own with an extra of its own, imported only when it is named. What
it can not do is an error that says so; it never does something else instead.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Protocol

from perfsuite.serving.request import Request


@dataclass(frozen=True)
class Event:
    """One message of an answer.

    tokens counts the output tokens of the whole answer so far, None where the wire does not say.
    Three events mean something of their own: tokens 0 is yielded once, when the request has been
    written; an event that brought output has tokens above 0, or None; the last event is `done`
    and has no output, its usage is (input tokens, output tokens) as the server counted them, or as
    many token ids as were sent and came where the wire has no counts.

    text or token_ids are what it said, as far as the wire tells. arrived_s is when its bytes were
    read (of tokens 0: written), by time.perf_counter, before anything was made of them; None
    leaves the stamp to the client, who takes it when the event comes to him.
    """

    tokens: int | None = None
    text: str = ""
    token_ids: tuple[int, ...] = ()
    done: bool = False
    usage: tuple[int, int] | None = None
    arrived_s: float | None = field(default=None, compare=False)


class RequestFailed(Exception):
    """The failure of one request: kind is what failures are counted by, detail is for people.

    The kinds in `LOST` say that the server may be gone; all others are its answers.
    """

    LOST = ("connection", "early end", "silence")

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind, self.detail = kind, detail


class Adapter(Protocol):
    """The subject of a load. `send` may run for any number of requests at once.

    One that other processes can open too, so that several send a load together, has `elsewhere()`:
    where its class is, as "module:Class", and the arguments that it is made with, in JSON's types.
    """

    async def open(self) -> None:
        """Raise EngineUnavailable unless the engine answers and is the one that was asked for.

        Called again on an open adapter it only checks that: so a client learns of a server that
        is gone.
        """

    def send(self, request: Request) -> AsyncGenerator[Event, None]:
        """The answer, as it comes. Raises RequestFailed; never tries again."""

    async def close(self) -> None:
        """Give up the connections. An adapter that is not open has none."""
