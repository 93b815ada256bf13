"""Checkpoint folders: what is read, what is refused, what a broken one says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.checkpoint import encode, load_weights, read_shape
from engines.offers import offers
from engines.weights import SeededWeights
from perfsuite.workloads.workload import Model, RopeScaling, Workload
from tests.conformance.checkpoints import CONFIG


@pytest.fixture
def folder(tmp_path: Path, tiny: Model) -> Path:
    """A whole checkpoint of the tiny shape, float32, one file."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    save(tmp_path / "model.safetensors", dict(SeededWeights(tiny)))
    return tmp_path


def save(file: Path, arrays: dict[str, Any]) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    safetensors.save_file(arrays, file)


def reconfigure(folder: Path, **changes: Any) -> None:
    config = CONFIG | changes
    (folder / "config.json").write_text(json.dumps(config))


def test_shape_is_a_model(folder: Path, tiny: Model) -> None:
    fields = read_shape(folder)
    assert Model(**fields | {"name": "tiny", "checkpoint": None}) == tiny
    assert fields["checkpoint"] == str(folder)
    assert fields["name"] == folder.name


SCALING = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.mark.parametrize(
    "keys",
    [
        {"rope_theta": 5e5, "rope_scaling": SCALING | {"rope_type": "llama3"}},
        {"rope_theta": 5e5, "rope_scaling": SCALING | {"type": "llama3"}},
        {"rope_parameters": SCALING | {"rope_type": "llama3", "rope_theta": 5e5}},
    ],
    ids=["transformers4", "transformers4-type", "transformers5"],
)
def test_both_ways_of_writing_rope(folder: Path, keys: dict[str, Any]) -> None:
    reconfigure(folder, **keys)
    fields = read_shape(folder)
    assert fields["rope_theta"] == 5e5
    assert RopeScaling(**fields["rope_scaling"]) == RopeScaling(8.0, 1.0, 4.0, 8192)


def test_plain_theta_in_both_places(folder: Path) -> None:
    for keys in ({"rope_theta": 1e6}, {"rope_parameters": {"rope_theta": 1e6}}):
        reconfigure(folder, **keys, rope_scaling=None)
        assert (read_shape(folder)["rope_theta"], read_shape(folder)["rope_scaling"]) == (1e6, None)


def test_gemma_defaults(folder: Path) -> None:
    reconfigure(folder, model_type="gemma", hidden_act="gelu")
    fields = read_shape(folder)
    assert fields["activation"] == "gelu_tanh"
    assert fields["head_dim"] == 256
    assert fields["tied_embeddings"]
    assert fields["scaled_embeddings"]
    assert fields["norm_adds_one"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "mamba"}, "got model_type 'mamba', expected one of llama, mistral, gemma"),
        ({"attention_bias": True}, "attention_bias True is not supported"),
        ({"mlp_bias": True}, "mlp_bias True is not supported"),
        ({"quantization_config": {"bits": 4}}, "quantization_config .* is not supported"),
        ({"hidden_act": "relu"}, "got hidden_act 'relu', expected silu"),
        ({"model_type": "mistral"}, None),
        ({"sliding_window": 64}, "sliding_window 64 is in use"),
        ({"layer_types": ["sliding_attention"]}, "layer_types sliding_attention are not"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "got rope type 'yarn'"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "'llama3' lacks 'factor'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5 is not supported"),
        ({"hidden_size": None}, "got hidden_size None, expected a positive integer"),
    ],
)
def test_what_is_not_understood_is_refused(
    folder: Path, changes: dict[str, Any], words: str | None
) -> None:
    reconfigure(folder, **changes)
    if words is None:  # the window of 4096 that transformers assumes is wider than the context
        assert read_shape(folder)["activation"] == "silu"
        return
    with pytest.raises(ValueError, match=words):
        read_shape(folder)


def test_broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not JSON"):
        read_shape(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="got list, expected an object"):
        read_shape(folder)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        read_shape(folder)


def test_weights_are_the_ones_written(folder: Path, tiny: Model) -> None:
    loaded, written = load_weights(folder), SeededWeights(tiny)
    assert set(loaded) == set(written)
    assert len(loaded) == len(written)
    for name in written:
        np.testing.assert_array_equal(loaded[name], written[name])


def test_sharded_half_precision(folder: Path, tiny: Model) -> None:
    """bfloat16 and float16 tensors over two files of an index."""
    torch = pytest.importorskip("torch")
    save_torch = pytest.importorskip("safetensors.torch").save_file
    (folder / "model.safetensors").unlink()
    tensors = {name: torch.from_numpy(array) for name, array in SeededWeights(tiny).items()}
    first = {name: t.bfloat16() for name, t in tensors.items() if "layers.0" in name}
    second = {name: t.half() for name, t in tensors.items() if name not in first}
    files = {"a.safetensors": first, "b.safetensors": second}
    for file, part in files.items():
        save_torch(part, folder / file)
    weight_map = {name: file for file, part in files.items() for name in part}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    loaded = load_weights(folder)
    for name, tensor in (first | second).items():
        np.testing.assert_array_equal(loaded[name].astype("float32"), tensor.float().numpy())
    (folder / "b.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"b\.safetensors is missing, the index names it"):
        load_weights(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a.pop("model.norm.weight"), r"missing: model\.norm\.weight"),
        (lambda a: a.update(extra=np.zeros(1, np.float32)), "extra: extra"),
        (
            lambda a: a.update({"lm_head.weight": np.zeros((2, 64), np.float32)}),
            r"of another shape: lm_head\.weight \(2, 64\), expected \(256, 64\)",
        ),
        (
            lambda a: a.update({"model.norm.weight": np.zeros(64, np.int8)}),
            r"model\.norm\.weight is I8, expected one of F32, F16, BF16",
        ),
    ],
    ids=["missing", "extra", "shape", "dtype"],
)
def test_wrong_tensors_are_listed(
    folder: Path, tiny: Model, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    arrays = dict(SeededWeights(tiny))
    change(arrays)
    save(folder / "model.safetensors", arrays)
    with pytest.raises(ValueError, match=words):
        load_weights(folder)


def test_old_rotary_buffers_are_no_weights(folder: Path, tiny: Model) -> None:
    buffer = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.zeros(8, np.float32)}
    save(folder / "model.safetensors", dict(SeededWeights(tiny)) | buffer)
    assert len(load_weights(folder)) == len(SeededWeights(tiny))


@pytest.mark.parametrize("kept", [4, 100, 0.5, 0.999])
def test_truncated_file(folder: Path, kept: float) -> None:
    file = folder / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: int(kept if kept > 1 else kept * len(content))])
    with pytest.raises(ValueError, match="is truncated"):
        load_weights(folder)


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds neither model\.safetensors nor"):
        load_weights(folder)


def test_encode(folder: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json is missing"):
        encode(folder, "a b")
    vocabulary = tokenizers.models.WordLevel({"a": 5, "b": 7, "?": 0}, unk_token="?")
    tokenizer = tokenizers.Tokenizer(vocabulary)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    assert encode(folder, "b a c") == [7, 5, 0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_engine_runs_a_checkpoint(
    folder: Path, workload: Callable[..., Workload], dtype: str
) -> None:
    pytest.importorskip("torch")
    cell = workload(model=Model(**read_shape(folder)), dtype=dtype)
    offer = offers()[0]
    engine = offer.open(cell, "cpu")
    assert engine.config["weights"] == f"checkpoint {folder}"
    assert offer.verify(engine, cell) is None


def test_a_checkpoint_of_another_shape_is_refused(
    folder: Path, workload: Callable[..., Workload]
) -> None:
    model = Model(**read_shape(folder) | {"name": "named", "rope_theta": 5e5})
    with pytest.raises(ValueError, match=r"rope_theta is 10000\.0, named says 500000\.0"):
        offers()[0].open(workload(model=model), "cpu")
