"""What OpenAI's endpoints answer: chunks of a stream, one whole answer, errors."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

from engines.serve.openai_request import Ask
from engines.serve.text import Reader

DONE = b"data: [DONE]\n\n"


class Reply:
    """The answer to one request, as it grows. Counts are of tokens, a stop token included.

    `cached` tokens of the prompt were at hand and not run.
    """

    def __init__(self, ask: Ask, model: str, reader: Reader, cached: int) -> None:
        self._ask, self._reader, self._cached, self._made = ask, reader, cached, 0
        kind = "chat.completion" if ask.chat else "text_completion"
        made_by = "chatcmpl" if ask.chat else "cmpl"
        self._head: dict[str, Any] = {
            "id": f"{made_by}-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": model,
        }

    @property
    def _usage(self) -> dict[str, Any]:
        asked = len(self._ask.prompt)
        return {
            "prompt_tokens": asked,
            "completion_tokens": self._made,
            "total_tokens": asked + self._made,
            "prompt_tokens_details": {"cached_tokens": self._cached},
        }

    def _text(self, tokens: Sequence[int], finish: str) -> str:
        """What these tokens add to the text; a token that ends the answer is not shown."""
        self._made += len(tokens)
        text = self._reader.read(tokens[:-1] if finish == "stop" else tokens)
        return text + self._reader.rest() if finish else text

    # A stream

    def opening(self) -> bytes:
        """What a chat's stream begins with; nothing for completions."""
        if not self._ask.chat:
            return b""
        return self._event({"delta": {"role": "assistant", "content": ""}}, [], "")

    def chunk(self, tokens: Sequence[int], finish: str) -> bytes:
        """The event for tokens that have come."""
        text = self._text(tokens, finish)
        shown = {"delta": {"content": text}} if self._ask.chat else {"text": text}
        return self._event(shown, tokens, finish)

    def closing(self) -> bytes:
        """The counts where they were asked for, and the end."""
        if not self._ask.usage:
            return DONE
        return _data(self._of_stream() | {"choices": [], "usage": self._usage}) + DONE

    def _event(self, shown: dict[str, Any], tokens: Sequence[int], finish: str) -> bytes:
        choice = {"index": 0, **shown, "logprobs": None, "finish_reason": finish or None}
        if self._ask.token_ids:
            choice["token_ids"] = list(tokens)
        event = self._of_stream() | {"choices": [choice]}
        if self._ask.usage:
            event["usage"] = self._usage if self._ask.usage_always else None
        return _data(event)

    def _of_stream(self) -> dict[str, Any]:
        return self._head | {"object": "chat.completion.chunk"} if self._ask.chat else self._head

    # In one piece

    def whole(self, tokens: Sequence[int], finish: str) -> dict[str, Any]:
        """The answer once it is complete."""
        text = self._text(tokens, finish)
        message = {"message": {"role": "assistant", "content": text}}
        shown: dict[str, Any] = message if self._ask.chat else {"text": text}
        choice = {"index": 0, **shown, "logprobs": None, "finish_reason": finish}
        if self._ask.token_ids:
            choice["token_ids"] = list(tokens)
        return self._head | {"choices": [choice], "usage": self._usage}


def error(message: str, kind: str, code: int) -> dict[str, Any]:
    """OpenAI's form of an error."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def error_event(message: str) -> bytes:
    """An error after the status has been sent: the stream ends with it, without [DONE]."""
    return _data(error(message, "server_error", 500))


def _data(event: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"
