"""What users would run instead, on the same shape with random weights: blocks of `bench/decode.py`.

A block gives the seconds of a decode step, for all sequences of the batch together, as each system
is meant to be run: transformers by its forward pass with a cache, vLLM by `LLM.generate` with its
own stamps of the first and the last token.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from perfsuite.adapters.vllm import config_of
from perfsuite.workloads.workload import Model


def transformers_block(
    model: Model, dtype: str, prompts: list[list[int]], steps: int
) -> Callable[[], float]:
    """Greedy steps of LlamaForCausalLM; generate() does more between them."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("cpu"):
        network = LlamaForCausalLM(LlamaConfig(**config_of(model, dtype, model.max_context)))
    network = network.to(getattr(torch, dtype)).eval()
    tokens = torch.tensor(prompts)

    @torch.inference_mode()
    def block() -> float:
        out = network(tokens, use_cache=True)
        newest = out.logits[:, -1:].argmax(-1)
        out = network(newest, past_key_values=out.past_key_values, use_cache=True)
        start = time.perf_counter()
        for _ in range(steps):
            newest = out.logits[:, -1:].argmax(-1)
            out = network(newest, past_key_values=out.past_key_values, use_cache=True)
        return (time.perf_counter() - start) / steps

    return block


def vllm_block(
    model: Model, dtype: str, prompts: list[list[int]], steps: int
) -> Callable[[], float]:
    """One batch handed over at once; from the last first token to the last token of all."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1",
                   "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}  # fmt: skip
    from vllm import LLM, SamplingParams

    folder = Path(tempfile.mkdtemp())
    (folder / "config.json").write_text(json.dumps(config_of(model, dtype, model.max_context)))
    engine = LLM(
        str(folder), load_format="dummy", dtype=dtype, max_model_len=2048, enforce_eager=True,
        disable_log_stats=False, skip_tokenizer_init=True, enable_prefix_caching=False,
    )  # fmt: skip
    wanted = SamplingParams(
        temperature=0, max_tokens=steps + 2, ignore_eos=True, detokenize=False
    )
    asked = [{"prompt_token_ids": row} for row in prompts]

    def block() -> float:
        answers = engine.generate(asked, wanted, use_tqdm=False)
        stamps = [answer.metrics for answer in answers]
        first = max(stamp.first_token_ts for stamp in stamps)
        return (max(stamp.last_token_ts for stamp in stamps) - first) / (steps + 1)

    return block
