"""A needle-in-a-haystack task: a long text, sentences hidden in it, and questions about them. Pure
but for reading the text.

As Hydragen's `scripts/needles.py` asks it: sentences that give dogs' furs a color stand among the
sentences of a text; a few worked examples follow it, and each question asks for one dog's color.
Differences: names are made of syllables, and without a file the text is made of common words.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from random import Random

from perfsuite.errors import OptionError

SEED = 9  # the script's own
FEW_SHOT = 5  # worked examples behind the text, the script's default
MOST_NEEDLES = 256  # asked about; of more questions than that, needles are asked for again
_NEEDLE = "The dog named {name} has fur that is {color}."
_QUESTION = "Question: What color is the fur of the dog named {name}?\nAnswer:"
_EXAMPLE_ANSWER = " ###{color}###\n"
_ANSWER = re.compile(r"###(.*?)###")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_COLORS = ("black", "white", "brown", "gray", "red", "golden", "blue", "green")
_FIRST = ("Ba", "Do", "Fi", "Ga", "Hu", "Jo", "Ka", "Li", "Mo", "Na", "Pe", "Ro", "Sa", "Ti",
          "Vu", "Ze")  # fmt: skip
_SECOND = ("bo", "da", "fi", "go", "hu", "ja", "ki", "lo", "mu", "na", "po", "ri", "sa", "to",
           "vi", "wa", "zo")  # fmt: skip
_WORDS = ("the", "old", "road", "went", "over", "a", "hill", "and", "down", "to", "river", "where",
          "men", "were", "waiting", "for", "news", "of", "war", "while", "their", "horses", "stood",
          "quiet", "in", "snow", "that", "had", "come", "before", "day")  # fmt: skip


@dataclass(frozen=True)
class Dog:
    """A needle: a name and the color that belongs to it."""

    name: str
    color: str

    @property
    def needle(self) -> str:
        """The sentence that is hidden."""
        return _NEEDLE.format(name=self.name, color=self.color)

    @property
    def question(self) -> str:
        """What is asked, up to where the answer begins."""
        return _QUESTION.format(name=self.name)


@dataclass(frozen=True)
class Task:
    """The prompt that all questions share, and the dogs that they ask about in turn."""

    prompt: str  # the text with its needles, then the worked examples
    dogs: tuple[Dog, ...]
    source: str  # which text it is, for the effective configuration

    def asked(self, count: int) -> list[Dog]:
        """The dogs of `count` questions; beyond the needles they are asked about again."""
        return [self.dogs[number % len(self.dogs)] for number in range(count)]


def task(characters: int, questions: int, file: Path | None = None) -> Task:
    """A text of exactly that many characters, needles included, for up to that many questions.

    Raises OptionError where the file cannot be read or is shorter than the text, or where the
    needles alone are longer than it.
    """
    random = Random(SEED)  # noqa: S311 - a text is no secret
    needles = _dogs(min(questions, MOST_NEEDLES) + FEW_SHOT, random)
    room = characters - sum(len(dog.needle) + 1 for dog in needles)
    if room < 0:
        raise OptionError(
            f"{len(needles)} needles take {characters - room} characters, the prompt has"
            f" {characters}: ask fewer questions, or set a longer base_prompt_string_length"
        )
    text = generated(characters) if file is None else read(file, characters)
    examples, dogs = needles[:FEW_SHOT], needles[FEW_SHOT:]
    hidden = _hidden(text[:room], random.sample(needles, len(needles)))
    worked = (dog.question + _EXAMPLE_ANSWER.format(color=dog.color) for dog in examples)
    source = "generated text" if file is None else f"{file.name}, {len(text)} characters"
    return Task(f"{hidden}\n{''.join(worked)}", tuple(dogs), source)


def read(file: Path, characters: int) -> str:
    """The text of a file; OptionError where it cannot be read or has too few characters."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise OptionError(f"--perf-haystack {file}: cannot read it as UTF-8: {problem}") from None
    if len(text) < characters:
        raise OptionError(
            f"--perf-haystack {file}: the haystack has {len(text)} characters, the prompt needs"
            f" {characters}: give a longer text"
        )
    return text


def generated(characters: int) -> str:
    """Sentences of common words, the same in every process, of at least that many characters."""
    random = Random(SEED)  # noqa: S311 - as above
    sentences: list[str] = []
    length = 0
    while length < characters:
        words = random.choices(_WORDS, k=random.randint(6, 18))
        sentences.append(f"{' '.join(words).capitalize()}.")
        length += len(sentences[-1]) + 1
    return " ".join(sentences)


def answer_in(text: str) -> str:
    """What stands between the first pair of ###, or nothing."""
    found = _ANSWER.search(text)
    return found.group(1) if found else ""


def wrong(texts: Iterable[str], dogs: Sequence[Dog]) -> int:
    """How many generated answers do not hold exactly the color that was asked for."""
    return sum(answer_in(text) != dog.color for text, dog in zip(texts, dogs, strict=True))


def _dogs(count: int, random: Random) -> list[Dog]:
    names = ["".join(syllables) for syllables in product(_FIRST, _SECOND)]
    return [Dog(name, random.choice(_COLORS)) for name in random.sample(names, count)]


def _hidden(text: str, needles: Sequence[Dog]) -> str:
    """The needles spread evenly over the text, each before the sentence at its place."""
    starts = [match.end() for match in _SENTENCE_END.finditer(text)]
    wanted = [len(text) * (2 * n + 1) // (2 * len(needles)) for n in range(len(needles))]
    places = [0, *(_sentence_near(starts, place) for place in wanted), len(text)]
    pieces = [text[start:end] for start, end in pairwise(places)]
    sentences = [f"{dog.needle} " for dog in needles]
    return pieces[0] + "".join(s + piece for s, piece in zip(sentences, pieces[1:], strict=True))


def _sentence_near(starts: Sequence[int], place: int) -> int:
    """The first start of a sentence from a place on, else the last; 0 where there is none."""
    at = bisect_left(starts, place)
    return starts[min(at, len(starts) - 1)] if starts else 0
