"""The Hydragen engine against the reference: shared prefixes, trees of them, bugs planted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch")

import torch

from engines.hydragen import attention
from engines.hydragen.engine import Hydragen
from engines.reference import forward
from engines.tolerance import disagreement, error_bound
from engines.weights import seeded_weights
from perfsuite.workloads.workload import Model

DECODES = 4
Rows = Sequence[Sequence[int]]


def opened(model: Model, batch: int, dtype: str = "float32", **options: Any) -> Hydragen:
    weights = seeded_weights(model, dtype)
    fields = {"shared_tokens": 40, "own_tokens": DECODES} | options
    return Hydragen(model, batch=batch, weights=weights, dtype=dtype, **fields)


def row(time: int, seed: int) -> list[int]:
    found: list[int] = np.random.default_rng(seed).integers(0, 256, time).tolist()
    return found


def rows(*lengths: int, seed: int = 0) -> list[list[int]]:
    return [row(time, seed + 10 * number) for number, time in enumerate(lengths)]


def ways(tree: Sequence[Rows], batch: int) -> list[list[int]]:
    """Each sequence's whole prompt."""
    return [
        [token for level in tree for token in level[number * len(level) // batch]]
        for number in range(batch)
    ]


def verdict(engine: Hydragen, step: Any, prompts: Rows) -> str | None:
    """What is wrong with the step and DECODES more, sequence by sequence, teacher-forced."""
    steps = [step]
    for _ in range(DECODES):
        steps.append(engine.decode(steps[-1]))
    engine.wait(steps[-1])
    tokens = np.stack([step.tokens.numpy() for step in steps], axis=1)
    logits = np.stack([step.logits() for step in steps], axis=1)
    found = [judged(engine, *each) for each in zip(prompts, tokens, logits, strict=True)]
    return next(filter(None, found), None)


def judged(engine: Hydragen, prompt: Sequence[int], tokens: Any, logits: Any) -> str | None:
    model, dtype = engine.model, engine.config["dtype"]
    seen = np.array([[*prompt, *tokens[:-1]]])
    weights = seeded_weights(model, dtype)
    exact = forward(model, weights, seen)
    bound = error_bound(model, weights, seen, dtype, exact)
    first = len(prompt) - 1
    return disagreement(logits[None], tokens[None], exact[:, first:], bound[:, first:])


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_shared_prefix_agrees(shape: Model, dtype: str, batch: int, share: bool) -> None:
    engine, prefix = opened(shape, batch, dtype, share=share), row(9, 1)
    assert verdict(engine, engine.prefill_shared(prefix, batch), [prefix] * batch) is None


TREES: dict[str, Sequence[Rows]] = {
    "one level": [rows(5, 3, 7, 1)],
    "two levels": [rows(9), rows(3, 3, 3, 3)],
    "ragged suffixes": [rows(9), rows(1, 4, 2, 6)],
    "ragged prefixes": [rows(2, 8), rows(1, 4, 2, 6)],
    "three levels": [rows(9), rows(5, 2), rows(4, 1, 3, 3)],
    "an empty row": [rows(9), rows(0, 3), rows(2, 1, 3, 3)],
    "an empty level": [rows(9), rows(0, 0), rows(2, 1, 3, 3)],
    "an empty root": [rows(0), rows(2, 2), rows(2, 1, 3, 3)],
    "sequences share their last level": [rows(6), rows(3, 5)],
}


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_tree_agrees(tiny: Model, name: str, dtype: str) -> None:
    engine, tree = opened(tiny, 4, dtype), TREES[name]
    assert verdict(engine, engine.prefill_tree(tree), ways(tree, 4)) is None


def test_a_plain_prefill_takes_any_lengths(shape: Model) -> None:
    engine, prompts = opened(shape, 3), rows(4, 11, 2)
    assert verdict(engine, engine.prefill(prompts), prompts) is None


def test_every_prompt_starts_afresh(tiny: Model) -> None:
    engine = opened(tiny, 4)
    verdict(engine, engine.prefill_tree(TREES["three levels"]), ways(TREES["three levels"], 4))
    prefix = row(7, 5)
    assert verdict(engine, engine.prefill_shared(prefix, 4), [prefix] * 4) is None


def test_another_batch_takes_new_caches(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, prefix = opened(tiny, 2), row(7, 5)
    with monkeypatch.context() as patch:
        patch.setattr("engines.memory.free_bytes", lambda device: 1000)
        with pytest.raises(MemoryError, match="a batch of 64 with 4 tokens each needs"):
            engine.prefill_shared(prefix, 64)
    assert verdict(engine, engine.prefill_shared(prefix, 3), [prefix] * 3) is None
    assert engine.config["batch"] == 3


def test_an_older_step_can_be_decoded_again(tiny: Model) -> None:
    engine = opened(tiny, 2)
    start = engine.prefill_shared(row(6, 2), 2)
    first = engine.decode(start).logits()
    np.testing.assert_array_equal(engine.decode(start).logits(), first)


@pytest.mark.parametrize("share", [True, False])
def test_answers_are_those_of_the_whole_prompts(tiny: Model, share: bool) -> None:
    prefix, questions = row(9, 3), rows(4, 2, 6)
    engine = opened(tiny, 3, share=share)
    engine.prefill_shared(prefix, 3)
    found = engine.answer(questions, 4)
    again = engine.answer(questions, 4)
    np.testing.assert_array_equal(found, again)
    for question, answer in zip(questions, found, strict=True):
        alone = opened(tiny, 1)
        step = alone.prefill([prefix + question])
        for token in answer:
            assert step.tokens.tolist() == [token]
            step = alone.decode(step)


# What is refused


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ([], r"got levels of \[\] rows"),
        ([[]], r"got levels of \[0\] rows for 4 sequences"),
        ([rows(3, 3, 3)], r"got levels of \[3\] rows for 4 sequences, expected that each"),
        ([rows(3, 3), rows(1, 1, 1)], r"got levels of \[2, 3\]"),
        ([rows(3), rows(1, 0, 1, 1)], "a row of the last level is empty"),
        ([rows(30), rows(11)], "is 41 tokens long, the engine was opened for 40"),
        ([[[1, 256]]], "got token ids from 1 to 256, expected 0 to 255"),
    ],
)
def test_bad_trees_are_named(tiny: Model, tree: Sequence[Rows], words: str) -> None:
    engine = opened(tiny, 4)
    with pytest.raises(ValueError, match=words):
        engine.prefill_tree(tree)


def test_bad_questions_and_sizes_are_named(tiny: Model) -> None:
    engine = opened(tiny, 2)
    with pytest.raises(ValueError, match="2 questions for 2 sequences behind 0 prefixes"):
        engine.answer(rows(1, 1), 2)
    engine.prefill_shared(row(30, 0), 2)
    with pytest.raises(ValueError, match="3 questions for 2 sequences"):
        engine.answer(rows(1, 1, 1), 2)
    with pytest.raises(ValueError, match="is 41 tokens long"):
        engine.answer(rows(11, 2), 2)
    with pytest.raises(ValueError, match="got own_tokens 0, expected at least 1"):
        opened(tiny, 2, own_tokens=0)


def test_a_full_cache_is_named(tiny: Model) -> None:
    engine = opened(tiny, 2, own_tokens=1)
    step = engine.decode(engine.prefill_shared(row(3, 0), 2))
    with pytest.raises(ValueError, match="holds 1 tokens of a sequence's own and is full"):
        engine.decode(step)


# Planted bugs


def half_combine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts are weighed in float16."""
    real = attention.combine

    def half(parts: Any) -> Any:
        return real([attention.Part(part.out, part.lse.half().float()) for part in parts])

    monkeypatch.setattr("engines.hydragen.engine.combine", half)


def last_part_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.hydragen.engine.combine", lambda parts: parts[0].out)


def mask_off_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest token of the prefix is not seen."""
    real = attention.attend_joined

    def shorter(attend: Any, q: Any, keys: Any, values: Any) -> Any:
        time = keys.shape[2] - 1
        return real(attend, q, keys.narrow(2, 0, time), values.narrow(2, 0, time))

    monkeypatch.setattr(attention, "attend_joined", shorter)


def another_rows_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sequences read the prefix of their neighbour."""
    real = attention.attend_joined

    def turned(attend: Any, q: Any, keys: Any, values: Any) -> Any:
        return real(attend, q, keys.roll(1, 0), values.roll(1, 0))

    monkeypatch.setattr("engines.hydragen.engine.attend_joined", turned)


def starts_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoded tokens count their places from 0."""
    monkeypatch.setattr("engines.hydragen.engine._shortened", lambda starts: (0,))


BUGS = [half_combine, last_part_forgotten, mask_off_by_one, another_rows_prefix, starts_forgotten]


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_caught(
    tiny: Model, bug: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = TREES["two levels"]
    bug(monkeypatch)
    engine = opened(tiny, 4)
    assert verdict(engine, engine.prefill_tree(tree), ways(tree, 4)) is not None


def test_a_head_scaled_by_one_percent_is_caught(tiny: Model) -> None:
    engine, prefix = opened(tiny, 2), row(9, 1)
    with torch.inference_mode():
        engine.weights.layers[1].output.narrow(1, 16, 16).mul_(1.01)
    assert verdict(engine, engine.prefill_shared(prefix, 2), [prefix] * 2) is not None
