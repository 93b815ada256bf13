"""A request of OpenAI's completions or chat completions, read from its JSON.

A field either takes effect or has a value that asks for nothing; all else is refused by name, so
that nobody measures an option that was ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engines.serve.limits import BadRequest, Limits
from engines.serve.text import Text

# Values that ask for nothing beyond greedy decoding of one answer; null always does.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "temperature": (0,),
    "echo": (False,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "stop": ([], ""),
    "stop_token_ids": ([],),
    "suffix": ("",),
    "logit_bias": ({},),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "min_p": (0,),
    "min_tokens": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "skip_special_tokens": (True,),
    "add_special_tokens": (True,),
}
# At temperature 0 the best token is taken, whatever these say; the rest only labels a request.
WITHOUT_EFFECT = {"top_p", "top_k", "seed", "user", "metadata", "store", "service_tier",
                  "parallel_tool_calls", "request_id"}  # fmt: skip
READ = {"model", "prompt", "messages", "max_tokens", "max_completion_tokens", "stream",
        "stream_options", "ignore_eos", "return_token_ids"}  # fmt: skip
ROLES = ("system", "developer", "user", "assistant")
DEFAULT_TOKENS = 16  # of a completion, as OpenAI documents it


class UnknownModel(Exception):
    """The request names another model than the one that is served."""


@dataclass(frozen=True)
class Ask:
    """What is to be done and how it is to be told."""

    chat: bool
    prompt: Sequence[int]
    max_tokens: int
    ignore_eos: bool
    stream: bool
    usage: bool  # a last chunk with the counts
    usage_always: bool  # the counts in every chunk
    token_ids: bool


def parsed(body: bytes | bytearray) -> dict[str, Any]:
    """The JSON object of a body."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as problem:
        raise BadRequest(f"the body is not JSON: {problem}") from None
    if not isinstance(found, dict):
        raise BadRequest(f"the body is {_kind(found)}, expected an object")
    return found


def read(fields: Mapping[str, Any], *, chat: bool, model: str, text: Text, limits: Limits) -> Ask:
    """What the fields ask for; BadRequest or UnknownModel where it can not be given."""
    _check_model(fields, model)
    _check_neutral(fields)
    stream = _flag(fields, "stream")
    usage, usage_always = _stream_options(fields, stream)
    prompt = _messages(fields, text) if chat else _prompt(fields, text)
    return Ask(
        chat=chat,
        prompt=limits.prompt(prompt),
        max_tokens=limits.output(_max_tokens(fields, chat, limits)),
        ignore_eos=_flag(fields, "ignore_eos"),
        stream=stream,
        usage=usage,
        usage_always=usage_always,
        token_ids=_flag(fields, "return_token_ids"),
    )


def _check_model(fields: Mapping[str, Any], model: str) -> None:
    asked = fields.get("model")
    if asked is not None and asked != model:
        raise UnknownModel(f"got model {_short(asked)}, this server has {model!r}")


def _check_neutral(fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        if value is None or name in READ or name in WITHOUT_EFFECT:
            continue
        if name not in NEUTRAL:
            raise BadRequest(f"the field {_short(name)} is not known here: leave it out")
        if value not in NEUTRAL[name]:
            allowed = " or ".join(json.dumps(each) for each in NEUTRAL[name])
            raise BadRequest(
                f"got {name} {_short(value)}, expected {allowed}: this server decodes greedily, "
                "one answer for one prompt"
            )


def _flag(fields: Mapping[str, Any], name: str) -> bool:
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        raise BadRequest(f"got {name} {_short(value)}, expected true or false")
    return bool(value)


def _stream_options(fields: Mapping[str, Any], stream: bool) -> tuple[bool, bool]:
    options = fields.get("stream_options")
    if options is None:
        return False, False
    if not isinstance(options, dict) or not stream:
        raise BadRequest("stream_options are an object and need stream: true")
    unknown = sorted(set(options) - {"include_usage", "continuous_usage_stats"})
    if unknown:
        raise BadRequest(f"stream_options {_short(unknown)} are not known here: leave them out")
    usage = _flag(options, "include_usage")
    always = _flag(options, "continuous_usage_stats")
    if always and not usage:
        raise BadRequest("continuous_usage_stats needs include_usage: true")
    return usage, always


def _max_tokens(fields: Mapping[str, Any], chat: bool, limits: Limits) -> int:
    given = [fields[name] for name in ("max_completion_tokens", "max_tokens")
             if fields.get(name) is not None]  # fmt: skip
    if not given:
        return limits.output_tokens if chat else min(DEFAULT_TOKENS, limits.output_tokens)
    if type(given[0]) is not int or given[-1] != given[0]:
        raise BadRequest(f"got max_tokens {_short(given)}, expected one whole number")
    return int(given[0])


def _prompt(fields: Mapping[str, Any], text: Text) -> list[int]:
    """A string or a list of token ids, or a list with one of these."""
    prompt = fields.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], (str, list)):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return text.encode(prompt)
    if isinstance(prompt, list) and all(type(token) is int for token in prompt):
        return prompt
    raise BadRequest(
        f"got prompt {_short(prompt)}, expected one string or one list of token ids: "
        "send several prompts as several requests"
    )


def _messages(fields: Mapping[str, Any], text: Text) -> list[int]:
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest(f"got messages {_short(messages)}, expected a list with one at least")
    try:
        return text.chat_tokens([_message(message) for message in messages])
    except ValueError as problem:
        raise BadRequest(str(problem)) from None


def _message(message: Any) -> dict[str, str]:
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        raise BadRequest(f"got message {_short(message)}, expected role {' or '.join(ROLES)}")
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(_part(part) for part in content)
    if not isinstance(content, str):
        raise BadRequest(f"got content {_short(content)}, expected text")
    return {"role": message["role"], "content": content}


def _part(part: Any) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    raise BadRequest(f"got a part {_short(part)} of a message, expected text")


def _short(value: Any) -> str:
    shown = json.dumps(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _kind(value: Any) -> str:
    return {list: "a list", str: "a string", type(None): "null"}.get(type(value), "a number")
