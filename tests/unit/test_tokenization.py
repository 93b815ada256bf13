"""Text to tokens with and without a checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from perfsuite.errors import EngineUnavailable
from perfsuite.tokenization import CheckpointTokenizer, FoldedBytes


@pytest.mark.parametrize("tokens", [1, 7, 256, 640, 1000])
def test_a_text_becomes_as_many_tokens_as_the_workload_says(tokens: int) -> None:
    """Fewer than bytes, as many, or more."""
    text = "abcd" * 160
    assert len(FoldedBytes(250, text, tokens).encode(text)) == tokens


def test_folded_tokens_are_of_the_vocabulary() -> None:
    """For a small one too, and for letters of several bytes."""
    for vocab in (10, 256, 64000):
        text = "The dog named Bado, été 東京. " * 20
        assert all(0 <= token < vocab for token in FoldedBytes(vocab, text, 200).encode(text))


def test_every_byte_counts() -> None:
    """Two names that differ in any letter are different tokens."""
    tokens = FoldedBytes(256, "x" * 1000, 400)
    words = ["Bado", "Bedo", "Cado", "Bada", "Baso"]
    assert len({tuple(tokens.encode(f"dog {word}?")) for word in words}) == len(words)
    assert tokens.encode("same") == tokens.encode("same", continues=True)


def test_a_short_text_has_a_token() -> None:
    """Even where a token holds more bytes than it has."""
    assert len(FoldedBytes(256, "x" * 1000, 10).encode("a")) == 1


def test_random_weights_say_nothing() -> None:
    """Folded bytes can not be turned back."""
    tokens = FoldedBytes(256, "x", 1)
    assert not tokens.speaks
    with pytest.raises(NotImplementedError, match="random weights"):
        tokens.decode([1])


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder with a tokenizer of three words, which starts a text with a mark of its own."""
    library = pytest.importorskip("tokenizers")
    vocabulary = {"<s>": 0, "<unk>": 1, "###": 2, "blue": 3, "dog": 4}
    made = library.Tokenizer(library.models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = library.pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(["<s>"])
    made.post_processor = library.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_a_checkpoint_has_its_own_tokens(checkpoint: Path) -> None:
    """Only a text that starts has the mark; answers come back without it."""
    tokens = CheckpointTokenizer(checkpoint)
    assert tokens.speaks
    assert tokens.encode("dog blue") == [0, 4, 3]
    assert tokens.encode("dog blue", continues=True) == [4, 3]
    assert tokens.decode([0, 2, 3, 2]) == "### blue ###"


def test_what_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file, a file that is none, or the library."""
    pytest.importorskip("tokenizers")
    with pytest.raises(EngineUnavailable, match=r"tokenizer\.json is missing: texts need"):
        CheckpointTokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(EngineUnavailable, match="not a tokenizer"):
        CheckpointTokenizer(tmp_path)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(EngineUnavailable, match="pip install tokenizers"):
        CheckpointTokenizer(tmp_path)
