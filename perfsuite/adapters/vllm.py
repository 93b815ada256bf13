"""vLLM in this process, as an engine: one call of its scheduler is one decode step.

Needs vllm in the environment; `perfsuite[vllm]` is its package for GPUs. Prompts are token ids,
answers have the length that was asked for whatever token comes, and weights are vLLM's own
random ones unless --perf-model names a checkpoint. A shared prefix is run by the first sequence
and found in vLLM's prefix cache by the others: how many tokens they found is checked.

Modes of the Hydragen document: "vllm" turns tokens into text as it goes, "vllm_notok" does not. The
document edited the package for that; here it is `detokenize=False`.
"""

from __future__ import annotations

import gc
import json
import logging
import math
import os
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perfsuite.errors import EngineUnavailable, Void
from perfsuite.protocols import TokenRows
from perfsuite.workloads import Model, Workload

_BLOCK = 32  # tokens of a block of the cache, as CPUs take it; only full blocks are shared
_LEAST_HEAD = 32  # of vLLM's attention on a CPU; the smoke models' heads are smaller
_GIB = 2**30


@dataclass(frozen=True)
class Step:
    """The newest token of every sequence, and how many each has."""

    tokens: list[int]
    decoded: int


class Vllm:
    """prefill, prefill_shared and decode on `vllm.LLM`, for one batch and one length."""

    def __init__(self, workload: Workload, device: str) -> None:
        os.environ |= _environment(workload)
        with warnings.catch_warnings():  # vLLM's own, which a project may have made errors
            warnings.simplefilter("ignore")
            self._open(workload)
        self.config = self._described(workload, device)

    def _open(self, workload: Workload) -> None:
        from vllm import LLM, SamplingParams

        logging.getLogger("vllm").setLevel(logging.ERROR)
        self._folder = tempfile.TemporaryDirectory()
        self._batch, self._output = workload.batch, workload.output_tokens
        self._texts = workload.mode == "vllm"
        self._llm = LLM(**_arguments(workload, Path(self._folder.name), self._texts))
        self._engine = self._llm.llm_engine
        self._sampling = SamplingParams
        self._asked: list[str] = []
        self._number = 0

    def _described(self, workload: Workload, device: str) -> dict[str, Any]:
        import vllm

        found = self._engine.vllm_config
        return {
            "model": workload.model.name,
            "dtype": str(found.model_config.dtype).removeprefix("torch."),
            "device": device,
            "batch": self._batch,
            "vllm": vllm.__version__,
            "weights": workload.model.checkpoint or "vLLM's random ones",
            "prefix_cache": bool(found.cache_config.enable_prefix_caching),
            "block_tokens": int(found.cache_config.block_size),
            "graphs": "none" if found.model_config.enforce_eager else "vLLM's own",
            "detokenize": self._texts,
        }

    def prefill(self, token_ids: TokenRows) -> Step:
        """Forget all sequences, run these prompts in one call, which gives the first tokens."""
        self._forget()
        self._ask(token_ids)
        return self._first(self._call())

    def prefill_shared(self, prefix_ids: Sequence[int], batch: int) -> Step:
        """The prefix once, for a token that nobody wants; then for all, who find it in the cache.

        Void where vLLM has computed it again for one of them.
        """
        self._forget()
        if not self._engine.reset_prefix_cache():
            raise Void("vLLM did not empty its prefix cache: a prompt was still running")
        self._ask([prefix_ids], tokens=1)
        self._call()
        self._asked = []
        self._ask([prefix_ids] * batch)
        found = self._call()
        least = (len(prefix_ids) - 1) // _BLOCK * _BLOCK
        cached = [out.num_cached_tokens for out in found.values()]
        if any(count is None or count < least for count in cached):
            raise Void(
                f"vLLM found {min(count or 0 for count in cached)} tokens of a prefix of"
                f" {len(prefix_ids)} in its cache, expected {least}: the prefix was not shared"
            )
        return self._first(found)

    def _first(self, found: dict[str, Any]) -> Step:
        if len(found) != len(self._asked):
            raise Void(
                f"vLLM's first call gave tokens to {len(found)} of {len(self._asked)} sequences:"
                " the prompts did not fit in one call"
            )
        return self._step(found, 1)

    def decode(self, step: Step) -> Step:
        """One more token for every sequence. Only the newest step can be continued."""
        return self._step(self._call(), step.decoded + 1)

    def _step(self, found: dict[str, Any], decoded: int) -> Step:
        tokens = [found[name].outputs[0].token_ids[-1] for name in self._asked if name in found]
        if len(tokens) != len(self._asked):
            raise Void(f"a call of vLLM gave {len(tokens)} of {len(self._asked)} sequences a token")
        return Step(tokens, decoded)

    def wait(self, step: Step) -> None:
        """Tokens are on the host when a call returns."""

    def close(self) -> None:
        """Give the memory back."""
        from vllm.distributed import cleanup_dist_env_and_memory

        self._forget()
        del self._engine, self._llm
        gc.collect()
        cleanup_dist_env_and_memory()
        self._folder.cleanup()

    def _forget(self) -> None:
        if self._asked and self._engine.has_unfinished_requests():
            self._engine.abort_request(self._asked)
        self._asked = []

    def _ask(self, prompts: TokenRows, tokens: int | None = None) -> None:
        wanted = self._sampling(
            temperature=0, max_tokens=tokens or self._output, ignore_eos=True,
            detokenize=self._texts,
        )  # fmt: skip
        for prompt in prompts:
            self._number += 1
            name = str(self._number)
            self._engine.add_request(name, {"prompt_token_ids": list(prompt)}, wanted)
            self._asked.append(name)

    def _call(self) -> dict[str, Any]:
        """What one call of the scheduler gave, by request; a number may come with a suffix."""
        return {str(out.request_id).partition("-")[0]: out for out in self._engine.step()}


def _environment(workload: Workload) -> dict[str, str]:
    """Nothing is fetched or sent, the engine runs in this process, the cache has room."""
    tokens = workload.batch * (workload.sequence_tokens + 2 * _BLOCK)
    size = 4 if workload.dtype == "float32" else 2
    room = math.ceil(tokens * workload.model.kv_values_per_token * size / _GIB)
    return {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_CPU_KVCACHE_SPACE": str(max(1, room)),
    }


def _arguments(workload: Workload, folder: Path, texts: bool) -> dict[str, Any]:
    model = workload.model
    path = Path(model.checkpoint) if model.checkpoint else _written(model, workload, folder, texts)
    if texts and not (path / "tokenizer.json").exists():
        raise EngineUnavailable(
            f'the mode "vllm" turns tokens into text: {path} has no tokenizer.json'
            ' (the mode "vllm_notok" needs none)'
        )
    prompts = workload.batch * workload.input_tokens + workload.shared_tokens
    return {
        "model": str(path),
        "load_format": "auto" if model.checkpoint else "dummy",
        "dtype": workload.dtype,
        "max_model_len": workload.sequence_tokens + _BLOCK,
        "max_num_seqs": workload.batch,
        "max_num_batched_tokens": max(2048, prompts + _BLOCK * workload.batch),
        "enable_prefix_caching": bool(workload.shared_tokens),
        "block_size": _BLOCK,
        "skip_tokenizer_init": not texts,
        "enforce_eager": True,
        "disable_log_stats": False,
        "seed": 0,
    }


def _written(model: Model, workload: Workload, folder: Path, texts: bool) -> Path:
    """A folder with the shape, and a tokenizer of as many words where text is asked for."""
    context = max(model.max_context, workload.sequence_tokens + _BLOCK)
    config = config_of(model, workload.dtype, context)
    (folder / "config.json").write_text(json.dumps(config))
    if texts:
        words: dict[str, int] = {f"w{number} ": number for number in range(model.vocab_size)}
        tokenizer: dict[str, Any] = {
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
            "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None,
            "model": {"type": "WordLevel", "vocab": words, "unk_token": "w0 "},
        }  # fmt: skip
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        kind = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "w0 "}
        (folder / "tokenizer_config.json").write_text(json.dumps(kind))
    return folder


def config_of(model: Model, dtype: str, context: int) -> dict[str, Any]:
    """The `config.json` of a shape, for prompts and answers of `context` tokens together."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": model.hidden_size,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_dim,
        "intermediate_size": model.intermediate_size,
        "vocab_size": model.vocab_size,
        "max_position_embeddings": context,
        "rms_norm_eps": model.norm_eps,
        "rope_theta": model.rope_theta,
        "tie_word_embeddings": model.tied_embeddings,
        "torch_dtype": dtype,
    }


RUNS = {
    ("hydragen", "shared", "vllm"),
    ("hydragen", "shared", "vllm_notok"),
    ("llm", "single_user", "plain"),
    ("jetstream", "generate", "bf16"),
}


@dataclass(frozen=True)
class VllmOffer:
    """vLLM on the documents' cells of Llama models; runs when --engine=vllm names it."""

    name: str = "vllm"
    framework: str = "torch"
    default: bool = False

    def refuses(self, workload: Workload, device: str) -> str | None:
        """Why vLLM in process does not run the workload, or None."""
        asked = (workload.document, workload.kind, workload.mode)
        if asked not in RUNS:
            return f"vllm in process has no {' '.join(filter(None, asked))}"
        model = workload.model
        if model.activation != "silu" or model.scaled_embeddings or model.rope_scaling:
            return f"vllm in process is given Llama's shape, {model.name} has another"
        if device == "cpu" and model.head_dim < _LEAST_HEAD:
            return (
                f"vllm on a CPU takes heads of {_LEAST_HEAD} and more, {model.name} has"
                f" {model.head_dim}: give --perf-model"
            )
        if workload.is_rolling:
            return "vllm in process has no rolling cache"
        return None if device.startswith(("cpu", "cuda")) else f"vllm in process has no {device}"

    def model_shape(self, directory: Path) -> dict[str, Any]:
        """The fields of a Model, as transformers reads a checkpoint's config.json.

        ValueError for a model that is none of Llama's shape.
        """
        from transformers import AutoConfig

        found = AutoConfig.from_pretrained(directory)
        if found.model_type not in ("llama", "mistral"):
            raise ValueError(f"model_type {found.model_type!r}, expected llama or mistral")
        rope = getattr(found, "rope_parameters", None) or {}
        return {
            "name": Path(directory).resolve().name,
            "layers": found.num_hidden_layers,
            "hidden_size": found.hidden_size,
            "heads": found.num_attention_heads,
            "kv_heads": found.num_key_value_heads,
            "head_dim": found.head_dim or found.hidden_size // found.num_attention_heads,
            "intermediate_size": found.intermediate_size,
            "vocab_size": found.vocab_size,
            "max_context": found.max_position_embeddings,
            "rope_theta": rope.get("rope_theta", getattr(found, "rope_theta", 10_000.0)),
            "norm_eps": found.rms_norm_eps,
            "tied_embeddings": found.tie_word_embeddings,
        }

    def open(self, workload: Workload, device: str) -> Vllm:
        """The engine, loaded for this workload's batch and lengths."""
        return Vllm(workload, device)
