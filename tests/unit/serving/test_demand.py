"""What a workload asks a server, by its options."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest

from perfsuite.errors import Void
from perfsuite.serving.arrivals import AT_ONCE
from perfsuite.serving.demand import Demand
from perfsuite.workloads import Workload

Make = Callable[..., Workload]


@pytest.fixture
def demand(make_workload: Make) -> Callable[..., Demand]:
    def make(least: int = 4, **options: str) -> Demand:
        workload = make_workload(
            kind="serving", input_tokens=1024, output_tokens=1024, options=tuple(options.items())
        )
        return Demand(workload, least)

    return make


@pytest.fixture
def chats(tmp_path: Path) -> dict[str, str]:
    """Twelve conversations of six words and four, one that is broken, and what counts words."""
    tokenizers = pytest.importorskip("tokenizers", reason="a dataset is counted by a tokenizer")
    words = {word: number for number, word in enumerate(["?", "ask", "say", *"0123456789"])}
    model = tokenizers.models.WordLevel(words, unk_token="?")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    rows = [
        {"conversations": [
            {"from": "human", "value": f"ask ask ask ask ask {number % 10}"},
            {"from": "gpt", "value": "say say say say"},
        ]}
        for number in range(12)
    ]  # fmt: skip
    file = tmp_path / "chats.json"
    file.write_text(json.dumps([{"id": "broken"}, *rows]))
    return {"dataset_file": str(file), "tokenizer": str(tmp_path)}


def test_the_default_is_sharegpts_published_means(demand: Callable[..., Demand]) -> None:
    """A fifth of the mean is four standard errors of 500; drawn from a seed, of other ids."""
    mine, theirs = demand().requests(500), demand().requests(500)
    assert fmean(len(request.prompt) for request in mine) == pytest.approx(161.31, rel=0.2)
    assert fmean(request.max_tokens for request in mine) == pytest.approx(337.99, rel=0.2)
    assert [len(r.prompt) for r in mine] == [len(r.prompt) for r in theirs]
    assert [r.prompt for r in mine] != [r.prompt for r in theirs]
    assert [r.id for r in mine] == list(range(500))
    config = demand().config()
    assert config == {
        "dataset": "ShareGPT's published mean lengths, 161.31 in and 337.99 out",
        "arrivals": "all at once",
    }
    assert demand().spec == AT_ONCE


def test_every_load_asks_something_else(demand: Callable[..., Demand]) -> None:
    asked = demand(arrivals="poisson:5")
    first, gaps = asked.requests(20), asked.arrivals(20)
    assert [len(r.prompt) for r in first] != [len(r.prompt) for r in asked.requests(20)]
    assert gaps != asked.arrivals(20)
    assert asked.config()["arrivals"] == "Poisson, 5 requests/s"


def test_a_file_is_asked_in_its_own_order(
    demand: Callable[..., Demand], chats: dict[str, str]
) -> None:
    """Token ids of its prompts, as many tokens as its replies, and a word on what was left out."""
    asked = demand(4, **chats)
    found = [*asked.requests(4), *asked.requests(8)]
    assert {request.prompt[:5] for request in found} == {(1, 1, 1, 1, 1)}
    assert {request.max_tokens for request in found} == {4}
    assert len({request.prompt for request in found}) == 10
    assert asked.config()["dataset"] == "ShareGPT, chats.json"
    assert asked.notes() == ["broken rows: 1 (row 1: no list of conversations)"]
    asked.requests(1)
    assert asked.notes()[-1] == "prompts came more than once"
    again = demand(4, **chats)
    assert [*again.requests(4), *again.requests(8)] == found


def test_lengths_are_those_of_the_texts(
    demand: Callable[..., Demand], chats: dict[str, str]
) -> None:
    """Planted: a tokenizer.json that was saved with truncation and padding, as many are."""
    tokenizers = pytest.importorskip("tokenizers", reason="a dataset is counted by a tokenizer")
    file = str(Path(chats["tokenizer"], "tokenizer.json"))
    tokenizer = tokenizers.Tokenizer.from_file(file)
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=9)
    tokenizer.save(file)
    found = demand(4, **chats).requests(4)
    assert {(len(request.prompt), request.max_tokens) for request in found} == {(6, 4)}


def test_the_tokenizer_is_named(demand: Callable[..., Demand], chats: dict[str, str]) -> None:
    name = Path(chats["tokenizer"]).name
    assert demand(4, **chats).config()["tokenizer"] == f"tokenizer.json of {name}"


def test_a_file_with_too_few_prompts_is_an_error(
    demand: Callable[..., Demand], chats: dict[str, str]
) -> None:
    """Never a smaller load under the name of a larger one."""
    with pytest.raises(Void, match="12 prompts of 13 rows, 13 were asked for"):
        demand(13, **chats)


def test_a_trace_with_too_few_moments_is_an_error(
    demand: Callable[..., Demand], tmp_path: Path
) -> None:
    """As is one that went away after the start; with more moments the first ones are taken."""
    trace = tmp_path / "day.txt"
    trace.write_text("0\n1\n2\n")
    asked = demand(arrivals=f"trace:{trace}")
    assert asked.config()["arrivals"] == "trace"
    assert asked.arrivals(3).name == "trace"
    with pytest.raises(Void, match=r"day.txt has 3 arrivals, the load has 4 requests"):
        asked.arrivals(4)
    trace.unlink()
    with pytest.raises(Void, match="can not be read"):
        asked.arrivals(3)
