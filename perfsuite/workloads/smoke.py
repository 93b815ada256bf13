"""Shrinks a workload until two processor cores answer it in tens of milliseconds.

What makes the question this question is kept: query heads for each key/value head, whether the
model is multi-head, grouped or multi-query, what its activation and embeddings are, which of two
models is deeper, whether one sequence or many are run, which of two lengths is longer, and whether
the cache is shorter than the text. Every size is a monotone function of the full size and never
larger than it. What has no meaning on one small machine goes: the device, how the model is spread
over chips, and the document's repetitions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import inf

from perfsuite.workloads.merging import id_part, merge
from perfsuite.workloads.workload import Model, Workload

_Steps = tuple[tuple[float, int], ...]

# (largest full size, smoke size): a size takes the first row that it does not exceed.
_BATCH: _Steps = ((1, 1), (31, 2), (256, 4), (inf, 8))
_PROMPT: _Steps = ((128, 16), (1024, 64), (inf, 128))
# A prefix is computed once, so it may stay long beside the completions; the two classes are on
# either side of 4096, up to which sharing it gains little at small batches.
_PREFIX: _Steps = ((4096, 64), (inf, 256))
_OUTPUT: _Steps = ((127, 8), (512, 16), (inf, 32))
_LONG_CACHE: _Steps = ((16384, 256), (65536, 1024), (inf, 4096))
_LARGEST_BATCH = _BATCH[-1][1]

# Options that speak of many chips, of large memory or of the full model's name.
_FULL_SIZE_ONLY = frozenset(
    {"tensor_parallel", "shard_on_batch", "platform", "one_process_per_point", "param_size"}
)
# The options that are sizes themselves.
_SIZED_OPTIONS = {"num_prompts": "64", "base_prompt_string_length": "640"}


def shrink(workload: Workload) -> Workload:
    """The smoke workload of one full-size workload; a smoke workload comes back as it is.

    Pure and deterministic; the id follows from the shrunken sizes alone.
    """
    if workload.scale == "smoke":
        return workload
    prompt, output = _prompt(workload), _stepped(workload.output_tokens, _OUTPUT)
    small = replace(
        workload,
        model=shrink_model(workload.model),
        device="",
        place="",
        batch=_batch(workload),
        input_tokens=prompt,
        shared_tokens=_stepped(workload.shared_tokens, _PREFIX),
        output_tokens=output,
        cache_tokens=0,
        iterations=0,
        warmup_iterations=0,
        options=_options(workload),
        scale="smoke",
        stands_for=(workload.id,),
    )
    small = replace(small, cache_tokens=_cache(workload, small))
    return replace(small, id=_id(workload.model.name, small))


def smoke_catalogue(workloads: Iterable[Workload]) -> tuple[Workload, ...]:
    """The workloads shrunk; those that became equal are one, which names all it stands for.

    What is compiled and never run is left out.
    """
    return merge((shrink(w), w.id) for w in workloads if not w.is_compiled_only)


def shrink_model(model: Model) -> Model:
    """A decoder of the same build with 2 to 5 layers (one, if it has one) and seeded weights.

    A model that has weights of its own stays as it is: only the lengths around it shrink.
    """
    if model.checkpoint is not None:
        return model
    groups = model.heads // model.kv_heads
    kv_heads = min(model.kv_heads, 8 if groups == 1 else 2)
    head_dim = min(model.head_dim, 16 if model.head_dim <= 128 else 32)
    attention_width = model.heads * model.head_dim
    hidden = kv_heads * groups * head_dim * model.hidden_size // attention_width
    return replace(
        model,
        name=f"{model.name}_smoke",
        layers=min(model.layers, 5, max(2, model.layers // 10)),
        hidden_size=hidden,
        heads=kv_heads * groups,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=_intermediate(model, hidden),
        vocab_size=_vocabulary(model.vocab_size),
        max_context=min(model.max_context, max(512, model.max_context // 16)),
    )


def _intermediate(model: Model, hidden: int) -> int:
    """The MLP in proportion, at most four times as wide; a multiple of 64, a quantisation group."""
    proportional = hidden * model.intermediate_size // model.hidden_size
    rounded = -(-min(proportional, 4 * hidden) // 64) * 64
    return min(model.intermediate_size, rounded)


def _vocabulary(size: int) -> int:
    """A power of two between 1/256 and 1/128 of the size, and no less than 256."""
    return min(size, max(256, 1 << max(0, size.bit_length() - 8)))


def _stepped(size: int, steps: _Steps) -> int:
    return min(size, next(small for largest, small in steps if size <= largest))


def _prompt(workload: Workload) -> int:
    return _stepped(workload.input_tokens, _PROMPT)


def _batch(workload: Workload) -> int:
    # 0 has no bound, so it takes the largest.
    return _stepped(workload.batch, _BATCH) if workload.batch else _LARGEST_BATCH


def _cache(full: Workload, small: Workload) -> int:
    """The cache on the same side of the text's end: shorter, exactly as long, or longer."""
    if full.cache_tokens == 0:
        return 0
    if full.is_rolling:
        return _rolling_cache(full, small)
    if full.cache_tokens == full.sequence_tokens:
        return small.sequence_tokens
    return max(small.sequence_tokens + 1, _stepped(full.cache_tokens, _LONG_CACHE))


def _rolling_cache(full: Workload, small: Workload) -> int:
    """A cache that is used up after the same share of the prompt or of the output."""
    full_prompt = full.shared_tokens + full.input_tokens
    small_prompt = small.shared_tokens + small.input_tokens
    if full.cache_tokens < full_prompt:
        return max(1, small_prompt * full.cache_tokens // full_prompt)
    room = full.cache_tokens - full_prompt
    return max(1, small_prompt + small.output_tokens * room // full.output_tokens)


def _options(workload: Workload) -> tuple[tuple[str, str], ...]:
    return tuple(
        (name, _SIZED_OPTIONS.get(name, value))
        for name, value in workload.options
        if name not in _FULL_SIZE_ONLY
    )


def _id(model_name: str, small: Workload) -> str:
    sizes = {
        "b": small.batch,
        "i": small.input_tokens,
        "s": small.shared_tokens,
        "u": small.output_tokens,
        "c": small.cache_tokens,
    }
    shape = "-".join(f"{letter}{size}" for letter, size in sizes.items() if size)
    model = id_part(model_name)
    return f"{small.document}-smoke-{model}-{small.kind}-{small.mode}-{shape}"
