"""A checkpoint's perplexity, from the command line to the verdict."""

from __future__ import annotations

import json
from typing import Any

import pytest

METRIC = "perplexity/teacher_forced"

# How likely it finds a text is read from a file, so that a test plants a model that is broken.
_OFFERS = """
import json
from pathlib import Path
import pytest
from fake import Engine, Offer

HERE = Path(__file__).parent


class Reader(Offer):
    def model_shape(self, directory):
        return dict(
            name="tiny", layers=1, hidden_size=8, heads=1, kv_heads=1, head_dim=8,
            intermediate_size=16, vocab_size=4, max_context=128, checkpoint=directory,
        )

    def negative_log_likelihood(self, engine, token_ids):
        assert len(token_ids) == 1 and set(token_ids[0]) <= {1, 2, 3}
        return json.loads((HERE / "loss.json").read_text())


@pytest.hookimpl(optionalhook=True)
def pytest_perf_engines(config):
    return [Reader("reader")]
"""


@pytest.fixture
def reader(engine_test: Any) -> Any:
    """A project with that engine, a checkpoint's folder and a text."""
    library = pytest.importorskip("tokenizers")
    made = library.Tokenizer(
        library.models.WordLevel({"?": 0, "war": 1, "and": 2, "peace": 3}, unk_token="?")
    )
    made.pre_tokenizer = library.pre_tokenizers.WhitespaceSplit()
    folder = engine_test.path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    made.save(str(folder / "tokenizer.json"))
    engine_test.conftest(_OFFERS)
    engine_test.write("test_it.py", _TEST)
    engine_test.write("text.txt", "war and peace " * 40)
    engine_test.write("loss.json", "2.0")
    engine_test.seconds(prefill=0.001, decode=0.0005)
    return engine_test


_TEST = """
import pytest

@pytest.mark.perf(workloads="llm-smoke-*-single_user-plain-b1-i16-u16")
def test_user(perf, perf_engine, perf_workload):
    perf(perf_engine, perf_workload)
"""
def perplexity(reader: Any) -> dict[str, Any]:
    """Its row; the figure's part tells the text."""
    (row,) = (row for figure, row in reader.rows.items() if figure.startswith(f"{METRIC}@text-"))
    return row


_ASKED = ("--perf-model=checkpoint", "--perf-text=text.txt")


def test_a_model_that_reads_worse_is_worse(reader: Any) -> None:
    """Planted: a loss of 2 nats becomes 2.02, which is 2 % of perplexity."""
    assert reader.exact(*_ASKED, "--perf-save").ret == 0
    assert perplexity(reader)["value"] == pytest.approx(7.389056)
    (result,) = reader.report["results"]
    assert result["config"]["perplexity"] == "text.txt, 1 x 32 tokens, tokenizer.json of checkpoint"
    assert reader.exact(*_ASKED).ret == 0
    assert perplexity(reader)["verdict"] == "SAME"

    reader.write("loss.json", "2.02")
    lost = reader.exact(*_ASKED)
    assert lost.ret == 1
    assert perplexity(reader)["verdict"] == "WORSE"
    lost.stdout.fnmatch_lines(
        ["WORSE: perplexity (text-*) 7.538 tokens*", "*--perf-text=*text.txt*"]
    )


def test_without_a_text_there_is_none(reader: Any) -> None:
    reader.exact("--perf-model=checkpoint", "--perf-save")
    assert not [figure for figure in reader.rows if figure.startswith(METRIC)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--perf-text=text.txt",), "*--perf-text has no effect without --perf-model*"),
        (("--perf-model=checkpoint", "--perf-text=no.txt"), "*--perf-text *no.txt*: no such file*"),
    ],
)
def test_a_text_without_effect_is_refused(
    reader: Any, arguments: tuple[str, ...], words: str
) -> None:
    refused = reader.exact(*arguments)
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines([words])


def test_a_checkpoint_without_a_tokenizer_is_refused(reader: Any) -> None:
    (reader.path / "checkpoint" / "tokenizer.json").unlink()
    refused = reader.exact(*_ASKED)
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["*--perf-text: *checkpoint has no tokenizer.json*"])


def test_a_text_that_no_engine_reads_is_refused(reader: Any) -> None:
    reader.conftest(_OFFERS.replace("def negative_log_likelihood", "def other"))
    refused = reader.exact(*_ASKED)
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["*--perf-text has no effect: no engine of this run*"])


def test_a_text_that_is_too_short_is_void(reader: Any) -> None:
    reader.write("text.txt", "war and peace")
    result = reader.exact(*_ASKED)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*text.txt: 3 tokens, expected 1 x 32: give a longer text*"])
    assert json.loads((reader.path / "loss.json").read_text()) == 2.0
