"""Questions behind one text: what is timed, what is counted, what is told of the answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from perfsuite import needles
from perfsuite.errors import Void
from perfsuite.needles import TIME, TTFT, WRONG, counts
from perfsuite.procedures import procedure
from perfsuite.workloads import Workload

PREFILL, QUESTION, WAIT = 1.0, 0.25, 0.125
OPTIONS = (("base_prompt_string_length", "640"),)


class Engine:
    """Time passes with each question; answers are what `said` gives for a question's number."""

    config = {"kind": "fake"}  # noqa: RUF012

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[tuple[str, int]] = []
        self.prefixes: list[Sequence[int]] = []
        self.questions: list[Sequence[Sequence[int]]] = []
        self.said: Callable[[int], list[int]] = lambda number: [number % 7, 1, 2]
        self.as_array = np.array

    def clock(self) -> float:
        return self.now

    def prefill_shared(self, prefix_ids: Sequence[int], batch: int) -> Any:
        self.calls.append(("prefill_shared", batch))
        self.prefixes.append(prefix_ids)
        return SimpleNamespace(tokens=[0] * batch)

    def wait(self, step: Any) -> None:
        self.calls.append(("wait", len(step.tokens)))
        self.now += PREFILL + WAIT

    def answer(self, questions: Sequence[Sequence[int]], new_tokens: int) -> Any:
        self.calls.append(("answer", len(questions)))
        self.questions.append(questions)
        self.now += QUESTION * len(questions)
        return self.as_array([self.said(number)[:new_tokens] for number in range(len(questions))])


class Spoken:
    """A tokenizer whose tokens are the letters of a text."""

    name, speaks = "letters", True

    def __init__(self, folder: Path) -> None:
        assert folder == Path("folder")

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(map(chr, tokens))


@pytest.fixture
def engine() -> Engine:
    """An engine at second 0."""
    return Engine()


@pytest.fixture
def made(make_workload: Callable[..., Workload], engine: Engine) -> Callable[..., Any]:
    """The procedure of a small needles workload, warmed up."""

    def make(haystack: Path | None = None, **changes: Any) -> Any:
        model = replace(make_workload().model, vocab_size=250)
        fields = {"kind": "needles", "mode": "hydragen", "batch": 8, "shared_tokens": 256,
                  "input_tokens": 0, "output_tokens": 3, "options": OPTIONS,
                  "model": model}  # fmt: skip
        workload = make_workload(**{**fields, **changes})
        subject = procedure(engine, workload, engine.clock, haystack)  # type: ignore[arg-type]
        subject.warm_up()
        return subject

    return make


@pytest.mark.parametrize(
    ("most", "found"),
    [(1, [1]), (2, [2]), (3, [2]), (8, [2, 4, 8]), (1024, [2**n for n in range(1, 11)])],
)
def test_counts_are_powers_of_two(most: int, found: list[int]) -> None:
    """From 2 up to the workload's batch."""
    assert counts(most) == found


def test_a_block_by_hand(made: Callable[..., Any], engine: Engine) -> None:
    """A quarter of a second a question; the prefill apart, with its wait."""
    subject = made()
    engine.calls.clear()
    assert subject.block() == {
        TTFT: 1.125,
        f"{TIME}@q2": 0.5,
        f"{TIME}@q4": 1.0,
        f"{TIME}@q8": 2.0,
    }
    each = ("prefill_shared", "wait", "answer")
    assert engine.calls == [(name, count) for count in (2, 4, 8) for name in each]


def test_without_a_tokenizer_the_prefix_is_as_long_as_the_workload_says(
    made: Callable[..., Any], engine: Engine
) -> None:
    """Questions differ in length or text, the prefix never does."""
    subject = made()
    assert {len(prefix) for prefix in engine.prefixes} == {256}
    assert all(prefix == engine.prefixes[0] for prefix in engine.prefixes)
    asked = engine.questions[-1]
    assert len({tuple(question) for question in asked}) == 8
    facts = subject.facts()
    assert facts["prefix_tokens"] == 256
    assert facts["question_tokens"] == [min(map(len, asked)), max(map(len, asked))]
    assert facts["config"]["tokens"].startswith("bytes folded into the vocabulary")
    assert facts["config"]["haystack"] == "generated text"
    assert facts["batch"] == 8


def test_random_weights_have_no_accuracy(made: Callable[..., Any]) -> None:
    """It is absent and said to be, and no figure stands for it."""
    subject = made()
    assert not [name for name in subject.block() if name.startswith(WRONG)]
    assert "accuracy" not in subject.facts()
    assert subject.facts()["absent"].keys() == {WRONG}


def test_answers_of_random_weights_are_compared_in_float32_alone(
    made: Callable[..., Any],
) -> None:
    """A word for each answer of each count; in half precision a reason."""
    digests = made().facts()["answers"]
    assert {count: len(words.split()) for count, words in digests.items()} == {
        "2": 2, "4": 4, "8": 8
    }  # fmt: skip
    assert digests["8"].split()[:4] == digests["4"].split()
    half = made(dtype="bfloat16").facts()
    assert "answers" not in half
    assert "near ties" in half["answers_not_compared"]


def test_one_other_token_is_another_digest(made: Callable[..., Any], engine: Engine) -> None:
    """Of that question, and of no other."""
    before = made().facts()["answers"]["8"].split()
    engine.said = lambda number: [number % 7, 1, 3 if number == 5 else 2]
    after = made().facts()["answers"]["8"].split()
    assert [n for n in range(8) if before[n] != after[n]] == [5]


def letters(text: str) -> list[int]:
    """Fifteen tokens of a text."""
    return [ord(letter) for letter in text.ljust(15)[:15]]


@pytest.fixture
def spoken(
    make_workload: Callable[..., Workload],
    made: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Any]:
    """As `made`, on a checkpoint with a tokenizer."""
    monkeypatch.setattr(needles, "CheckpointTokenizer", Spoken)
    model = replace(make_workload().model, checkpoint="folder", vocab_size=128)
    return lambda **changes: made(model=model, output_tokens=15, **changes)


def test_right_answers_of_a_checkpoint(spoken: Callable[..., Any], engine: Engine) -> None:
    """All right: none is wrong, at every count."""
    engine.said = lambda number: letters("")
    colors = [dog.color for dog in spoken()._task.asked(8)]
    engine.said = lambda number: letters(f" ###{colors[number]}###")
    subject = spoken()
    figures = subject.block()
    assert {name: n for name, n in figures.items() if name.startswith(WRONG)} == {
        f"{WRONG}@q2": 0, f"{WRONG}@q4": 0, f"{WRONG}@q8": 0
    }  # fmt: skip
    assert subject.facts()["accuracy"] == {"2": 1.0, "4": 1.0, "8": 1.0}


def test_a_color_outside_the_marks_is_wrong(spoken: Callable[..., Any], engine: Engine) -> None:
    """Planted: an accuracy that looks for the word alone would call all of these right."""
    engine.said = lambda number: letters("")
    colors = [dog.color for dog in spoken()._task.asked(8)]
    engine.said = lambda number: letters(
        f"###{colors[number]}###" if number < 3 else f" {colors[number]}"
    )
    subject = spoken(dtype="bfloat16")
    assert subject.block()[f"{WRONG}@q8"] == 5
    assert subject.facts()["accuracy"]["8"] == 3 / 8


def test_only_what_was_found_in_a_text_is_compared(
    spoken: Callable[..., Any], engine: Engine
) -> None:
    """What a checkpoint says behind its answer is not part of it."""
    engine.said = lambda number: letters("###red### a")
    before = spoken(dtype="bfloat16").facts()["answers"]
    engine.said = lambda number: letters(" ###red### bc")
    assert spoken(dtype="bfloat16").facts()["answers"] == before
    engine.said = lambda number: letters("###blue###")
    assert spoken(dtype="bfloat16").facts()["answers"] != before


@pytest.mark.parametrize("as_array", [np.array, list], ids=["array", "lists"])
def test_answers_are_an_array_or_lists(
    made: Callable[..., Any], engine: Engine, as_array: Any
) -> None:
    """Either way they are counted and checked."""
    engine.as_array = as_array
    subject = made()
    subject.finish()
    assert subject.block()[f"{TIME}@q8"] == 2.0


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (lambda number: [1, 2], r"answers of \[2\] tokens came back, 2 of 3 were asked for"),
        (lambda number: [1] * (3 - number % 2), r"answers of \[2, 3\] tokens"),
    ],
)
def test_a_missing_token_voids_the_measurement(
    made: Callable[..., Any], engine: Engine, said: Any, words: str
) -> None:
    """An answer that ended early was another workload."""
    engine.as_array, engine.said = list, said  # type: ignore[assignment]
    with pytest.raises(Void, match=words):
        made()


def test_a_missing_answer_voids_the_measurement(made: Callable[..., Any], engine: Engine) -> None:
    """As does one that nobody asked for."""
    engine.as_array = lambda rows: rows[1:]  # type: ignore[assignment]
    with pytest.raises(Void, match=r"1 answers of .* 2 of 3 were asked for"):
        made()


def test_an_answer_beyond_the_vocabulary_voids_the_measurement(
    made: Callable[..., Any], engine: Engine
) -> None:
    """As many are known as the model has."""
    engine.said = lambda number: [1, 250, 2]
    subject = made()
    with pytest.raises(Void, match=r"answers hold the ids \[250\], the vocabulary 250"):
        subject.finish()


def test_the_memory_pass_asks_most(made: Callable[..., Any], engine: Engine) -> None:
    """All eight questions."""
    subject = made()
    engine.calls.clear()
    subject.once()()
    assert engine.calls == [("prefill_shared", 8), ("wait", 8), ("answer", 8)]


def test_a_short_haystack_voids_with_its_reason(made: Callable[..., Any], tmp_path: Path) -> None:
    """In place of a traceback."""
    file = tmp_path / "short.txt"
    file.write_text("Too short.")
    with pytest.raises(Void, match="the haystack has 10 characters, the prompt needs 640"):
        made(file)
