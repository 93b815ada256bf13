"""How likely an engine finds a text: what it is asked, and what is made of its answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from perfsuite.errors import Void
from perfsuite.perplexity import METRIC, has_perplexity, perplexity
from perfsuite.workloads import Workload

WORDS = ["so", "well", "prince", "genoa", "and", "lucca"]


@pytest.fixture
def workload(tmp_path: Path, make_workload: Callable[..., Workload]) -> Workload:
    """Two sequences of six tokens on a checkpoint whose tokens are words."""
    library = pytest.importorskip("tokenizers")
    vocabulary = {word: number for number, word in enumerate(["<unk>", *WORDS])}
    made = library.Tokenizer(library.models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = library.pre_tokenizers.WhitespaceSplit()
    made.save(str(tmp_path / "tokenizer.json"))
    plain = make_workload(kind="generate", batch=2, input_tokens=4, output_tokens=2)
    return plain.sized(model=replace(plain.model, checkpoint=str(tmp_path)))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Twelve words."""
    file = tmp_path / "text.txt"
    file.write_text(" ".join(WORDS + WORDS[::-1]), encoding="utf-8")
    return file


def offer(loss: Any, seen: list[Any] | None = None) -> Any:
    def likelihood(engine: Any, token_ids: Any) -> Any:
        if seen is not None:
            seen.append((engine, token_ids))
        return loss() if callable(loss) else loss

    return SimpleNamespace(name="mine", negative_log_likelihood=likelihood)


def test_it_is_e_to_the_loss(workload: Workload, text: Path) -> None:
    seen: list[Any] = []
    found, words = perplexity(offer(math.log(7.5), seen), "engine", workload, text)
    ((figure, value),) = found.items()
    assert figure.startswith(f"{METRIC}@text-")
    assert value == pytest.approx(7.5)
    assert seen == [("engine", [[1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1]])]
    assert words["perplexity"] == f"text.txt, 2 x 6 tokens, tokenizer.json of {text.parent.name}"


def test_another_text_is_another_figure(workload: Workload, text: Path) -> None:
    """Under the same name too."""
    first, _ = perplexity(offer(1.0), None, workload, text)
    assert perplexity(offer(2.0), None, workload, text)[0].keys() == first.keys()
    text.write_text(" ".join(WORDS + WORDS), encoding="utf-8")
    assert perplexity(offer(1.0), None, workload, text)[0].keys().isdisjoint(first)


def test_no_more_is_read_than_the_cache_holds(workload: Workload, text: Path) -> None:
    seen: list[Any] = []
    perplexity(offer(1.0, seen), None, workload.sized(cache_tokens=3), text)
    assert seen == [(None, [[1, 2, 3], [4, 5, 6]])]


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        (math.nan, "perplexity/teacher_forced is nan"),
        (math.inf, "perplexity/teacher_forced is inf"),
        (1e6, "perplexity/teacher_forced is inf"),
        (-0.5, "a loss of -0.5 nats a token: no token is so likely"),
        (lambda: 1 / 0, "negative_log_likelihood raised ZeroDivisionError"),
        ("much", "negative_log_likelihood raised ValueError"),
    ],
)
def test_what_is_no_figure_is_void(
    workload: Workload, text: Path, loss: Any, reason: str
) -> None:
    with pytest.raises(Void, match=reason):
        perplexity(offer(loss), None, workload, text)


def test_a_text_that_can_not_be_used_is_told(workload: Workload, text: Path) -> None:
    """Too short, no UTF-8, or no tokenizer to read it."""
    text.write_text("so well prince", encoding="utf-8")
    with pytest.raises(Void, match="3 tokens, expected 2 x 6: give a longer text"):
        perplexity(offer(1.0), None, workload, text)
    text.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Void, match="cannot read it as UTF-8"):
        perplexity(offer(1.0), None, workload, text)
    text.write_text("so well", encoding="utf-8")
    (text.parent / "tokenizer.json").unlink()
    with pytest.raises(Void, match=r"tokenizer\.json is missing"):
        perplexity(offer(1.0), None, workload, text)


def test_who_is_asked(workload: Workload) -> None:
    """An offer that can, on a checkpoint, for a batch of one shape."""
    assert has_perplexity(offer(1.0), workload)
    assert not has_perplexity(SimpleNamespace(name="mine"), workload)
    assert not has_perplexity(offer(1.0), workload.sized(kind="multi_user"))
    random = workload.sized(model=replace(workload.model, checkpoint=None))
    assert not has_perplexity(offer(1.0), random)
