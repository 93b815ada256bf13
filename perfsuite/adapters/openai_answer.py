"""One streamed answer of an OpenAI-compatible server, from the data of its events. Pure.

Chunks of completions have a text, those of chats a delta. What a chunk brings is counted by its
usage where it has one. Where it has none, output is a chunk with text, or one of a completion
without text that does not finish: a token has come whose character is not whole.
"""

from __future__ import annotations

import json
from typing import Any

from perfsuite.adapters import Event, RequestFailed


class Answer:
    """One answer from the data of its events: what each means, and what they must not be."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._tokens: int | None = None  # of all output so far
        self._ids = 0  # token ids that came
        self._uncounted = False  # output came without a count
        self._finished = False
        self._usage: tuple[int, int] | None = None
        self.done = False

    def take(self, data: bytes) -> Event | None:
        """The event that a message is, None where it brings nothing."""
        if data.strip() == b"[DONE]":
            return self.end()
        chunk = _chunk(data)
        if found := chunk.get("error"):
            raise RequestFailed("error", _message(found))
        named = chunk.get("model")
        if isinstance(named, str) and named and named != self._model:
            raise RequestFailed("wrong model", f"{named} answered, {self._model} was asked for")
        count = self._counted(chunk)
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            return None
        return self._output(choices[0], count)

    def end(self) -> Event:
        """The last event; RequestFailed where the answer was not over.

        Some servers close the stream without `[DONE]`: a reason to finish is an end too.
        """
        if not self._finished:
            raise RequestFailed("early end", "the stream ended without a reason to finish")
        self.done = True
        return Event(done=True, usage=self._usage)

    def _output(self, choice: dict[str, Any], count: int | None) -> Event | None:
        text = _words(choice)
        reason = choice.get("finish_reason")
        if reason in ("abort", "error"):
            raise RequestFailed("error", f"the server finished with {reason!r}")
        self._finished = self._finished or bool(reason)
        if count is not None and not self._uncounted:
            brought = count > (self._tokens or 0)
            self._tokens = count
        else:  # of a character that is not whole a token has come, but no text
            brought = bool(text) or ("text" in choice and not reason)
            self._uncounted = self._uncounted or brought
        if not brought:
            return None
        return Event(None if self._uncounted else self._tokens, text)

    def _counted(self, chunk: dict[str, Any]) -> int | None:
        """Output tokens so far by the usage of a chunk, None where it has none."""
        usage = chunk.get("usage")
        if not isinstance(usage, dict):
            return None
        inputs, outputs = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if not isinstance(inputs, int) or not isinstance(outputs, int):
            return None
        self._usage = inputs, outputs
        return outputs


def _chunk(data: bytes) -> dict[str, Any]:
    try:
        chunk = json.loads(data)
    except (ValueError, RecursionError):
        raise RequestFailed("malformed", f"an event that is no JSON: {data[:80]!r}") from None
    if not isinstance(chunk, dict):
        raise RequestFailed("malformed", f"an event that is no object: {data[:80]!r}")
    return chunk


def _words(choice: dict[str, Any]) -> str:
    """The text of a completion, or all that a chat's delta says: thoughts are output too."""
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        return choice["text"] if isinstance(choice.get("text"), str) else ""
    said = [delta.get(name) for name in ("reasoning", "reasoning_content", "content")]
    called = json.dumps(delta["tool_calls"]) if delta.get("tool_calls") else ""
    return "".join(part for part in said if isinstance(part, str)) + called


def _message(error: Any) -> str:
    found = error.get("message", error) if isinstance(error, dict) else error
    return str(found)[:200]
