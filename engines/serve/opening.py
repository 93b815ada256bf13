"""From the options to an engine with its weights, and the text that goes with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engines import checkpoint, memory
from engines.offers import BYTES
from engines.serve.models import Shape, named, of_checkpoint, require_same
from engines.serve.options import Options
from engines.serve.slots import SlotEngine
from engines.serve.text import Bytes, Text, Tokenizer
from engines.weights import SeededWeights, is_small


def shape_of(options: Options) -> Shape:
    """What is served; ValueError where it is not what was named, or too short for the lengths."""
    known = named(options.model, options.param_size or "") if options.model else None
    if options.checkpoint_path:
        shape = of_checkpoint(checkpoint.read_shape(options.checkpoint_path))
        if known:
            require_same(shape, known)
    else:
        assert known is not None, "options ask for a checkpoint or a name"
        shape = known
    longest = options.max_input_length + options.max_output_length
    if longest > shape.max_context:
        raise ValueError(
            f"a prompt of {options.max_input_length} and an answer of {options.max_output_length} "
            f"tokens exceed the {shape.max_context} that {shape.name} was made for"
        )
    return shape


def text_of(options: Options, shape: Shape) -> Text:
    """The tokenizer that was named, the checkpoint's, or bytes where there is none."""
    folder = options.checkpoint_path
    if options.tokenizer_path:
        return Tokenizer(options.tokenizer_path)
    if folder and (Path(folder) / "tokenizer.json").is_file():
        return Tokenizer(folder)
    return Bytes(shape.vocab_size)


def opened(options: Options, shape: Shape, text: Text) -> SlotEngine:
    """The engine, warm; MemoryError where it does not fit."""
    make = _jetstream if options.engine == "jetstream" else _torch
    engine = make(options, shape, text)
    engine.config["weights"] = _described(options, shape)
    engine.warm_up()
    return engine


def _weights(options: Options, shape: Shape) -> Mapping[str, Any] | int:
    """The checkpoint's; else numpy's where the reference can check them, or drawn by the engine."""
    if not options.random_weights:
        return checkpoint.load_weights(options.checkpoint_path or "")
    if is_small(shape):
        return SeededWeights(shape, options.dtype, options.seed)
    return options.seed


def _described(options: Options, shape: Shape) -> str:
    if not options.random_weights:
        return f"checkpoint {options.checkpoint_path}"
    return f"random, seed {options.seed}, {'numpy' if is_small(shape) else 'drawn by the engine'}"


def _jetstream(options: Options, shape: Shape, text: Text) -> SlotEngine:  # noqa: ARG001
    from engines.jetstream.engine import JetStream
    from engines.jetstream.plan import Plan
    from engines.jetstream.room import require_memory
    from engines.jetstream.sharding import sharding_over
    from engines.serve.jetstream_slots import JetStreamSlots

    plan = Plan(
        shape,
        sharding_over(
            _devices(options), shape, batch=options.batch_size, on_batch=options.shard_on_batch
        ),
        batch=options.batch_size,
        cache_tokens=options.max_cache_length,
        tokens=options.max_input_length + options.max_output_length,
        dtype=options.dtype,
        quantize_weights=options.quantize_weights,
        quantize_cache=options.quantize_kv_cache,
    )
    require_memory(plan)
    engine = JetStream(plan, _weights(options, shape))
    return JetStreamSlots(engine, options.max_input_length)


def _devices(options: Options) -> Any:
    from engines.jetstream.offer import attached

    found = attached(options.platform)
    if options.devices is not None and len(found) < options.devices:
        raise ValueError(
            f"got --platform={options.platform}={options.devices}, "
            f"jax sees {len(found)} devices of this kind"
        )
    return found[: options.devices]


def _torch(options: Options, shape: Shape, text: Text) -> SlotEngine:
    from engines.serve.torch_slots import TorchSlots

    size = BYTES[options.dtype]
    tokens = options.batch_size * options.max_cache_length
    memory.require(
        "cpu",
        weights=shape.parameters * size,
        cache=tokens * shape.kv_values_per_token * size,
        what=f"{shape.name} with {options.batch_size} slots of {options.max_cache_length} tokens",
    )
    return TorchSlots(
        shape,
        slots=options.batch_size,
        tokens=options.max_cache_length,
        weights=_weights(options, shape),
        dtype=options.dtype,
        prefix=_prefix(options, text),
    )


def _prefix(options: Options, text: Text) -> list[int]:
    """Token ids of the shared prefix; ValueError where no prompt could go on behind it."""
    if options.shared_prefix is None:
        return []
    tokens = text.encode(Path(options.shared_prefix).read_text())
    if not 0 < len(tokens) < options.max_input_length:
        raise ValueError(
            f"{options.shared_prefix} is {len(tokens)} tokens long, expected 1 to "
            f"{options.max_input_length - 1}: prompts that begin with it are longer"
        )
    return tokens
