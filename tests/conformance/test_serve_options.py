"""The command line and what is opened from it: every option takes effect or is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from engines.serve import opening
from engines.serve.models import SHAPES
from engines.serve.options import read
from engines.serve.text import Bytes
from perfsuite.workloads.catalogue import load_models
from tests.conformance.checkpoints import CONFIG

TINY = ["--model=llama-2", "--param_size=tiny"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint's folder without weights."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def test_the_documents_command_is_taken() -> None:
    """As the document says it, with its variables filled in."""
    options = read([
        "--engine=jetstream", "--model=llama-2", "--param_size=7b", "--batch_size=128",
        "--max_cache_length=2048", "--quantize_weights=True", "--quantize_kv_cache=True",
        "--checkpoint_path=somewhere", "--tokenizer_path=somewhere", "--platform=tpu=8",
    ])  # fmt: skip
    assert (options.platform, options.devices, options.batch_size) == ("tpu", 8, 128)
    assert (options.max_input_length, options.max_output_length) == (1024, 1024)
    assert options.quantize_weights
    assert not options.random_weights


def test_the_cache_is_quantised_as_the_weights_unless_said() -> None:
    assert read(["--engine=jetstream", *TINY, "--quantize_weights=1"]).quantize_kv_cache
    assert not read([
        "--engine=jetstream", *TINY, "--quantize_weights=1", "--quantize_kv_cache=0"
    ]).quantize_kv_cache  # fmt: skip


def test_lengths_fill_the_cache() -> None:
    def lengths(*more: str) -> tuple[int, int]:
        options = read(["--engine=torch", *TINY, "--max_cache_length=100", *more])
        return options.max_input_length, options.max_output_length

    assert lengths() == (50, 50)
    assert lengths("--max_input_length=30") == (30, 70)
    assert lengths("--max_output_length=30") == (70, 30)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--engine=torch"], "there is nothing to serve"),
        (["--engine=torch", "--model=llama-2"], "go together"),
        (["--engine=torch", *TINY, "--quantize_weights=true"], "no effect on --engine=torch"),
        (["--engine=torch", *TINY, "--quantize_kv_cache=true"], "no effect on --engine=torch"),
        (["--engine=torch", *TINY, "--shard_on_batch=true"], "no effect on --engine=torch"),
        (["--engine=torch", *TINY, "--shared_prefix=x"], "no effect on --engine=torch"),
        (["--engine=jetstream", *TINY, "--shared_prefix=x"], "no effect on --engine=jetstream"),
        (["--engine=torch", *TINY, "--platform=tpu=8"], "serves on one CPU"),
        (["--engine=jetstream", *TINY, "--platform=tpu=x"], "got --platform 'tpu=x'"),
        (["--engine=jetstream", *TINY, "--platform=abacus"], "got --platform 'abacus'"),
        (["--engine=hydragen", *TINY], "give --shared_prefix"),
        (["--engine=torch", "--checkpoint_path=x", "--seed=3"], "no effect on a checkpoint"),
        (["--engine=torch", *TINY, "--random_weights=false"], "weights are random"),
        (["--engine=torch", *TINY, "--batch_size=0"], "got --batch_size=0, expected at least 1"),
        (
            ["--engine=torch", *TINY, "--max_input_length=2000", "--max_output_length=100"],
            "does not roll: a prompt of 2000 and an answer of 100 tokens need",
        ),
        (["--engine=torch", *TINY, "--host=localhost"], "expected an address"),
        (["--engine=torch", *TINY, "--stall_seconds=0"], "expected --stall_seconds above 0"),
    ],
)
def test_what_has_no_effect_or_no_meaning_is_refused(arguments: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read(arguments)


def test_only_jetstream_rolls() -> None:
    lengths = ["--max_cache_length=1280", "--max_input_length=1024", "--max_output_length=1024"]
    assert read(["--engine=jetstream", *TINY, *lengths]).max_cache_length == 1280


@pytest.mark.parametrize(
    "arguments",
    [
        ["--engine=x", *TINY],
        ["--engine=torch", "--nonsense=1"],
        ["--engine=torch", *TINY, "--quantize_weights=maybe"],
    ],
)
def test_what_is_no_option_ends_the_process(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        read(arguments)


def test_shapes_are_those_of_the_documents() -> None:
    known = load_models()
    for shape in SHAPES.values():
        if shape.name in known:
            assert vars(shape) == vars(known[shape.name])
            assert shape.parameters == known[shape.name].parameters
            assert shape.kv_values_per_token == known[shape.name].kv_values_per_token
    assert sum(shape.name in known for shape in SHAPES.values()) == len(SHAPES) - 1


def test_a_checkpoint_must_be_the_model_that_was_named(folder: Path) -> None:
    options = read([
        "--engine=torch", f"--checkpoint_path={folder}", *TINY, "--max_cache_length=64",
    ])  # fmt: skip
    with pytest.raises(ValueError, match="is not llama2_tiny: hidden_size 64, expected 128"):
        opening.shape_of(options)


def test_lengths_beyond_the_models_context_are_refused(folder: Path) -> None:
    options = read(["--engine=torch", f"--checkpoint_path={folder}"])
    with pytest.raises(ValueError, match="exceed the 128"):
        opening.shape_of(options)


def opened(*arguments: str) -> Any:
    options = read([*arguments, "--max_cache_length=64", "--batch_size=2"])
    shape = opening.shape_of(options)
    return opening.opened(options, shape, opening.text_of(options, shape))


def test_a_folder_without_weights_serves_random_ones_when_asked(folder: Path) -> None:
    pytest.importorskip("torch", reason="needs torch")
    source = f"--checkpoint_path={folder}"
    with pytest.raises(FileNotFoundError, match=r"holds neither model\.safetensors"):
        opened("--engine=torch", source)
    engine = opened("--engine=torch", source, "--random_weights=true", "--seed=3")
    assert engine.config["weights"] == "random, seed 3, numpy"


def test_a_shared_prefix_is_kept_once(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs torch")
    (tmp_path / "prefix.txt").write_text("a prefix")
    engine = opened("--engine=hydragen", *TINY, f"--shared_prefix={tmp_path / 'prefix.txt'}")
    assert engine.config["prefix"] == "8 tokens, read once"
    (tmp_path / "prefix.txt").write_text("a prefix" * 9)
    with pytest.raises(ValueError, match="is 72 tokens long, expected 1 to 31"):
        opened("--engine=hydragen", *TINY, f"--shared_prefix={tmp_path / 'prefix.txt'}")


def test_jetstream_options_take_effect() -> None:
    jax = pytest.importorskip("jax", reason="needs jax")
    count = len(jax.devices("cpu"))
    engine = opened("--engine=jetstream", *TINY, "--quantize_weights=true", "--platform=cpu=1")
    config = engine.config
    assert (config["weights_dtype"], config["cache_dtype"], config["devices"]) == (
        "int8", "int8", 1,
    )  # fmt: skip
    with pytest.raises(ValueError, match=f"jax sees {count} devices of this kind"):
        opened("--engine=jetstream", *TINY, f"--platform=cpu={count + 1}")


def test_too_small_a_vocabulary_for_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="bytes need 256: give --tokenizer_path"):
        Bytes(100)


def test_options_import_no_framework(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "jax", "aiohttp", "grpc"):
        monkeypatch.setitem(sys.modules, name, None)
    assert read(["--engine=torch", *TINY]).engine == "torch"
