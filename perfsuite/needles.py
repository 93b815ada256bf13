"""Questions about needles in a long text that all of them share, with the answers' accuracy.

As Hydragen's `scripts/needles.py` takes it: the text is run once, apart, and then 2, 4, 8 ...
questions of different lengths are answered together, greedily. Time is always taken; whether an
answer is right has a meaning for a checkpoint alone, whose tokens are text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

from perfsuite import haystack
from perfsuite.errors import EngineUnavailable, OptionError, Void
from perfsuite.generation import Clock, Figures, counted, quiet
from perfsuite.intervals import elapsed
from perfsuite.protocols import Engine, NeedlesEngine
from perfsuite.tokenization import CheckpointTokenizer, FoldedBytes, Tokenizer
from perfsuite.workloads import Workload

TTFT = "time_to_first_token/prefill_until_first_token"
TIME = "answer_time/all_questions"
WRONG = "wrong_answers/exact_match"
_CHARACTERS = 50_000  # of the prompt, where the workload does not say: the document's

Rows = list[list[int]]  # of each question or answer its token ids


class Needles:
    """Rising counts of questions over one text, each count from a prefill of its own."""

    def __init__(
        self, engine: Engine, workload: Workload, clock: Clock, file: Path | None = None
    ) -> None:
        self._engine = cast("NeedlesEngine", engine)
        self._workload, self._clock = workload, clock
        characters = int(workload.option("base_prompt_string_length") or _CHARACTERS)
        try:
            self._task = haystack.task(characters, workload.batch, file)
            self._tokens = _tokenizer(workload, self._task.prompt)
        except (OptionError, EngineUnavailable) as problem:
            raise Void(str(problem)) from None
        self._prefix = self._tokens.encode(self._task.prompt)
        self._questions = [
            self._tokens.encode(dog.question, continues=True)
            for dog in self._task.asked(workload.batch)
        ]
        self._answers: dict[int, Rows] = {}

    def warm_up(self) -> None:
        """Every count once."""
        self.block()

    def block(self) -> Figures:
        """Prefill and answers of every count; of the prefills the one for most questions."""
        figures: Figures = {}
        for count in counts(self._workload.batch):
            prefill_s, answer_s = self._pass(count)
            figures[TTFT] = prefill_s
            figures[f"{TIME}@q{count}"] = answer_s
            if self._tokens.speaks:
                figures[f"{WRONG}@q{count}"] = self._wrong(count)
        return figures

    def once(self) -> Callable[[], object]:
        """The most questions, for the memory."""
        return lambda: self._pass(counts(self._workload.batch)[-1])

    def finish(self) -> None:
        """Raise Void when an answer is not of the vocabulary; its length was checked before."""
        vocab = self._workload.model.vocab_size
        for rows in self._answers.values():
            strange = {token for row in rows for token in row if not 0 <= token < vocab}
            if strange:
                raise Void(f"answers hold the ids {sorted(strange)[:5]}, the vocabulary {vocab}")

    def facts(self) -> dict[str, Any]:
        """What ran, and what was answered."""
        lengths = [len(question) for question in self._questions]
        texts = {"haystack": self._task.source, "tokens": self._tokens.name}
        return {
            "config": dict(self._engine.config) | texts,
            "batch": counts(self._workload.batch)[-1],
            "prefix_tokens": len(self._prefix),
            "question_tokens": [min(lengths), max(lengths)],
            **self._answered(),
        }

    def _answered(self) -> dict[str, Any]:
        """Accuracy and digests of the answers by their count, or why there are none.

        In half precision the tokens of random weights are often decided by less than rounding, so
        equal engines may differ in them.
        """
        digests = {str(count): self._digests(count) for count in self._answers}
        if self._tokens.speaks:
            right = {str(n): 1 - self._wrong(n) / n for n in self._answers}
            return {"accuracy": right, "answers": digests}
        absent = {WRONG: "random weights give no text, so no answer is right or wrong"}
        if self._workload.dtype == "float32":
            return {"absent": absent, "answers": digests}
        near = f"near ties decide the tokens of random weights in {self._workload.dtype}"
        return {"absent": absent, "answers_not_compared": near}

    def _pass(self, count: int) -> tuple[float, float]:
        """(seconds of the prefill, seconds until all answers are on the host)."""
        engine, questions = self._engine, self._questions[:count]
        with quiet():
            start = self._clock()
            engine.wait(step := engine.prefill_shared(self._prefix, count))
            between = self._clock()
            answers = engine.answer(questions, self._workload.output_tokens)
            rows = answers.tolist() if hasattr(answers, "tolist") else answers
            end = self._clock()
        counted([step.tokens], count)
        self._answers[count] = _checked(rows, count, self._workload.output_tokens)
        return elapsed(start, between), elapsed(between, end)

    def _wrong(self, count: int) -> int:
        texts = map(self._tokens.decode, self._answers[count])
        return haystack.wrong(texts, self._task.asked(count))

    def _digests(self, count: int) -> str:
        """One word for each answer: of a text what was found in it, else of all its tokens."""
        said = map(self._said, self._answers[count])
        return " ".join(blake2b(text.encode(), digest_size=4).hexdigest() for text in said)

    def _said(self, row: Sequence[int]) -> str:
        return haystack.answer_in(self._tokens.decode(row)) if self._tokens.speaks else str(row)


def counts(most: int) -> list[int]:
    """How many questions are asked together: 2, 4, 8 ... up to `most`; 1 where that is 1."""
    powers = [2**power for power in range(1, most.bit_length() + 1)]
    return [count for count in powers if count <= most] or [1]


def _tokenizer(workload: Workload, prompt: str) -> Tokenizer:
    folder = workload.model.checkpoint
    if folder is None:
        return FoldedBytes(workload.model.vocab_size, prompt, workload.shared_tokens)
    return CheckpointTokenizer(Path(folder))


def _checked(rows: Sequence[Sequence[int]], count: int, new_tokens: int) -> Rows:
    """The answers as they are; Void unless there are `count` of `new_tokens` each."""
    found = [[int(token) for token in row] for row in rows]
    lengths = {len(row) for row in found}
    if len(found) != count or lengths != {new_tokens}:
        raise Void(
            f"{len(found)} answers of {sorted(lengths)} tokens came back,"
            f" {count} of {new_tokens} were asked for"
        )
    return found
