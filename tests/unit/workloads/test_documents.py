"""The catalogue against the four documents, figure by figure."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest

from perfsuite.workloads import Workload, load_catalogue

BY_ID = {workload.id: workload for workload in load_catalogue()}


def of(document: str, *kinds: str) -> list[Workload]:
    """The document's workloads, of some kinds only where any are given."""
    return [
        workload
        for workload in BY_ID.values()
        if workload.document == document and (not kinds or workload.kind in kinds)
    ]


def test_size_of_each_document() -> None:
    """13 + 4, 801 + 215, 16 and 18 cells."""
    counts = Counter(w.document for w in BY_ID.values() if not w.is_compiled_only)
    assert counts == {"jetstream": 17, "hydragen": 1016, "torchao": 16, "llm": 18}


def test_hydragen_counts() -> None:
    """801 different cells: 534 end to end, 264 of the microbenchmark, 3 needle runs."""
    own = of("hydragen", "kernels")
    cells = [w for w in of("hydragen") if w.mode != "vllm_notok" and w not in own]
    assert Counter(workload.kind for workload in cells) == {
        "shared": 534,
        "attention": 264,
        "needles": 3,
    }
    assert Counter(w.mode for w in cells if w.kind == "shared") == {
        "hydragen": 195,
        "hydragen_noshared": 85,
        "noattention": 39,
        "vllm": 215,
    }
    assert len(cells) == 801


def test_hydragen_notok_repeats_the_vllm_cells() -> None:
    """vllm_notok asks exactly the cells of vllm again."""

    def cells(mode: str) -> list[tuple[object, ...]]:
        return [_cell(w) for w in of("hydragen", "shared") if w.mode == mode]

    assert cells("vllm_notok") == cells("vllm")
    assert len(cells("vllm")) == len(set(cells("vllm"))) == 215


def _cell(w: Workload) -> tuple[object, ...]:
    return (
        w.model.name, w.batch, w.shared_tokens, w.output_tokens, w.iterations, w.warmup_iterations
    )  # fmt: skip


# The largest batch of each mode by model and completion length; batches double from 32.
@pytest.mark.parametrize(
    ("mode", "model", "output", "largest"),
    [
        ("hydragen", "codellama_7b", 128, 2048),
        ("hydragen", "codellama_7b", 256, 1024),
        ("hydragen", "codellama_13b", 128, 1024),
        ("hydragen", "codellama_13b", 256, 512),
        ("hydragen", "codellama_34b", 128, 4096),
        ("hydragen", "codellama_34b", 256, 2048),
        ("vllm", "codellama_7b", 128, 2048),
        ("vllm", "codellama_7b", 256, 2048),
        ("vllm", "codellama_13b", 128, 1024),
        ("vllm", "codellama_13b", 256, 2048),
        ("vllm", "codellama_34b", 128, 4096),
        ("vllm", "codellama_34b", 256, 4096),
    ],
)
def test_hydragen_full_grids(mode: str, model: str, output: int, largest: int) -> None:
    """Hydragen and vLLM fill the grid of batches and prefixes; the longest ends at 16384 tokens."""
    batches = [32 << power for power in range(8) if 32 << power <= largest]
    prefixes = [1024, 2048, 4096, 8192, 16384 - output]
    found = {
        (w.batch, w.shared_tokens)
        for w in of("hydragen", "shared")
        if (w.mode, w.model.name, w.output_tokens) == (mode, model, output)
    }
    assert found == set(product(batches, prefixes))


NOSHARED = {
    ("codellama_7b", 128): {32: 5, 64: 4, 128: 3, 256: 2},
    ("codellama_7b", 256): {32: 5, 64: 4, 128: 3, 256: 1},
    ("codellama_13b", 128): {32: 4, 64: 3, 128: 2, 256: 1},
    ("codellama_13b", 256): {32: 4, 64: 3, 128: 2, 256: 1},
    ("codellama_34b", 128): {32: 5, 64: 5, 128: 4, 256: 3, 512: 2},
    ("codellama_34b", 256): {32: 5, 64: 5, 128: 4, 256: 3, 512: 2},
}


@pytest.mark.parametrize(("model", "output"), NOSHARED)
def test_hydragen_noshared_staircase(model: str, output: int) -> None:
    """Without sharing, the longest prefixes are given up one by one as the batch grows."""
    prefixes = [1024, 2048, 4096, 8192, 16384 - output]
    expected = {
        (batch, prefix)
        for batch, count in NOSHARED[model, output].items()
        for prefix in prefixes[:count]
    }
    found = {
        (w.batch, w.shared_tokens)
        for w in of("hydragen", "shared")
        if (w.mode, w.model.name, w.output_tokens) == ("hydragen_noshared", model, output)
    }
    assert found == expected


def test_hydragen_noattention_has_one_prefix() -> None:
    """Without attention only the prefix of 1024 is run, at every batch of Hydragen's own."""
    noattention = [w for w in of("hydragen", "shared") if w.mode == "noattention"]
    hydragen = [w for w in of("hydragen", "shared") if w.mode == "hydragen"]
    assert {w.shared_tokens for w in noattention} == {1024}
    assert {(w.model, w.batch, w.output_tokens) for w in noattention} == {
        (w.model, w.batch, w.output_tokens) for w in hydragen
    }


@pytest.mark.parametrize(
    ("workload_id", "iterations"),
    [
        ("hydragen-codellama_7b-hydragen-b128-s16256-u128", 10),
        ("hydragen-codellama_7b-hydragen-b256-s16256-u128", 3),
        ("hydragen-codellama_34b-noattention-b4096-s1024-u128", 10),
        ("hydragen-codellama_13b-hydragen_noshared-b256-s1024-u256", 10),
        ("hydragen-codellama_7b-vllm-b64-s1024-u128", 3),
        ("hydragen-codellama_7b-vllm-b128-s1024-u128", 1),
        ("hydragen-codellama_13b-vllm-b512-s2048-u128", 3),
        ("hydragen-codellama_13b-vllm-b512-s4096-u128", 1),
        ("hydragen-codellama_13b-vllm-b1024-s16256-u128", 3),
    ],
)
def test_hydragen_iterations(workload_id: str, iterations: int) -> None:
    """Iterations and warm-up are those of the command line that names the cell."""
    workload = BY_ID[workload_id]
    assert (workload.iterations, workload.warmup_iterations) == (iterations, iterations)


def test_hydragen_end_to_end_setting() -> None:
    """Every end-to-end cell runs on eight devices and generates after the shared prefix alone."""
    for workload in of("hydragen", "shared"):
        assert workload.option("tensor_parallel") == "8"
        assert workload.input_tokens == 0
        assert workload.sequence_tokens <= workload.model.max_context


def test_hydragen_microbenchmark() -> None:
    """Four sizes, 33 suffixes, two modes; only the largest base cells are a process each."""
    sizes = [(512, 1024), (1024, 2048), (2048, 4096), (4096, 8192)]
    cells = of("hydragen", "attention")
    assert {(w.mode, w.batch, w.shared_tokens, w.output_tokens) for w in cells} == {
        (mode, *size, suffix)
        for mode, size, suffix in product(("base", "hydragen"), sizes, range(0, 513, 16))
    }
    alone = [w for w in cells if w.option("one_process_per_point")]
    assert {(w.mode, w.batch) for w in alone} == {("base", 4096)}
    assert len(alone) == 33
    assert {w.model.heads // w.model.kv_heads for w in cells} == {8}


def test_hydragen_needles() -> None:
    """Three runs of Yi over one long text on four devices."""
    assert {workload.id for workload in of("hydragen", "needles")} == {
        "hydragen-needles-hydragen",
        "hydragen-needles-no_attention",
        "hydragen-needles-disable_hydragen",
    }
    for workload in of("hydragen", "needles"):
        assert workload.model.name == "yi_6b_200k"
        assert workload.option("tensor_parallel") == "4"
        assert workload.option("base_prompt_string_length") == "50000"
        assert workload.iterations == 10


def test_hydragen_kernels_are_no_cells_of_the_document() -> None:
    """One row of this repository's own for each model of the document, compiled and never run."""
    own = of("hydragen", "kernels")
    assert [w for w in BY_ID.values() if w.is_compiled_only] == own
    assert {w.place for w in own} == {"no cell of the document: this repository's kernels"}
    models = {w.model.name for w in of("hydragen") if w not in own}
    assert sorted(w.model.name for w in own) == sorted(models)
    assert {(w.id, w.mode, w.device) for w in own} == {
        (f"hydragen-kernels-{model}", "triton", "") for model in models
    }


JETSTREAM = [
    ("Llama 3 - 8B, row 1", "llama3_8b", "TPU v5e-8", "bfloat16", 128, 2048),
    ("Llama 3 - 8B, row 2", "llama3_8b", "TPU v5e-8", "int8", 256, 2048),
    ("Gemma - 7B, row 1", "gemma_7b", "TPU v5e-8", "bfloat16", 96, 2048),
    ("Gemma - 7B, row 2", "gemma_7b", "TPU v5e-8", "int8", 128, 2048),
    ("Gemma - 2B, row 1", "gemma_2b", "TPU v5e-8", "bfloat16", 512, 2048),
    ("Gemma - 2B, row 2", "gemma_2b", "TPU v5e-8", "int8", 1024, 2048),
    ("Gemma - 2B, row 3", "gemma_2b", "TPU v5e-1", "bfloat16", 1024, 2048),
    ("Llama 2 - 7B, row 1", "llama2_7b", "TPU v5e-8", "bfloat16", 96, 2048),
    ("Llama 2 - 7B, row 2", "llama2_7b", "TPU v5e-8", "int8", 96, 2048),
    ("Llama 2 - 13B, row 1", "llama2_13b", "TPU v5e-8", "bfloat16", 48, 2048),
    ("Llama 2 - 13B, row 2", "llama2_13b", "TPU v5e-8", "int8", 96, 2048),
    ("Llama 2 - 13B, row 3", "llama2_13b", "TPU v5e-8", "bfloat16", 80, 1280),
    ("Llama 2 - 13B, row 4", "llama2_13b", "TPU v5e-8", "int8", 96, 1280),
]


def test_jetstream_rows() -> None:
    """The thirteen rows of the tables, in their order, each 1024 tokens in and 1024 out."""
    rows = of("jetstream", "generate")
    assert [
        (w.place, w.model.name, w.device, w.dtype, w.batch, w.cache_tokens) for w in rows
    ] == JETSTREAM
    assert {(w.input_tokens, w.output_tokens) for w in rows} == {(1024, 1024)}


def test_jetstream_flags() -> None:
    """int8 rows quantise weights and cache, Gemma 2B shards on the batch, 1280 is rolling."""
    for w in of("jetstream", "generate"):
        assert w.mode == {"bfloat16": "bf16", "int8": "int8"}[w.dtype]
        quantised = "true" if w.mode == "int8" else None
        assert w.option("quantize_weights") == w.option("quantize_kv_cache") == quantised
        on_eight = w.model.name == "gemma_2b" and w.device == "TPU v5e-8"
        assert w.option("shard_on_batch") == ("true" if on_eight else None)
        assert w.is_rolling == (w.cache_tokens == 1280)


def test_jetstream_ids() -> None:
    """The id names model, chip, mode, batch and cache."""
    assert "jetstream-llama3_8b-v5e_8-bf16-b128-c2048" in BY_ID
    assert BY_ID["jetstream-gemma_2b-v5e_1-bf16-b1024-c2048"].device == "TPU v5e-1"
    assert BY_ID["jetstream-llama2_13b-v5e_8-int8-b96-c1280"].is_rolling


def test_jetstream_serving() -> None:
    """The server command with quantisation off and on, then 2000 ShareGPT prompts after warm-up."""
    serving = of("jetstream", "serving")
    assert {(w.model.name, w.mode) for w in serving} == set(
        product(("llama2_7b", "gemma_7b"), ("bf16", "int8"))
    )
    for w in serving:
        assert (w.batch, w.cache_tokens) == (128, 2048)
        quantised = "true" if w.mode == "int8" else "false"
        assert dict(w.options) == {
            "param_size": "7b",
            "platform": "tpu=8",
            "quantize_weights": quantised,
            "quantize_kv_cache": quantised,
            "dataset": "sharegpt",
            "num_prompts": "2000",
            "save_request_outputs": "true",
            "warmup_first": "true",
        }


def test_torchao_cells() -> None:
    """Five contexts by three techniques, and the 18.9 GB case."""
    contexts = (8192, 16384, 32768, 65536, 131072)
    modes = ("normal", "kv_quant", "kv_quant_linear_mask")
    expected = {f"torchao-{context}-{mode}" for context in contexts for mode in modes}
    assert {w.id for w in of("torchao")} == {
        *expected, "torchao-131072-int4_kv_quant_linear_mask"
    }  # fmt: skip
    for w in of("torchao"):
        assert w.id.startswith(f"torchao-{w.cache_tokens}-")
        assert w.model.name == "llama3_1_8b"
        assert (w.batch, w.input_tokens, w.output_tokens, w.is_rolling) == (1, 6, 200, False)


@pytest.mark.parametrize(
    ("mode", "cache", "mask", "weights"),
    [
        ("normal", None, None, None),
        ("kv_quant", "true", None, None),
        ("kv_quant_linear_mask", "true", "true", None),
        ("int4_kv_quant_linear_mask", "true", "true", "int4wo"),
    ],
)
def test_torchao_flags(mode: str, cache: str | None, mask: str | None, weights: str | None) -> None:
    """Each technique sets its flags and no other's."""
    workload = BY_ID[f"torchao-131072-{mode}"]
    assert workload.option("kv_cache_quantization") == cache
    assert workload.option("linear_causal_mask") == mask
    assert workload.option("quantization") == weights


def test_llm_cells() -> None:
    """Three models by three prompt lengths, for one user and for many."""
    expected = {
        f"llm-{model}-{prompt}-{kind}"
        for model in ("llama3_8b", "llama2_13b", "mistral_7b")
        for prompt in (128, 1024, 2048)
        for kind in ("single_user", "multi_user")
    }
    assert {w.id for w in of("llm")} == expected
    for w in of("llm"):
        assert w.id == f"llm-{w.model.name}-{w.input_tokens}-{w.kind}"
        assert w.batch == (1 if w.kind == "single_user" else 0)
        assert (w.output_tokens, w.device, w.dtype) == (128, "", "bfloat16")


def test_llm_shapes_are_the_documents() -> None:
    """Layers, hidden size, heads and vocabulary are those that the document states."""
    stated = {
        "llama3_8b": (32, 4096, 32, 128256),
        "llama2_13b": (40, 5120, 40, 32000),
        "mistral_7b": (32, 4096, 32, 32768),
    }
    for w in of("llm"):
        shape = w.model.layers, w.model.hidden_size, w.model.heads, w.model.vocab_size
        assert shape == stated[w.model.name]
