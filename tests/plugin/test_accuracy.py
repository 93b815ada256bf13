"""What a technique costs in accuracy, from the offer's comparison to the verdict."""

from __future__ import annotations

from typing import Any

import pytest

KL = "kl_divergence/mean_of_unquantised"
ERROR = "logit_error/maximum"

# One head of attention over a fixed stream; its cache is rounded to as many bits as a file says.
_CACHE = """
import json
from pathlib import Path
import numpy as np
import pytest
from fake import Engine, Offer

HERE = Path(__file__).parent
BITS = json.loads((HERE / "bits.json").read_text())
TOKENS, WIDTH, VOCABULARY = 48, 16, 64


def rounded(vectors, bits):
    if bits is None:
        return vectors
    scales = np.abs(vectors).max(1, keepdims=True) / (2 ** (bits - 1) - 1)
    return np.rint(vectors / scales) * scales


def log_probabilities(bits):
    random = np.random.default_rng(0)
    table, keys, values = (
        random.normal(size=(rows, WIDTH)) for rows in (VOCABULARY, WIDTH, WIDTH)
    )
    stream = table[random.integers(0, VOCABULARY, TOKENS)]
    scores = stream @ rounded(stream @ keys, bits).T / WIDTH
    weights = np.exp(scores) * np.tril(np.ones((TOKENS, TOKENS)))
    weights /= weights.sum(1, keepdims=True)
    logits = (stream + weights @ rounded(stream @ values, bits)) @ table.T / 4
    return logits, logits - np.log(np.exp(logits).sum(1, keepdims=True))


class Quantised(Offer):
    def compare(self, engine, workload):
        with (HERE / "asked.txt").open("a") as asked:
            print(workload.id, file=asked)
        (exact, p), (ours, q) = log_probabilities(None), log_probabilities(BITS)
        return {
            "kl_divergence": (np.exp(p) * (p - q)).sum(1).mean(),
            "max_logit_error": np.abs(exact - ours).max(),
        }


@pytest.hookimpl(optionalhook=True)
def pytest_perf_engines(config):
    return [Quantised("quantised")]
"""

_BAD = """
import pytest
from fake import Engine, Offer

nan, inf = float("nan"), float("inf")


def raises(engine, workload):
    raise ArithmeticError("planted in compare")


def gives(**found):
    return lambda engine, workload: found


@pytest.hookimpl(optionalhook=True)
def pytest_perf_engines(config):
    return [
        Offer("raises", compare=raises),
        Offer("nan", compare=gives(kl_divergence=nan, max_logit_error=1.0)),
        Offer("infinite", compare=gives(kl_divergence=0.1, max_logit_error=inf)),
        Offer("negative", compare=gives(kl_divergence=-0.1, max_logit_error=1.0)),
        Offer("half", compare=gives(kl_divergence=0.1)),
        Offer("nothing", compare=gives()),
    ]
"""

_REASONS = {
    "raises": "raises: compare raised ArithmeticError: planted in compare",
    "nan": f"nan: compare: {KL} is nan",
    "infinite": f"infinite: compare: {ERROR} is inf",
    "negative": f"negative: compare: {KL} is -0.1 nats",
    "half": "half: compare gave kl_divergence; expected kl_divergence, max_logit_error",
}


@pytest.fixture
def quantised(engine_test: Any) -> Any:
    """A project with that engine, its cache in int8."""
    engine_test.conftest(_CACHE)
    engine_test.write("bits.json", "8")
    engine_test.seconds(prefill=0.001, decode=0.0005)
    return engine_test


def test_a_cache_that_loses_a_bit_is_worse(quantised: Any) -> None:
    """Planted: 127 levels become 63, at the same speed and in the same memory."""
    saved = quantised.exact("--perf-save")
    assert saved.ret == 0
    saved.stdout.fnmatch_lines(["*KL *nats*", "*logit error *logits*"])
    first = quantised.rows
    assert 0 < first[KL]["value"] < first[ERROR]["value"]

    assert quantised.exact().ret == 0
    assert quantised.rows[KL]["verdict"] == quantised.rows[ERROR]["verdict"] == "SAME"

    quantised.write("bits.json", "7")
    lost = quantised.exact()
    assert lost.ret == 1
    assert quantised.rows[KL]["verdict"] == quantised.rows[ERROR]["verdict"] == "WORSE"
    assert quantised.rows[KL]["value"] > 2 * first[KL]["value"]
    lost.stdout.fnmatch_lines(["WORSE: KL *nats", "ratio * limit 1.050 *"])


def test_a_loss_of_accuracy_that_is_accepted(quantised: Any) -> None:
    """By a limit, as a share or in nats; the baseline stays."""
    quantised.exact("--perf-save")
    quantised.write("bits.json", "7")
    limits = ("--perf-limit=kl:1nats", "--perf-limit=logit error:900%")
    assert quantised.exact(*limits).ret == 0
    assert quantised.exact().ret == 1


def test_the_comparison_is_asked_once_a_test(quantised: Any) -> None:
    """In the first of its processes; the engine's own figures come from all."""
    quantised.exact("--perf-processes=3")
    found = quantised.rows
    assert len((quantised.path / "asked.txt").read_text().splitlines()) == 1
    assert len(found[KL]["processes"]) == 1
    assert len(found["time_to_first_token/prefill_until_first_token"]["processes"]) == 3


def test_a_baseline_without_a_comparison_stays_comparable(quantised: Any) -> None:
    """Its other figures are judged; the new ones are NEW, and recorded when asked."""
    quantised.conftest(_CACHE.replace("def compare", "def other"))
    quantised.exact("--perf-save")
    assert KL not in quantised.rows

    quantised.conftest(_CACHE)
    assert quantised.exact("--perf-save-new").ret == 0
    found = quantised.rows
    assert found[KL]["verdict"] == found[ERROR]["verdict"] == "NEW"
    assert found["time_to_first_token/prefill_until_first_token"]["verdict"] != "NEW"
    quantised.exact()
    assert quantised.rows[KL]["verdict"] == "SAME"


def test_a_comparison_that_can_not_be_used_is_void(engine_test: Any) -> None:
    """Named, with what it gave; an empty one is no fault and no figure."""
    engine_test.conftest(_BAD)
    engine_test.seconds(prefill=0.001, decode=0.0005)

    result = engine_test.exact("--perf-save")

    assert result.ret == 1
    results = {r["engine"]: r["rows"] for r in engine_test.report["results"]}
    for engine, reason in _REASONS.items():
        assert results[engine][0]["verdict"] == "VOID"
        assert reason in results[engine][0]["note"]
    assert KL not in {row["figure"] for row in results["nothing"]}
    (saved,) = engine_test.baselines
    assert "| nothing |" in saved
