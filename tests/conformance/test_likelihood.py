"""How likely an engine finds tokens that it is given, against the float64 reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch")

from engines import likelihood
from engines.likelihood import mean_loss, read
from engines.offers import TorchLlamaOffer, reference_weights
from engines.reference import forward
from engines.tolerance import error_bound
from engines.torchao_llama.offer import TorchaoLlamaOffer
from perfsuite.workloads.workload import Model, Workload
from tests.conformance.torchao_runs import cell

STREAM = np.random.default_rng(5).integers(0, 256, (2, 14))


def exact(workload: Workload) -> tuple[float, float]:
    """(the loss by its definition, how far an honest engine may be off).

    A log-softmax moves by at most twice as much as its logits do, a mean by at most the mean.
    """
    weights = reference_weights(workload)
    scores = forward(workload.model, weights, STREAM)
    bound = error_bound(workload.model, weights, STREAM, workload.dtype, scores)
    wide = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    chosen = np.take_along_axis(wide[:, :-1], STREAM[:, 1:, None], axis=-1)
    return float(-chosen.mean()), float(2 * bound[:, :-1].mean())


@pytest.fixture
def workload(tiny: Model) -> Workload:
    return cell(tiny, batch=2, dtype="float32", cache_tokens=16)


@pytest.mark.parametrize("offer", [TorchLlamaOffer("torch_llama"), TorchaoLlamaOffer()],
                         ids=lambda offer: offer.name)  # fmt: skip
def test_the_loss_is_that_of_the_reference(offer: Any, workload: Workload) -> None:
    user = workload.sized(document="llm", kind="single_user", mode="plain")
    asked = workload if offer.name == "torchao_llama" else user
    engine = offer.open(asked, "cpu")
    found = offer.negative_log_likelihood(engine, STREAM.tolist())
    expected, bound = exact(workload)
    assert abs(found - expected) <= bound < 1e-4
    assert offer.negative_log_likelihood(engine, STREAM.tolist()) == found


def test_tokens_one_place_off_are_another_loss(
    workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: each answer is compared with the token that it was given."""
    engine = TorchaoLlamaOffer().open(workload, "cpu")

    def late(engine: Any, stream: Any) -> Any:
        return read(engine, np.roll(STREAM, -1, axis=1)[:, : stream.shape[1]])

    monkeypatch.setattr(likelihood, "read", late)
    expected, bound = exact(workload)
    assert abs(mean_loss(engine, STREAM.tolist()) - expected) > 10 * bound


def test_a_quantised_cache_costs_a_little(tiny: Model) -> None:
    """Its loss is another one, near the plain one's."""
    asked = cell(tiny, "kv_quant", batch=2, dtype="float32", cache_tokens=16)
    offer = TorchaoLlamaOffer()
    off = offer.negative_log_likelihood(offer.open(asked, "cpu"), STREAM.tolist())
    expected, bound = exact(asked)
    assert bound < abs(off - expected) < 0.02
