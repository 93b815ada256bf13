"""The torch engine against the reference, within the derived bound."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from engines.reference import forward
from engines.tolerance import disagreement, error_bound
from engines.weights import SeededWeights
from perfsuite.workloads.workload import Model

if TYPE_CHECKING:
    from engines.torch_llama import TorchLlama
else:
    TorchLlama = pytest.importorskip("engines.torch_llama", reason="needs torch").TorchLlama

PROMPT, DECODES, CACHE = 9, 4, 16


def opened(model: Model, dtype: str = "float32", batch: int = 2, **options: Any) -> TorchLlama:
    weights = SeededWeights(model, dtype)
    fields = {"cache_tokens": CACHE, "weights": weights, "dtype": dtype} | options
    return TorchLlama(model, batch=batch, **fields)


def prompts(batch: int, seed: int = 0) -> list[array[int]]:
    ids = np.random.default_rng(seed).integers(0, 256, (batch, PROMPT))
    return [array("i", row.tolist()) for row in ids]


def continued(engine: TorchLlama, step: Any) -> tuple[Any, Any]:
    """Tokens [B, steps] and logits [B, steps, V] of the step and DECODES more."""
    steps = [step]
    for _ in range(DECODES):
        steps.append(engine.decode(steps[-1]))
    engine.wait(steps[-1])
    tokens = np.stack([step.tokens.numpy() for step in steps], axis=1)
    return tokens, np.stack([step.logits() for step in steps], axis=1)


def judged(model: Model, dtype: str, ids: Any, tokens: Any, logits: Any) -> str | None:
    seen = np.concatenate([np.array([list(row) for row in ids]), tokens[:, :-1]], axis=1)
    weights = dict(SeededWeights(model, dtype))
    exact = forward(model, weights, seen)
    bound = error_bound(model, weights, seen, dtype, exact)
    return disagreement(logits, tokens, exact[:, PROMPT - 1 :], bound[:, PROMPT - 1 :])


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_prefill_and_decode_agree_with_the_reference(shape: Model, dtype: str, batch: int) -> None:
    engine, ids = opened(shape, dtype, batch), prompts(batch)
    tokens, logits = continued(engine, engine.prefill(ids))
    assert judged(shape, dtype, ids, tokens, logits) is None


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # torch's own
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_compiled_decode_agrees_with_the_reference_and_eager(tiny: Model, dtype: str) -> None:
    ids, eager, compiled = prompts(2), opened(tiny, dtype), opened(tiny, dtype, compiled=True)
    tokens, logits = continued(compiled, compiled.prefill(ids))
    assert judged(tiny, dtype, ids, tokens, logits) is None
    assert compiled.config["compiled"] == "decode"
    if dtype == "float32":
        expected, wanted = continued(eager, eager.prefill(ids))
        np.testing.assert_array_equal(tokens, expected)
        np.testing.assert_allclose(logits, wanted, atol=1e-5)
    compiled.close()


def test_every_prompt_starts_afresh(tiny: Model) -> None:
    """A second prompt on the same engine gives what a new engine gives, bit for bit."""
    engine = opened(tiny)
    continued(engine, engine.prefill(prompts(2, seed=7)))
    for seed in (1, 2):
        again = continued(engine, engine.prefill(prompts(2, seed)))
        fresh = opened(tiny)
        expected = continued(fresh, fresh.prefill(prompts(2, seed)))
        np.testing.assert_array_equal(again[1], expected[1])


def test_an_older_step_can_be_decoded_again(tiny: Model) -> None:
    engine = opened(tiny)
    start = engine.prefill(prompts(2))
    first, second = continued(engine, start), continued(engine, start)
    np.testing.assert_array_equal(first[1], second[1])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shared_prefill_is_the_prefill_of_copies(shape: Model, dtype: str) -> None:
    prompt = prompts(1)[0]
    engine = opened(shape, dtype, batch=3)
    tokens, logits = continued(engine, engine.prefill_shared(prompt, 3))
    assert judged(shape, dtype, [prompt] * 3, tokens, logits) is None
    np.testing.assert_array_equal(logits[0, 0], logits[2, 0])


def test_no_attention_is_the_references_no_attention(shape: Model) -> None:
    """Wrong by design, but the designed wrong: positions of decoded tokens start at 0 again."""
    engine, ids = opened(shape, attention=False), prompts(2)
    tokens, logits = continued(engine, engine.prefill(ids))
    assert engine.caches is None
    assert engine.config["cache_tokens"] == 0
    seen = np.concatenate([np.array([list(row) for row in ids]), tokens[:, :-1]], axis=1)
    options = {"attention": False, "positions": [*range(PROMPT), *range(DECODES)]}
    weights = dict(SeededWeights(shape))
    exact = forward(shape, weights, seen, **options)
    bound = error_bound(shape, weights, seen, "float32", exact, **options)
    assert disagreement(logits, tokens, exact[:, PROMPT - 1 :], bound[:, PROMPT - 1 :]) is None


def test_long_prompts_run_a_few_rows_at_a_time(
    tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = opened(tiny, batch=3).prefill(prompts(3)).logits()
    monkeypatch.setattr("engines.torch_llama.PREFILL_TOKENS", 2 * PROMPT)
    np.testing.assert_allclose(opened(tiny, batch=3).prefill(prompts(3)).logits(), whole, atol=1e-5)


def test_decode_past_the_cache_raises(tiny: Model) -> None:
    engine = opened(tiny, cache_tokens=PROMPT + 1)
    step = engine.decode(engine.prefill(prompts(2)))
    with pytest.raises(ValueError, match="the cache holds 10 tokens and is full"):
        engine.decode(step)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda e: e.prefill([[1, 2], [3]]), "tokens, expected 2 of one length"),
        (lambda e: e.prefill([[], []]), "at least 1"),
        (lambda e: e.prefill([[1] * 17] * 2), "a prompt of 17 tokens exceeds 16"),
        (lambda e: e.prefill([[1, 256]] * 2), "got token ids from 1 to 256, expected 0 to 255"),
    ],
    ids=["ragged", "empty", "long", "vocabulary"],
)
def test_bad_prompts_are_refused(
    tiny: Model, ask: Callable[[TorchLlama], object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        ask(opened(tiny))


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_an_engine_takes_another_batch_with_each_prompt(tiny: Model, compiled: bool) -> None:
    """A search over batches grows one engine; its outputs are those of an engine opened so."""
    engine = opened(tiny, batch=2, compiled=compiled)
    for batch in (4, 1, 2):
        ids = prompts(batch)
        tokens, logits = continued(engine, engine.prefill(ids))
        assert tokens.shape == (batch, DECODES + 1)
        assert engine.config["batch"] == batch
        assert judged(tiny, "float32", ids, tokens, logits) is None


def test_a_batch_that_does_not_fit_leaves_the_engine_usable(
    tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, ids = opened(tiny, batch=2), prompts(2)
    with monkeypatch.context() as patch:
        patch.setattr("engines.memory.free_bytes", lambda device: 1000)
        for _ in range(2):
            with pytest.raises(MemoryError, match="a batch of 64 with 16 tokens each needs"):
                engine.prefill(prompts(64))
    tokens, logits = continued(engine, engine.prefill(ids))
    assert judged(tiny, "float32", ids, tokens, logits) is None


def test_no_size_is_refused(tiny: Model) -> None:
    with pytest.raises(ValueError, match="got batch 0 and a cache of 16 tokens"):
        opened(tiny, batch=0)


def test_an_unknown_activation_is_refused(tiny: Model) -> None:
    with pytest.raises(ValueError, match="got activation 'relu', expected 'silu' or"):
        opened(replace(tiny, activation="relu"))


def test_weights_drawn_on_the_device_keep_activations_of_order_one(shape: Model) -> None:
    engine = opened(shape, "bfloat16", weights=3)
    logits = engine.prefill(prompts(2)).logits()
    assert 0.3 < logits.std() < 3.0
    again = opened(shape, "bfloat16", weights=3)
    np.testing.assert_array_equal(again.prefill(prompts(2)).logits(), logits)


def test_the_process_keeps_its_matrix_library(tiny: Model) -> None:
    """Row kernels switch oneDNN off within a step and give it back, after an error too."""
    torch = pytest.importorskip("torch")
    before = torch.backends.mkldnn.enabled
    engine = opened(tiny, "bfloat16", batch=1)
    assert engine.config["linear"] == "row kernels in decode"
    step = engine.decode(engine.prefill(prompts(1)))
    assert torch.backends.mkldnn.enabled == before
    step.tokens = None
    with pytest.raises(AttributeError):
        engine.decode(step)
    assert torch.backends.mkldnn.enabled == before
