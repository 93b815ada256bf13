"""Reads a checkpoint in the Hugging Face layout: config.json, *.safetensors, tokenizer.json.

A config says many things that this repository's engines do not do. What is understood is read, what
would change the numbers and is not understood is refused by name; nothing is guessed past.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.weights import tensor_shapes

# What transformers assumes where a config leaves a key out.
DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": False},
    "mistral": {"tie_word_embeddings": False, "sliding_window": 4096},
    "gemma": {"tie_word_embeddings": True, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh"},
}
ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
MUST_BE_ABSENT = ("attention_bias", "mlp_bias", "quantization_config", "attn_logit_softcapping")
DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}


def read_shape(directory: str | Path) -> dict[str, Any]:
    """The fields of a Model, `rope_scaling` as a dict of its own fields or None."""
    path = Path(directory) / "config.json"
    config = _json(path)
    kind = config.get("model_type")
    if kind not in DEFAULTS:
        raise ValueError(f"{path}: got model_type {kind!r}, expected one of {', '.join(DEFAULTS)}")
    config = DEFAULTS[kind] | config
    _refuse(path, config)
    rope_theta, rope_scaling = _rope(path, config)
    heads = _needed(path, config, "num_attention_heads")
    hidden_size = _needed(path, config, "hidden_size")
    gemma = kind == "gemma"
    return {
        "name": Path(directory).resolve().name,
        "layers": _needed(path, config, "num_hidden_layers"),
        "hidden_size": hidden_size,
        "heads": heads,
        "kv_heads": config.get("num_key_value_heads") or heads,
        "head_dim": config.get("head_dim") or hidden_size // heads,
        "intermediate_size": _needed(path, config, "intermediate_size"),
        "vocab_size": _needed(path, config, "vocab_size"),
        "max_context": _needed(path, config, "max_position_embeddings"),
        "rope_theta": rope_theta,
        "rope_scaling": rope_scaling,
        "norm_eps": config.get("rms_norm_eps", 1e-6),
        "activation": _activation(path, config),
        "tied_embeddings": config["tie_word_embeddings"],
        "scaled_embeddings": gemma,
        "norm_adds_one": gemma,
        "checkpoint": str(directory),
    }


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing: a checkpoint folder holds it") from None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if type(content) is not dict:
        raise ValueError(f"{path}: got {type(content).__name__}, expected an object")
    return content


def _needed(path: Path, config: dict[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{path}: got {key} {value!r}, expected a positive integer")
    return value


def _refuse(path: Path, config: dict[str, Any]) -> None:
    for key in MUST_BE_ABSENT:
        if config.get(key):
            raise ValueError(f"{path}: {key} {config[key]!r} is not supported")
    window, context = config.get("sliding_window"), config.get("max_position_embeddings", 0)
    if window is not None and window < context:
        raise ValueError(f"{path}: sliding_window {window} is in use (context {context})")
    others = set(config.get("layer_types") or []) - {"full_attention"}
    if others:
        raise ValueError(f"{path}: layer_types {', '.join(sorted(others))} are not supported")


def _activation(path: Path, config: dict[str, Any]) -> str:
    # Gemma's older configs say hidden_act "gelu" and mean, as transformers does, the tanh form.
    gemma = config["model_type"] == "gemma"
    name = config.get("hidden_activation") or config.get("hidden_act", "silu")
    if gemma and name == "gelu" and not config.get("hidden_activation"):
        name = "gelu_pytorch_tanh"
    if name not in ACTIVATIONS:
        raise ValueError(f"{path}: got hidden_act {name!r}, expected {' or '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _rope(path: Path, config: dict[str, Any]) -> tuple[float, dict[str, Any] | None]:
    """(theta, scaling); transformers 5 keeps both in rope_parameters, 4 in two keys."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = float(rope.get("rope_theta", config.get("rope_theta", 10_000.0)))
    kind = rope.get("rope_type", rope.get("type", "default"))
    partial = rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))
    if partial != 1.0:
        raise ValueError(f"{path}: partial_rotary_factor {partial} is not supported")
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise ValueError(f"{path}: got rope type {kind!r}, expected 'default' or 'llama3'")
    try:
        return theta, {
            "factor": float(rope["factor"]),
            "low_frequency_factor": float(rope["low_freq_factor"]),
            "high_frequency_factor": float(rope["high_freq_factor"]),
            "original_context": int(rope["original_max_position_embeddings"]),
        }
    except KeyError as error:
        raise ValueError(f"{path}: rope type 'llama3' lacks {error}") from None


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies: bytes `start` to `end` of a file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    def read(self) -> NDArray[Any]:
        """float32 or float16 as mapped from the file; bfloat16 widened, numpy has none."""
        kept = DTYPES[self.dtype]
        array = np.memmap(self.file, kept, "r", offset=self.start, shape=self.shape)
        if self.dtype != "BF16":
            return array
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)


class CheckpointWeights(Mapping[str, NDArray[Any]]):
    """name -> array, read when asked for, so that no second copy of the model is in memory."""

    def __init__(self, tensors: dict[str, StoredTensor]) -> None:
        self.tensors = tensors

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.tensors[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def load_weights(directory: str | Path) -> CheckpointWeights:
    """The weights of the folder, exactly those that its config.json asks for."""
    return read_files(files(directory), SimpleNamespace(**read_shape(directory)), Path(directory))


def read_files(paths: Sequence[Path], model: Any, whole: Path) -> CheckpointWeights:
    """The weights of these files, exactly those of the model; `whole` is what errors name."""
    found: dict[str, StoredTensor] = {}
    for file in paths:
        found |= _index(file)
    # Older Llama checkpoints keep the rotary frequencies, which the config determines.
    found = {name: t for name, t in found.items() if not name.endswith("rotary_emb.inv_freq")}
    _compare(whole, tensor_shapes(model), found)
    return CheckpointWeights(found)


def files(directory: str | Path) -> list[Path]:
    """The safetensors files of a checkpoint folder."""
    directory = Path(directory)
    index = directory / "model.safetensors.index.json"
    if index.exists():
        names = sorted(set(_json(index)["weight_map"].values()))
        return [directory / name for name in names]
    single = directory / "model.safetensors"
    if not single.exists():
        raise FileNotFoundError(f"{directory} holds neither {single.name} nor {index.name}")
    return [single]


def _index(file: Path) -> dict[str, StoredTensor]:
    """A safetensors file: eight bytes of header length, a JSON header, the tensors."""
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing, the index names it")
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > size - 8:
            raise ValueError(f"{file} is truncated: {size} bytes, the header alone has {length}")
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    return {name: _stored(file, size, 8 + length, name, entry) for name, entry in header.items()}


def _stored(file: Path, size: int, base: int, name: str, entry: dict[str, Any]) -> StoredTensor:
    start, end = (base + offset for offset in entry["data_offsets"])
    shape, dtype = tuple(entry["shape"]), entry["dtype"]
    if dtype not in DTYPES:
        raise ValueError(f"{file}: {name} is {dtype}, expected one of {', '.join(DTYPES)}")
    if end > size:
        raise ValueError(f"{file} is truncated: {name} ends at byte {end}, the file at {size}")
    if end - start != math.prod(shape) * DTYPES[dtype].itemsize:
        raise ValueError(f"{file}: {name} of shape {shape} has {end - start} bytes")
    return StoredTensor(file, dtype, shape, start, end)


def _compare(
    directory: Path, expected: dict[str, tuple[int, ...]], found: dict[str, StoredTensor]
) -> None:
    missing = sorted(expected.keys() - found.keys())
    extra = sorted(found.keys() - expected.keys())
    wrong = [
        f"{name} {found[name].shape}, expected {shape}"
        for name, shape in expected.items()
        if name in found and found[name].shape != shape
    ]
    complaints = [
        f"{word}: {', '.join(names)}"
        for word, names in (("missing", missing), ("extra", extra), ("of another shape", wrong))
        if names
    ]
    if complaints:
        raise ValueError(f"{directory}: tensors do not match config.json; " + "; ".join(complaints))


def encode(directory: str | Path, text: str) -> list[int]:
    """Token ids of the text by the folder's tokenizer.json, special tokens as it adds them."""
    from tokenizers import Tokenizer

    path = Path(directory) / "tokenizer.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: text needs a tokenizer")
    ids: list[int] = Tokenizer.from_file(str(path)).encode(text).ids
    return ids
