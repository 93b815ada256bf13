"""What requests say: filters, broken rows, and too few prompts, which is an error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pytest

from perfsuite.errors import OptionError
from perfsuite.serving.datasets import (
    Dataset,
    LengthLimits,
    LogNormal,
    fixed,
    shared_prefix,
    sharegpt,
    synthetic,
    uniform,
)

Write = Callable[[Any], Path]


def words(text: str) -> tuple[int, ...]:
    """A token for each word: its length."""
    return tuple(map(len, text.split()))


def turn(speaker: str, tokens: int) -> dict[str, str]:
    return {"from": speaker, "value": " ".join(["w" * (tokens % 7 + 1)] * tokens)}


def row(prompt: int, reply: int, first: str = "human") -> dict[str, Any]:
    """A conversation with lengths in tokens, and a third turn that is read over."""
    turns = [turn(first, prompt), turn("gpt", reply), turn("human", 9)]
    return {"id": f"{prompt}-{reply}", "conversations": turns}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(content: Any) -> Path:
        file = tmp_path / "sharegpt.json"
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return file

    return write


def lengths(found: Dataset) -> list[tuple[int, int]]:
    return sorted((len(request.prompt), request.max_tokens) for request in found.requests)


def test_a_conversation_is_its_first_two_turns(write: Write) -> None:
    """The prompt is the first, what is asked for is as long as the second."""
    found = sharegpt(write([row(5, 7)]), 1, 0, words)
    (request,) = found.requests
    assert request.prompt == (6,) * 5
    assert request.max_tokens == 7
    assert found.notes == []


def test_prompts_may_stay_text(write: Write) -> None:
    """For endpoints that take nothing else; lengths are judged in tokens all the same."""
    found = sharegpt(write([row(5, 7), row(3, 7)]), 1, 0, words, as_text=True)
    assert found.requests[0].prompt == "wwwwww wwwwww wwwwww wwwwww wwwwww"


def test_jetstreams_limits(write: Write) -> None:
    """4 tokens and more, 1024 of the prompt and 2048 in all at most; bounds may be reached."""
    kept = [(4, 4), (1024, 1024), (10, 2038)]
    out = [(3, 9), (9, 3), (1025, 9), (1024, 1025)]
    file = write([row(*pair) for pair in [*kept, *out]])
    found = sharegpt(file, 3, 0, words)
    assert lengths(found) == sorted(kept)
    with pytest.raises(OptionError) as refused:
        sharegpt(file, 4, 0, words)
    assert str(refused.value).splitlines() == [
        f"{file}: 3 prompts of 7 rows, 4 were asked for",
        "left out: 1 over 2048 tokens in all, 1 prompt over 1024 tokens, 2 under 4 tokens",
    ]


def test_a_conversation_begins_with_a_human_and_has_a_reply(write: Write) -> None:
    """Others are left out, and counted."""
    alone = {"conversations": [turn("human", 9)]}
    rows = [row(9, 9, first="gpt"), alone, {"conversations": []}, row(5, 7)]
    with pytest.raises(OptionError, match="1 prompts of 4 rows") as refused:
        sharegpt(write(rows), 2, 0, words)
    assert "left out: 3 not a human and a reply" in str(refused.value)


BROKEN = {
    "a row that is no object": 7,
    "no conversations": {"id": "a"},
    "conversations that are no list": {"conversations": "hello"},
    "a turn that is no object": {"conversations": ["hi", "ho"]},
    "a turn without a value": {"conversations": [{"from": "human"}, turn("gpt", 9)]},
    "a value that is no text": {"conversations": [turn("human", 9), {"from": "gpt", "value": 3}]},
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_row_is_counted_and_named(write: Write, what: str) -> None:
    """The rows around it are taken."""
    rows = [row(5, 7), BROKEN[what], row(6, 8)]
    with pytest.raises(OptionError, match=r"broken rows: 1 \(row 2: ") as refused:
        sharegpt(write(rows), 3, 0, words)
    assert "2 prompts of 3 rows" in str(refused.value)
    assert lengths(sharegpt(write(rows), 2, 0, words)) == [(5, 7), (6, 8)]


def test_many_broken_rows_are_counted_and_the_first_named(write: Write) -> None:
    """A note is a line, not a list of thousands."""
    with pytest.raises(OptionError) as refused:
        sharegpt(write([{}] * 50), 1, 0, words)
    (line,) = [line for line in str(refused.value).splitlines() if "broken rows" in line]
    assert line.startswith("broken rows: 50 (row ")
    assert line.endswith(", ...)")
    assert line.count("no list of conversations") == 3


@pytest.mark.parametrize("text", ["", "[1, 2", "[" * 100_000, '"\\ud800'])
def test_a_file_that_is_no_json_is_refused(write: Write, text: str) -> None:
    """With its name, and no traceback from a parser."""
    with pytest.raises(OptionError, match=r"sharegpt\.json is no JSON"):
        sharegpt(write(text), 1, 0, words)


def test_other_files_are_refused(write: Write, tmp_path: Path) -> None:
    """One that is not there, one of another shape, one that is no text."""
    with pytest.raises(OptionError, match="expected a list of conversations"):
        sharegpt(write({"conversations": []}), 1, 0, words)
    with pytest.raises(OptionError, match="No such file"):
        sharegpt(tmp_path / "none.json", 1, 0, words)
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\x80\x81\xff")
    with pytest.raises(OptionError, match="is no JSON"):
        sharegpt(binary, 1, 0, words)


def test_a_seed_is_a_selection(write: Write) -> None:
    """Another seed takes others; none is taken twice."""
    file = write([row(5 + number, 9) for number in range(200)])
    one, again, other = (lengths(sharegpt(file, 50, seed, words)) for seed in (1, 1, 2))
    assert one == again != other
    assert len(set(one)) == 50


def test_fixed_lengths() -> None:
    """Ids below the vocabulary, another prompt for each request and for each seed."""
    found = fixed(20, 16, 8, vocab=50, seed=1)
    assert lengths(found) == [(16, 8)] * 20
    assert [request.id for request in found.requests] == list(range(20))
    assert len({request.prompt for request in found.requests}) == 20
    assert {i for request in found.requests for i in request.prompt} <= set(range(50))
    assert found.requests == fixed(20, 16, 8, 50, 1).requests != fixed(20, 16, 8, 50, 2).requests


def test_random_lengths_reach_their_bounds() -> None:
    """Evenly between two bounds."""
    found = uniform(2000, (3, 6), (1, 4), vocab=9, seed=2)
    inputs, outputs = zip(*lengths(found), strict=True)
    assert set(inputs) == {3, 4, 5, 6}
    assert set(outputs) == {1, 2, 3, 4}
    assert fmean(inputs) == pytest.approx(4.5, abs=0.1)


def test_log_normal_lengths_have_their_mean_and_tail() -> None:
    """With limits that leave out nothing: the mean is as asked, the median by its formula."""
    wide = LengthLimits(least=0, most_input=10**6, most_total=10**6)
    made = synthetic(3000, LogNormal(200, 0.5), LogNormal(50, 1.0), 9, 3, wide)
    inputs, outputs = zip(*lengths(made), strict=True)
    assert fmean(inputs) == pytest.approx(200, rel=0.05)
    assert median(inputs) == pytest.approx(200 * 0.8825, rel=0.05)
    assert fmean(outputs) == pytest.approx(50, rel=0.1)


def test_log_normal_lengths_keep_the_limits() -> None:
    """What a dataset's filter would leave out is drawn again; the name says which limits."""
    made = synthetic(500, LogNormal(600, 1.2), LogNormal(600, 1.2), 9, 3)
    assert all(4 <= i <= 1024 and o >= 4 and i + o <= 2048 for i, o in lengths(made))
    assert "mean 600 in, 600 out, 4 to 1024 in, 2048 in all" in made.name


def test_limits_that_refuse_everything_are_an_error() -> None:
    """Drawing again would never end."""
    with pytest.raises(OptionError, match="all break"):
        synthetic(1, LogNormal(50_000, 0.1), LogNormal(10, 0.1), 9, 3)


def test_shared_prefixes_take_turns() -> None:
    """Five requests on two prefixes: three share the first, two the second."""
    found = shared_prefix(5, prefix=8, suffix=4, outputs=3, vocab=1000, seed=1, prefixes=2)
    heads = [request.prompt[:8] for request in found.requests]
    assert heads[0] == heads[2] == heads[4] != heads[1] == heads[3]
    assert len({request.prompt[8:] for request in found.requests}) == 5
    assert lengths(found) == [(12, 3)] * 5


@pytest.mark.parametrize("count", [0, -1])
def test_no_prompts_are_refused(write: Write, count: int) -> None:
    """By every dataset."""
    for make in (
        lambda: fixed(count, 4, 4, 9, 0),
        lambda: shared_prefix(count, 4, 4, 4, 9, 0),
        lambda: sharegpt(write([row(5, 7)]), count, 0, words),
    ):
        with pytest.raises(OptionError, match="prompts were asked for"):
            make()


def test_half_of_a_character_is_a_broken_row(tmp_path: Path) -> None:
    """JSON may spell a lone surrogate, and no tokenizer takes one."""
    turns = [{"from": "human", "value": "a b c d e"}, {"from": "gpt", "value": "a b c d"}]
    broken = [turns[0], {"from": "gpt", "value": "a b \ud83d d"}]
    file = tmp_path / "chats.json"
    file.write_text(json.dumps([{"conversations": turns}, {"conversations": broken}]))

    def tokenize(text: str) -> tuple[int, ...]:
        return tuple(map(len, text.encode().split()))

    found = sharegpt(file, 1, 0, tokenize, most=2)
    assert len(found.requests) == 1
    assert found.broken == ("row 2: turn 2 holds half of a character, a lone surrogate",)
