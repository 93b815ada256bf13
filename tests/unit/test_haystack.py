"""The text, the needles in it, and what counts as a right answer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from perfsuite import haystack
from perfsuite.errors import OptionError
from perfsuite.haystack import FEW_SHOT, Dog, answer_in, generated, task, wrong

NEEDLE = re.compile(r"The dog named (\w+) has fur that is (\w+)\.")


def text_of(prompt: str) -> str:
    """The prompt without the worked examples."""
    return prompt.partition("\nQuestion:")[0]


@pytest.mark.parametrize(("characters", "questions"), [(640, 8), (50_000, 1024), (700, 1)])
def test_the_prompt_is_as_long_as_asked(characters: int, questions: int) -> None:
    """To the character, needles included; the worked examples come behind."""
    assert len(text_of(task(characters, questions).prompt)) == characters


def test_every_dog_that_is_asked_about_is_in_the_text_once() -> None:
    """With the color that counts as right; so are those of the worked examples."""
    found = task(50_000, 1024)
    hidden = NEEDLE.findall(text_of(found.prompt))
    assert len(hidden) == len(dict(hidden)) == len(found.dogs) + FEW_SHOT == 261
    assert all(dict(hidden)[dog.name] == dog.color for dog in found.dogs)


def test_worked_examples_ask_about_other_dogs() -> None:
    """Five of them, answered as an answer is read, and right."""
    found = task(50_000, 64)
    examples = re.findall(r"Question: .* named (\w+)\?\nAnswer: ###(\w+)###\n", found.prompt)
    assert len(examples) == FEW_SHOT
    assert not {name for name, _ in examples} & {dog.name for dog in found.dogs}
    assert set(examples) <= set(NEEDLE.findall(found.prompt))


def test_needles_are_spread_over_the_text() -> None:
    """Each tenth of it has some, and none stands inside a sentence."""
    found = task(50_000, 64)
    places = [match.start() for match in NEEDLE.finditer(text_of(found.prompt))]
    assert {place // 5000 for place in places} == set(range(10))
    assert all(found.prompt[place - 2 : place] == ". " for place in places if place)


def test_a_text_without_sentences_takes_needles_too(tmp_path: Path) -> None:
    """All of them at its start."""
    file = tmp_path / "plain.txt"
    file.write_text("word " * 1000)
    assert len(NEEDLE.findall(task(2000, 4, file).prompt)) == 4 + FEW_SHOT


def test_more_questions_than_needles_ask_again() -> None:
    """The first dog is also the 257th."""
    found = task(50_000, 1024)
    asked = found.asked(300)
    assert len(found.dogs) == 256
    assert asked[256:] == asked[:44]


def test_the_task_is_the_same_every_time() -> None:
    """In every process: nothing depends on hashing or on what ran before."""
    assert task(640, 8) == task(640, 8)
    first = task(640, 2).dogs[0]
    assert first == task(640, 2).dogs[0]
    assert generated(100) == generated(100)


def test_a_file_is_cut_to_the_prompt(tmp_path: Path) -> None:
    """Its beginning is taken, and its name told."""
    file = tmp_path / "war.txt"
    file.write_text("Well, Prince. " * 200)
    found = task(1000, 2, file)
    assert "Well, Prince." in found.prompt
    assert len(text_of(found.prompt)) == 1000
    assert found.source == "war.txt, 2800 characters"


def test_a_haystack_shorter_than_the_prompt_is_refused(tmp_path: Path) -> None:
    """One character less is too short; both numbers are told."""
    file = tmp_path / "short.txt"
    file.write_text("a" * 999)
    with pytest.raises(OptionError, match=r"has 999 characters, the prompt needs 1000: give a lon"):
        task(1000, 2, file)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Other bytes, or none at all."""
    file = tmp_path / "bytes"
    file.write_bytes(b"\xff\xfe\xff" * 1000)
    with pytest.raises(OptionError, match="cannot read it as UTF-8"):
        task(1000, 2, file)
    with pytest.raises(OptionError, match="cannot read it as UTF-8"):
        task(1000, 2, tmp_path / "nowhere")


def test_needles_longer_than_the_prompt_are_refused() -> None:
    """With what would help."""
    with pytest.raises(OptionError, match=r"261 needles take \d+ characters, the prompt has 640"):
        task(640, 1024)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (" ###blue###\nQuestion", "blue"),
        ("###blue### and ###red###", "blue"),
        ("blue", ""),
        ("###blue", ""),
        ("######", ""),
        ("### blue###", " blue"),
        ("###blue\n###", ""),
    ],
)
def test_an_answer_stands_between_the_first_pair_of_marks(text: str, answer: str) -> None:
    """Exactly what is between them, on one line."""
    assert answer_in(text) == answer


@pytest.mark.parametrize(
    ("text", "is_wrong"),
    [
        (" ###blue###", 0),
        ("###Blue###", 1),
        ("### blue###", 1),
        ("the fur is blue", 1),  # planted: counting the word anywhere would call this right
        ("###red### not blue", 1),
        ("", 1),
    ],
)
def test_only_the_exact_color_is_right(text: str, is_wrong: int) -> None:
    """Said elsewhere, or otherwise, it is not."""
    assert wrong([text], [Dog("Bado", "blue")]) == is_wrong


def test_names_are_all_different() -> None:
    """As many as the most needles and examples need."""
    dogs = haystack._dogs(haystack.MOST_NEEDLES + FEW_SHOT, haystack.Random(1))
    assert len({dog.name for dog in dogs}) == len(dogs)
