"""Text to token ids: by a checkpoint's own tokenizer, or folded bytes where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from perfsuite.errors import EngineUnavailable


class Tokenizer(Protocol):
    """How a text becomes tokens."""

    name: str  # for the effective configuration
    speaks: bool  # whether tokens can be turned into text again

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """The token ids of a text, or of one that continues another."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids, where it speaks."""


class FoldedBytes:
    """For random weights: the bytes of a text in groups, each folded to an id of the vocabulary.

    So many bytes make a token on average as make `text` exactly `tokens` long: the work is that of
    the workload, whatever the text.
    """

    speaks = False

    def __init__(self, vocab_size: int, text: str, tokens: int) -> None:
        self._vocab, self._bytes, self._tokens = vocab_size, len(text.encode()), max(tokens, 1)
        rate = self._bytes / self._tokens
        self.name = f"bytes folded into the vocabulary, {rate:.2f} a token"

    def encode(self, text: str, *, continues: bool = False) -> list[int]:  # noqa: ARG002
        """At least one token; equal texts have equal tokens."""
        data = text.encode()
        count = max(1, round(len(data) * self._tokens / self._bytes))
        edges = [len(data) * number // count for number in range(count + 1)]
        # 256 and vocab - 1 share no factor where the vocabulary is even: every byte counts
        return [
            int.from_bytes(data[start:end]) % (self._vocab - 1) for start, end in pairwise(edges)
        ]

    def decode(self, tokens: Sequence[int]) -> str:
        """Refused: random weights say nothing."""
        raise NotImplementedError(f"{len(tokens)} tokens of random weights are no text")


class CheckpointTokenizer:
    """The `tokenizer.json` of a checkpoint's folder, read by the tokenizers library."""

    speaks = True

    def __init__(self, folder: Path) -> None:
        """Raises EngineUnavailable where the library or the file is missing."""
        self._tokenizer = _loaded(folder / "tokenizer.json")
        self._tokenizer.no_truncation()  # what its trainer set would change every length
        self._tokenizer.no_padding()
        self.name = f"tokenizer.json of {folder.name}"

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """As the checkpoint was trained; only a text that starts has special tokens."""
        return list(self._tokenizer.encode(text, add_special_tokens=not continues).ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """Without special tokens."""
        return str(self._tokenizer.decode(list(tokens)))


def _loaded(file: Path) -> Any:
    try:
        from tokenizers import Tokenizer as OfLibrary
    except ImportError:
        raise EngineUnavailable(
            "the texts of a checkpoint need the tokenizers library: pip install tokenizers"
        ) from None
    if not file.is_file():
        raise EngineUnavailable(f"{file} is missing: texts need the checkpoint's tokenizer")
    try:
        return OfLibrary.from_file(str(file))
    except Exception as problem:  # noqa: BLE001 - the library raises plain Exception
        raise EngineUnavailable(f"{file}: not a tokenizer: {problem}") from None
