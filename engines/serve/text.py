"""Text to token ids and back: by the tokenizer of a checkpoint, or bytes where there is none."""

from __future__ import annotations

import codecs
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

MISSING = "�"  # what Unicode shows for bytes that are no text


class Reader(Protocol):
    """The text of one answer, token by token."""

    def read(self, tokens: Sequence[int]) -> str:
        """What these tokens add; "" while a character is incomplete."""

    def rest(self) -> str:
        """What is left when the answer has ended."""


class Text(Protocol):
    """How prompts become tokens and tokens become text; `name` says it to clients."""

    name: str
    chat: str

    def encode(self, text: str, *, start: bool = True) -> list[int]:
        """Token ids; with the special tokens of a start unless the text has them."""

    def chat_tokens(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of a conversation that the model is to continue; ValueError for a bad one."""

    def reader(self) -> Reader:
        """For a new answer."""


def chat_lines(messages: Sequence[Mapping[str, str]]) -> str:
    """A conversation where no template says how to write it."""
    lines = [f"{message['role']}: {message['content']}" for message in messages]
    return "\n".join([*lines, "assistant:"])


class Bytes:
    """UTF-8, a token a byte: for models with random weights; other ids are shown as U+FFFD."""

    name = "bytes: token ids 0 to 255 are the bytes of UTF-8"
    chat = "lines of role and content"

    def __init__(self, vocabulary: int) -> None:
        if vocabulary < 256:
            raise ValueError(
                f"the model knows {vocabulary} tokens, bytes need 256: give --tokenizer_path"
            )

    def encode(self, text: str, *, start: bool = True) -> list[int]:  # noqa: ARG002
        """The bytes."""
        return list(text.encode())

    def chat_tokens(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The bytes of its lines."""
        return self.encode(chat_lines(messages))

    def reader(self) -> Reader:
        """Characters that are incomplete are kept back."""
        return _BytesReader()


class _BytesReader:
    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def read(self, tokens: Sequence[int]) -> str:
        return "".join(self._character(token) for token in tokens)

    def _character(self, token: int) -> str:
        if token < 256:
            return self._decoder.decode(bytes([token]))
        return self._decoder.decode(b"", final=True) + MISSING

    def rest(self) -> str:
        return self._decoder.decode(b"", final=True)


class Tokenizer:
    """The tokenizer.json of a folder, and its chat template where it has one."""

    def __init__(self, path: str) -> None:
        """From a folder or the file itself; ValueError where it can not be read."""
        file = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
        self._tokenizer = _loaded(file)
        self.name = f"tokenizer.json of {file.resolve().parent.name}"
        self._template = _template(file.parent)
        self.chat = "its chat template" if self._template else Bytes.chat

    def encode(self, text: str, *, start: bool = True) -> list[int]:
        """As the tokenizer does it."""
        return list(self._tokenizer.encode(text, add_special_tokens=start).ids)

    def chat_tokens(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """By the template, which writes the special tokens itself."""
        if self._template is None:
            return self.encode(chat_lines(messages))
        return self.encode(self._template(messages), start=False)

    def reader(self) -> Reader:
        """By the library's own incremental decoding, without special tokens."""
        return _TokenizerReader(self._tokenizer)


class _TokenizerReader:
    def __init__(self, tokenizer: Any) -> None:
        from tokenizers.decoders import DecodeStream

        self._tokenizer, self._stream = tokenizer, DecodeStream(skip_special_tokens=True)

    def read(self, tokens: Sequence[int]) -> str:
        return "".join(self._stream.step(self._tokenizer, token) or "" for token in tokens)

    def rest(self) -> str:
        return ""  # the library does not hand out what is incomplete


def _loaded(file: Path) -> Any:
    from tokenizers import Tokenizer as Library

    if not file.is_file():
        raise ValueError(
            f"{file} is missing: --tokenizer_path names a tokenizer.json or its folder"
        )
    try:
        return Library.from_file(str(file))
    except Exception as problem:  # noqa: BLE001 - the library raises plain Exception
        raise ValueError(f"{file} is no tokenizer: {problem}") from None


def _template(folder: Path) -> Any:
    """Messages -> text, or None; the template is run in jinja2's sandbox."""
    config = _json(folder / "tokenizer_config.json")
    file = folder / "chat_template.jinja"
    source = file.read_text() if file.is_file() else config.get("chat_template")
    if not isinstance(source, str):
        return None
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = _refuse
    template = environment.from_string(source)
    special = {name: _written(config.get(name)) for name in ("bos_token", "eos_token")}

    def rendered(messages: Sequence[Mapping[str, str]]) -> str:
        try:
            return template.render(messages=messages, add_generation_prompt=True, **special)
        except TemplateError as problem:
            raise ValueError(f"the chat template refuses these messages: {problem}") from None

    return rendered


def _refuse(message: str) -> None:
    raise ValueError(f"the chat template refuses these messages: {message}")


def _written(token: Any) -> str:
    """A special token in tokenizer_config.json is its text, or an object with it."""
    return str(token.get("content", "") if isinstance(token, dict) else token or "")


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text())
    except ValueError as problem:
        raise ValueError(f"{file} is not JSON: {problem}") from None
    return found if isinstance(found, dict) else {}


def stop_tokens(folder: str | None) -> frozenset[int]:
    """The ids that end an answer, by the checkpoint's generation_config.json or config.json."""
    if folder is None:
        return frozenset()
    for name in ("generation_config.json", "config.json"):
        found = _json(Path(folder) / name).get("eos_token_id")
        if found is not None:
            return frozenset(found if isinstance(found, list) else [found])
    return frozenset()
