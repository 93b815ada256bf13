"""What this repository hands over to be measured. Importing this file imports no framework.

An offer refuses what its engine cannot honestly run, naming what is missing; it never runs
something else instead. One device runs the whole model: where a document asks for shards, the
same cell runs unsharded and `config["sharding"]` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from engines import memory

SEED = 0
BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
RUNS = {
    ("llm", "single_user", "plain"),
    ("llm", "multi_user", "plain"),
    ("hydragen", "shared", "hydragen_noshared"),
    ("hydragen", "shared", "noattention"),
    ("torchao", "generate", "normal"),
    ("jetstream", "generate", "bf16"),
}
SHARDING = ("tensor_parallel", "shard_on_batch")
MISSING_KINDS = {
    "attention": "attention benchmark without a model",
    "needles": "questions of different lengths over one shared text",
    "serving": "server",
}
MISSING_MODES = {
    "hydragen": "shared-prefix attention",
    "kv_quant": "int8 cache",
    "kv_quant_linear_mask": "int8 cache",
    "int4_kv_quant_linear_mask": "int4 weights and int8 cache",
    "int8": "quantised weights and int8 cache",
    "vllm": "vLLM",
    "vllm_notok": "vLLM",
}


@dataclass(frozen=True)
class Program:
    """A full-size program: make() builds weights and cache without data and returns the call."""

    name: str
    make: Callable[[], Callable[[], object]]


@dataclass(frozen=True)
class TorchLlamaOffer:
    """The engine of engines.torch_llama, eager or with a compiled decode step."""

    name: str
    compiled: bool = False
    default: bool = True  # False: runs only when asked for by name
    framework: str = "torch"

    def refuses(self, workload: Any, device: str) -> str | None:
        """Why this engine cannot honestly run the workload, or None."""
        missing = missing_for(workload, device)
        return f"{self.name} has no {missing}" if missing else None

    @property
    def has_programs(self) -> bool:
        """The compiled engine's are the eager one's; see programs."""
        return not self.compiled

    def open(self, workload: Any, device: str) -> Any:
        """The engine with its weights; MemoryError where weights and cache cannot fit."""
        reason = self.refuses(workload, device)
        if reason:
            raise ValueError(reason)
        require_memory(workload, device)
        weights = weights_for(workload)
        engine = self._engine(workload, device, weights)
        engine.config |= {
            "weights": described(workload, weights),
            "verifiable": is_verifiable(workload),
            "sharding": sharding(workload),
        }
        return engine

    def programs(self, workload: Any, target: str) -> list[Program]:
        """Prefill, and the last decode step, on "cpu" or "cuda" without data.

        The compiled offer has none: Inductor does not run on fake tensors, and its eager form
        would be the other offer's program under a wrong name.
        """
        if self.compiled:
            return []
        return [
            Program("prefill", lambda: self._prefill_program(workload, target)),
            Program("decode", lambda: self._decode_program(workload, target)),
        ]

    def verify(self, engine: Any, workload: Any) -> str | None:
        """Why the outputs are wrong, or None; None unchecked where config says not verifiable.

        "noattention" is wrong by design and is compared with the reference's own noattention.
        """
        if not is_verifiable(workload):
            return None
        from engines import verification

        sized = workload.sized(batch=opening_batch(workload))
        return verification.verify(engine, sized, reference_weights(workload))

    def negative_log_likelihood(self, engine: Any, stream: Any) -> float:
        """Of token ids [B, T], nats a token, through the cache as it is held."""
        from engines.likelihood import mean_loss

        return mean_loss(engine, stream)

    def model_shape(self, directory: str) -> dict[str, Any]:
        """The fields of a Model that a checkpoint folder holds; ValueError where it is none."""
        from engines import checkpoint

        return checkpoint.read_shape(directory)

    def _engine(self, workload: Any, device: str, weights: Any) -> Any:
        from engines.torch_llama import TorchLlama

        return TorchLlama(
            workload.model,
            batch=opening_batch(workload),
            cache_tokens=cache_tokens(workload),
            weights=weights,
            dtype=workload.dtype,
            device=device,
            attention=workload.mode != "noattention",
            compiled=self.compiled,
        )

    def _prefill_program(self, workload: Any, target: str) -> Callable[[], object]:
        import torch

        engine = self._engine(workload, target, None)
        shared = workload.kind == "shared"
        rows = 1 if shared else workload.batch
        time = workload.shared_tokens + workload.input_tokens
        tokens = torch.zeros((rows, time), dtype=torch.int64, device=target)
        run = engine.run_shared if shared else engine.run_prompts
        return lambda: run(tokens)

    def _decode_program(self, workload: Any, target: str) -> Callable[[], object]:
        import torch

        from engines.torch_llama import Step

        engine = self._engine(workload, target, None)
        tokens = torch.zeros((workload.batch,), dtype=torch.int64, device=target)
        scores = torch.empty((workload.batch, 0), device=target)  # decode reads none
        counted = workload.output_tokens if engine.caches is None else workload.sequence_tokens
        step = Step(tokens, scores, min(counted, engine.cache_tokens) - 1)
        return lambda: engine.decode(step)


def offers() -> list[Any]:
    """All offers of this repository."""
    from engines.hydragen.kernels_offer import HydragenKernelsOffer
    from engines.hydragen.offer import HydragenOffer
    from engines.jetstream.offer import JetStreamOffer
    from engines.torchao_llama.offer import TorchaoLlamaOffer

    return [
        TorchLlamaOffer("torch_llama"),
        TorchLlamaOffer("torch_llama_compile", compiled=True, default=False),
        HydragenOffer(),
        HydragenOffer("hydragen_triton", default=False, triton=True),
        HydragenKernelsOffer(),
        JetStreamOffer(),
        TorchaoLlamaOffer(),
        TorchaoLlamaOffer("torchao_llama_compile", compiled=True, default=False),
    ]


def missing_for(workload: Any, device: str) -> str | None:
    """What a single-device bfloat16 engine with a full cache lacks for the workload, or None."""
    kind, mode = workload.kind, workload.mode
    if device.split(":")[0] not in ("cpu", "cuda"):
        return f"{device} support"
    if kind in MISSING_KINDS:
        return f"{kind}: {MISSING_KINDS[kind]}"
    if (workload.document, kind, mode) not in RUNS:
        return f"{mode}: {MISSING_MODES[mode]}" if mode in MISSING_MODES else f"{kind} {mode}"
    if workload.is_rolling:
        held, needed = workload.cache_tokens, workload.sequence_tokens
        return f"rolling cache: {held} cached of {needed} tokens"
    context = workload.model.max_context
    if workload.sequence_tokens > context:
        return f"context of {workload.sequence_tokens} tokens: {workload.model.name} has {context}"
    return missing_numbers(workload, device) or missing_option(workload)


def missing_numbers(workload: Any, device: str) -> str | None:
    """A data type that the attention operators do not take."""
    if workload.dtype not in BYTES:
        return f"{workload.dtype} weights"
    if workload.dtype == "float32" and device.startswith("cuda"):
        return "float32 on cuda: flash attention takes bfloat16 and float16"
    return None


def missing_option(workload: Any) -> str | None:
    """A flag of the document that would have no effect here; sharding is reported in config."""
    asked = [name for name, value in workload.options if value != "false"]
    unknown = sorted(set(asked) - set(SHARDING))
    return f"option {', '.join(unknown)}" if unknown else None


def cache_tokens(workload: Any) -> int:
    """Tokens that the cache of one sequence holds; the document's number, or as many as needed."""
    return int(workload.cache_tokens or workload.sequence_tokens)


def require_memory(workload: Any, device: str) -> None:
    """MemoryError where weights and cache do not fit; a batch that grows later checks again."""
    size = BYTES[workload.dtype]
    cached = 0 if workload.mode == "noattention" else opening_batch(workload)
    tokens = cached * cache_tokens(workload)
    memory.require(
        device,
        weights=workload.model.parameters * size,
        cache=tokens * workload.model.kv_values_per_token * size,
        what=f"{workload.model.name} with a cache of {tokens} tokens",
    )


def opening_batch(workload: Any) -> int:
    """Sequences that the engine is opened for; a search over batches starts at 2 and grows."""
    return 2 if workload.kind == "multi_user" else int(workload.batch)


def weights_for(workload: Any) -> Mapping[str, Any] | int:
    """The checkpoint's, numpy's for a small model, or the seed for the device to draw from."""
    from engines import checkpoint
    from engines.weights import SeededWeights, is_small

    if workload.model.checkpoint is not None:
        require_same_shape(workload.model)
        return checkpoint.load_weights(workload.model.checkpoint)
    if is_small(workload.model):
        return SeededWeights(workload.model, workload.dtype, SEED)
    return SEED


def require_same_shape(model: Any) -> None:
    """The checkpoint is the model that the workload names."""
    from engines import checkpoint

    for field, found in checkpoint.read_shape(model.checkpoint).items():
        expected = getattr(model, field)
        if field == "rope_scaling" and expected is not None:
            expected = {key: getattr(expected, key) for key in found or ()}
        if field not in ("name", "checkpoint") and found != expected:
            raise ValueError(
                f"{model.checkpoint}: {field} is {found}, {model.name} says {expected}"
            )


def reference_weights(workload: Any) -> dict[str, Any]:
    """By name a float32 array, rounded as the engine's dtype holds them."""
    from engines.weights import rounded

    source = weights_for(workload)
    assert isinstance(source, Mapping), "a verifiable workload has weights in numpy"
    return {
        name: rounded(array.astype("float32"), workload.dtype) for name, array in source.items()
    }


def is_verifiable(workload: Any) -> bool:
    """Small models only: the reference would take hours and hundreds of gigabytes for others."""
    from engines.weights import is_small

    return is_small(workload.model)


def described(workload: Any, weights: Mapping[str, Any] | int) -> str:
    """Where the weights come from, for the effective configuration."""
    if workload.model.checkpoint is not None:
        return f"checkpoint {workload.model.checkpoint}"
    return (
        f"seed {SEED}, drawn on the device" if isinstance(weights, int) else f"seed {SEED}, numpy"
    )


def sharding(workload: Any) -> str:
    """One device holds everything; says what the document asked for."""
    asked = [f"{name}={value}" for name, value in workload.options if name in SHARDING]
    return f"none, the document asks for {', '.join(asked)}" if asked else "none"
