"""Text and tokens: bytes, a tokenizer's file, chat templates, incomplete characters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engines.serve.text import Bytes, Tokenizer, stop_tokens

tokenizers = pytest.importorskip("tokenizers", reason="needs tokenizers")
MESSAGES = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A byte-level tokenizer with special tokens, as checkpoints have it."""
    from tokenizers import decoders, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(alphabet)}
    made = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.add_special_tokens(["<s>", "</s>"])
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", made.token_to_id("<s>"))]
    )
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_bytes_come_back_as_they_were_whatever_the_pieces() -> None:
    text, said = Bytes(256), "Grüße, 世界 🙂"
    reader = text.reader()
    pieces = [reader.read([token]) for token in text.encode(said)]
    assert "".join(pieces) + reader.rest() == said
    assert "" in pieces  # an incomplete character is kept back


def test_ids_that_are_no_bytes_are_shown_as_missing() -> None:
    reader = Bytes(1000).reader()
    assert reader.read([0xC3, 300, 65]) == "��A"
    assert reader.read([0xC3]) == ""
    assert reader.rest() == "�"


def test_a_tokenizer_reads_and_writes(folder: Path) -> None:
    text, said = Tokenizer(str(folder)), "Grüße, 世界"
    tokens = text.encode(said)
    assert tokens[0] == text.encode("", start=True)[0]
    assert text.encode(said, start=False) == tokens[1:]
    reader = text.reader()
    assert "".join(reader.read([token]) for token in tokens) == said
    assert Tokenizer(str(folder / "tokenizer.json")).name == text.name


def test_a_chat_is_lines_without_a_template(folder: Path) -> None:
    said = "system: be kind\nuser: hello\nassistant:"
    assert bytes(Bytes(256).chat_tokens(MESSAGES)).decode() == said
    text = Tokenizer(str(folder))
    assert text.chat_tokens(MESSAGES) == text.encode(said)
    assert text.chat == "lines of role and content"


def test_a_template_writes_the_chat(folder: Path) -> None:
    template = (
        "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    config = {"chat_template": template, "bos_token": {"content": "<s>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    text = Tokenizer(str(folder))
    assert text.chat == "its chat template"
    assert text.chat_tokens(MESSAGES) == text.encode("[system]be kind[user]hello[assistant]")


@pytest.mark.parametrize(
    "template",
    ["{{ raise_exception('planted') }}", "{{ messages.nothing.at_all }}",
     "{{ messages.__class__.__mro__[1].__subclasses__() }}"],
)  # fmt: skip
def test_a_template_that_refuses_or_reaches_out_is_an_error(folder: Path, template: str) -> None:
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(ValueError, match="the chat template refuses these messages"):
        Tokenizer(str(folder)).chat_tokens(MESSAGES)


def test_a_missing_or_broken_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tokenizer\.json is missing"):
        Tokenizer(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="is no tokenizer"):
        Tokenizer(str(tmp_path))


def test_stop_tokens_are_the_checkpoints(tmp_path: Path) -> None:
    assert stop_tokens(None) == stop_tokens(str(tmp_path)) == frozenset()
    (tmp_path / "config.json").write_text('{"eos_token_id": 2}')
    assert stop_tokens(str(tmp_path)) == {2}
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 5]}')
    assert stop_tokens(str(tmp_path)) == {2, 5}
