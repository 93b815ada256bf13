"""The reference against what can be computed by hand, and against Hugging Face transformers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engines import reference
from engines.checkpoint import load_weights, read_shape
from engines.reference import forward
from engines.tolerance import error_bound
from engines.weights import SeededWeights, rounded, seeded_weights
from perfsuite.workloads.workload import Model, RopeScaling

IDS = np.random.default_rng(1).integers(0, 256, (2, 12))


def test_one_token_sees_only_its_own_value(tiny: Model) -> None:
    """A softmax over one score is 1: attention returns the value, whatever query and key are."""
    v = np.random.default_rng(0).standard_normal((1, 2, 1, 16))
    q = np.random.default_rng(1).standard_normal((1, 4, 1, 16))
    out = reference.mix(q, q[:, :2], v, reference.causal_mask(1), reference.EXACT)
    np.testing.assert_array_equal(out, np.repeat(v, 2, axis=1))


def test_equal_keys_average_the_values_seen_so_far() -> None:
    v = np.arange(3.0).reshape(1, 1, 3, 1)
    zeros = np.zeros((1, 1, 3, 1))
    out = reference.mix(zeros, zeros, v, reference.causal_mask(3), reference.EXACT)
    np.testing.assert_allclose(out[0, 0, :, 0], [0.0, 0.5, 1.0])
    rolling = reference.mix(zeros, zeros, v, reference.causal_mask(3, 2), reference.EXACT)
    np.testing.assert_allclose(rolling[0, 0, :, 0], [0.0, 0.5, 1.5])


def test_rope_turns_a_pair_by_its_position() -> None:
    """Head of two numbers: the frequency is 1, position p turns (1, 0) to (cos p, sin p)."""
    model = SimpleNamespace(head_dim=2, rope_theta=10_000.0, rope_scaling=None)
    x = np.tile([1.0, 0.0], (1, 1, 4, 1))
    rope = reference.rotations(model, np.arange(4))
    turned = reference.rotate(x, rope, reference.EXACT)
    np.testing.assert_allclose(turned[0, 0], np.stack([np.cos(range(4)), np.sin(range(4))], 1))


def test_rope_scores_depend_on_distance_alone(tiny: Model) -> None:
    q, k = np.random.default_rng(0).standard_normal((2, 1, 1, 1, 16))

    def score(at: int, other: int) -> float:
        places = np.array([at, other])
        both = np.concatenate([q, k], axis=2)
        turned = reference.rotate(both, reference.rotations(tiny, places), reference.EXACT)
        return float(turned[0, 0, 0] @ turned[0, 0, 1])

    assert score(9, 4) == pytest.approx(score(5, 0))
    assert score(9, 4) != pytest.approx(score(9, 5))


def test_llama3_1_keeps_quick_turns_and_slows_slow_ones() -> None:
    model = SimpleNamespace(
        head_dim=128, rope_theta=500_000.0, rope_scaling=RopeScaling(8.0, 1.0, 4.0, 8192)
    )
    plain = reference.rope_frequencies(SimpleNamespace(**vars(model) | {"rope_scaling": None}))
    ratio = reference.rope_frequencies(model) / plain
    turns = 8192 * plain / (2 * np.pi)
    assert (ratio[turns >= 4] == 1).all()
    np.testing.assert_allclose(ratio[turns <= 1], 1 / 8)
    assert (np.diff(ratio) <= 0).all()


def test_norm_of_a_known_vector() -> None:
    model = SimpleNamespace(norm_eps=0.0, norm_adds_one=False)
    out = reference.normalise(model, np.array([1.0, 2.0]), np.array([3.0, 4.0]), reference.EXACT)
    np.testing.assert_allclose(out, np.array([3.0, 8.0]) / np.sqrt(12.5))
    model.norm_adds_one = True
    out = reference.normalise(model, np.array([0.0, 1.0]), np.array([3.0, 4.0]), reference.EXACT)
    np.testing.assert_allclose(out, np.array([3.0, 8.0]) / np.sqrt(12.5))


def test_activations_at_known_points() -> None:
    assert reference.activate("silu", np.array([0.0]))[0] == 0.0
    assert reference.activate("silu", np.array([1.0]))[0] == pytest.approx(0.7310585786)
    assert reference.activate("gelu_tanh", np.array([1.0]))[0] == pytest.approx(0.8411919906)
    with pytest.raises(ValueError, match="got activation 'relu'"):
        reference.activate("relu", np.array([1.0]))


def test_inputs_are_unchanged(shape: Model) -> None:
    weights = seeded_weights(shape)
    before = {name: array.copy() for name, array in weights.items()}
    ids = IDS.copy()
    forward(shape, weights, ids)
    np.testing.assert_array_equal(ids, IDS)
    for name, array in weights.items():
        np.testing.assert_array_equal(array, before[name])


def test_the_future_does_not_change_the_past(shape: Model) -> None:
    weights = seeded_weights(shape)
    whole, part = forward(shape, weights, IDS), forward(shape, weights, IDS[:, :5])
    np.testing.assert_allclose(whole[:, :5], part, rtol=0, atol=1e-12)


def test_without_attention_tokens_do_not_see_each_other(tiny: Model) -> None:
    weights = seeded_weights(tiny)
    whole = forward(tiny, weights, IDS, attention=False)
    last = forward(tiny, weights, IDS[:, -1:], attention=False, positions=[11])
    np.testing.assert_allclose(whole[:, -1:], last, rtol=0, atol=1e-12)


def test_a_wide_window_is_full_attention(tiny: Model) -> None:
    weights = seeded_weights(tiny)
    full = forward(tiny, weights, IDS)
    np.testing.assert_array_equal(full, forward(tiny, weights, IDS, window=12))
    assert not np.allclose(full, forward(tiny, weights, IDS, window=4))


def test_token_ids_need_two_axes(tiny: Model) -> None:
    with pytest.raises(ValueError, match=r"shape \(12,\), expected \[batch, time\]"):
        forward(tiny, seeded_weights(tiny), IDS[0])


def test_seeded_weights_keep_activations_of_order_one(shape: Model) -> None:
    assert 0.3 < forward(shape, seeded_weights(shape), IDS).std() < 3.0


def test_seeded_weights_depend_on_name_and_seed_not_on_order(tiny: Model) -> None:
    forwards = dict(SeededWeights(tiny, seed=3))
    backwards = SeededWeights(tiny, seed=3)
    for name in reversed(list(forwards)):
        np.testing.assert_array_equal(forwards[name], backwards[name])
    other = SeededWeights(tiny, seed=4)
    assert not np.array_equal(other["model.norm.weight"], forwards["model.norm.weight"])
    q, k = (forwards[f"model.layers.{n}.mlp.up_proj.weight"] for n in (0, 1))
    assert not np.array_equal(q, k)


def test_rounding_agrees_with_torch() -> None:
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    x[:4] = 1 + 2.0**-8, 1 + 3 * 2.0**-8, -0.0, 2.0**-130  # two ties, a zero, a subnormal
    for dtype in ("bfloat16", "float16", "float32"):
        expected = torch.from_numpy(x).to(getattr(torch, dtype)).float().numpy()
        np.testing.assert_array_equal(rounded(x, dtype), expected)


def test_unknown_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match="got dtype 'int8', expected one of bfloat16"):
        rounded(np.zeros(1, np.float32), "int8")


def hugging_face(directory: Path, kind: str, **changes: Any) -> Any:
    """A small random model of transformers, its checkpoint written to the folder."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    fields = {
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": 128,
        "vocab_size": 256,
        "max_position_embeddings": 128,
        "initializer_range": 0.15,
    }
    config = getattr(transformers, f"{kind}Config")(**(fields | changes))
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # norms are constant otherwise
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(directory)
    return model


SCALED = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("Llama", {}),
        ("Llama", {"num_key_value_heads": 4, "tie_word_embeddings": True}),
        ("Llama", {"rope_parameters": SCALED}),
        ("Mistral", {"sliding_window": None}),
        ("Gemma", {"num_key_value_heads": 1, "head_dim": 32}),
    ],
    ids=["llama", "llama-tied", "llama3.1", "mistral", "gemma"],
)
def test_agrees_with_transformers(tmp_path: Path, kind: str, changes: dict[str, Any]) -> None:
    """float32 transformers is an honest engine: within the bound of the float64 reference."""
    torch = pytest.importorskip("torch")
    theirs = hugging_face(tmp_path, kind, **changes)
    fields = read_shape(tmp_path)
    scaling = fields["rope_scaling"]
    fields["rope_scaling"] = RopeScaling(**scaling) if scaling else None
    model, weights = Model(**fields), dict(load_weights(tmp_path))
    ids = np.random.default_rng(2).integers(0, 256, (2, 40))
    exact = forward(model, weights, ids)
    bound = error_bound(model, weights, ids, "float32", exact)
    with torch.no_grad():
        logits = theirs(torch.from_numpy(ids)).logits.numpy()
    assert (np.abs(logits - exact).max(axis=-1) <= bound).all()
    assert bound.max() < 1e-4 * exact.std()


def test_a_wrong_theta_is_not_transformers(tmp_path: Path) -> None:
    """The comparison above can fail: another rotary base is outside the bound."""
    torch = pytest.importorskip("torch")
    theirs = hugging_face(tmp_path, "Llama")
    model = replace(Model(**read_shape(tmp_path)), rope_theta=10_100.0)
    weights = dict(load_weights(tmp_path))
    exact = forward(model, weights, IDS)
    with torch.no_grad():
        logits = theirs(torch.from_numpy(IDS)).logits.numpy()
    bound = error_bound(model, weights, IDS, "float32", exact)
    assert (np.abs(logits - exact).max(axis=-1) > bound).any()
