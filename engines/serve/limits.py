"""What the server accepts, checked before a request takes a place in the queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class BadRequest(Exception):
    """What the client asked can not be answered; says what, what was expected and the remedy."""


@dataclass(frozen=True)
class Limits:
    """Tokens of a prompt and of an answer, bytes of a request, seconds that a client may stall."""

    input_tokens: int
    output_tokens: int
    vocabulary: int
    body_bytes: int
    stall_s: float

    def prompt(self, ids: Sequence[int]) -> Sequence[int]:
        """The prompt itself; BadRequest where the engine could not run it."""
        if not 1 <= len(ids) <= self.input_tokens:
            raise BadRequest(
                f"got a prompt of {len(ids)} tokens, expected 1 to {self.input_tokens}: "
                "shorten it, or start the server with a larger --max_input_length"
            )
        if min(ids) < 0 or max(ids) >= self.vocabulary:
            raise BadRequest(
                f"got token ids from {min(ids)} to {max(ids)}, expected 0 to {self.vocabulary - 1}"
            )
        return ids

    def output(self, tokens: int) -> int:
        """The length itself; BadRequest where it is not 1 to the limit."""
        if not 1 <= tokens <= self.output_tokens:
            raise BadRequest(
                f"got max_tokens {tokens}, expected 1 to {self.output_tokens}: "
                "ask for less, or start the server with a larger --max_output_length"
            )
        return tokens
