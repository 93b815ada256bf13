"""What the offers run, refuse, prove, and cost before they are opened."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import offers as offers_module
from engines.offers import TorchLlamaOffer, offers
from engines.weights import SEEDED_LIMIT
from perfsuite.workloads.workload import Model, Workload

ROOT = Path(__file__).parents[2]
LLAMA3_8B = Model(
    "llama3_8b",
    layers=32,
    hidden_size=4096,
    heads=32,
    kv_heads=8,
    head_dim=128,
    intermediate_size=14336,
    vocab_size=128256,
    max_context=8192,
    rope_theta=500_000.0,
)
HYDRAGEN = {"document": "hydragen", "kind": "shared", "shared_tokens": 12, "input_tokens": 0}


@pytest.fixture
def offer() -> TorchLlamaOffer:
    return offers()[0]


def test_the_offers() -> None:
    assert [(o.name, o.framework, o.default) for o in offers()] == [
        ("torch_llama", "torch", True),
        ("torch_llama_compile", "torch", False),
        ("hydragen", "torch", True),
        ("hydragen_triton", "torch", False),
        ("hydragen_kernels", "triton", True),
        ("jetstream", "jax", True),
        ("torchao_llama", "torch", True),
        ("torchao_llama_compile", "torch", False),
    ]


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import engines.offers as m; o = m.offers()[0]; print(o.name)", "numpy torch perfsuite"),
        ("import engines.reference, engines.tolerance, engines.checkpoint", "torch perfsuite"),
        ("import engines.torch_llama, engines.verification", "perfsuite pytest transformers"),
    ],
)
def test_imports_in_a_fresh_interpreter(code: str, absent: str) -> None:
    check = f"{code}\nimport sys; assert not {{*'{absent}'.split()}} & {{*sys.modules}}"
    subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=True, env={"PYTHONPATH": "."})


@pytest.mark.parametrize(
    ("changes", "device", "words"),
    [
        ({}, "tpu", "tpu support"),
        (HYDRAGEN | {"mode": "hydragen"}, "cpu", "hydragen: shared-prefix attention"),
        (HYDRAGEN | {"mode": "vllm"}, "cpu", "vllm: vLLM"),
        ({"mode": "int8", "dtype": "int8"}, "cpu", "int8: quantised weights and int8 cache"),
        ({"document": "torchao", "mode": "kv_quant"}, "cpu", "kv_quant: int8 cache"),
        ({"document": "torchao", "mode": "unheard"}, "cpu", "generate unheard"),
        ({"cache_tokens": 16}, "cpu", "rolling cache: 16 cached of 20 tokens"),
        ({"input_tokens": 2**20, "cache_tokens": 0}, "cpu", "context of 10485"),
        ({"kind": "attention"}, "cpu", "attention: attention benchmark without a model"),
        ({"kind": "serving"}, "cpu", "serving: server"),
        ({"kind": "needles"}, "cpu", "needles: questions"),
        ({"dtype": "float8"}, "cpu", "float8 weights"),
        ({"dtype": "float32"}, "cuda:0", "float32 on cuda"),
        ({"options": (("speculate", "5"),)}, "cpu", "option speculate"),
    ],
)
def test_refusals_name_what_is_missing(
    offer: TorchLlamaOffer,
    workload: Callable[..., Workload],
    changes: dict[str, Any],
    device: str,
    words: str,
) -> None:
    cell = workload(**changes)
    reason = offer.refuses(cell, device)
    assert reason is not None
    assert reason.startswith(f"torch_llama has no {words}")
    with pytest.raises(ValueError, match="torch_llama has no"):
        offer.open(cell, device)


CELLS: list[dict[str, Any]] = [
    {},
    {"options": (("shard_on_batch", "true"),)},
    {"document": "torchao", "mode": "normal", "batch": 1, "cache_tokens": 64},
    {"document": "llm", "kind": "single_user", "mode": "plain", "batch": 1, "cache_tokens": 0},
    {"document": "llm", "kind": "multi_user", "mode": "plain", "batch": 4, "cache_tokens": 0},
    HYDRAGEN | {"mode": "hydragen_noshared", "options": (("tensor_parallel", "8"),)},
    HYDRAGEN | {"mode": "noattention", "cache_tokens": 0},
    {"batch": 1, "input_tokens": 1, "output_tokens": 1, "cache_tokens": 2},
]


@pytest.mark.parametrize("changes", CELLS)
def test_what_is_run_is_proved(
    offer: TorchLlamaOffer, workload: Callable[..., Workload], changes: dict[str, Any]
) -> None:
    pytest.importorskip("torch")
    cell = workload(**changes)
    assert offer.refuses(cell, "cpu") is None
    assert offer.refuses(cell, "cuda:0") is None
    engine = offer.open(cell, "cpu")
    assert engine.config["verifiable"]
    assert engine.config["weights"] == "seed 0, numpy"
    assert offer.verify(engine, cell) is None
    assert offer.verify(engine, cell) is None
    assert {type(value) for value in engine.config.values()} <= {str, int, bool}


def test_sharding_that_was_asked_for_is_reported(
    offer: TorchLlamaOffer, workload: Callable[..., Workload]
) -> None:
    pytest.importorskip("torch")
    cell = workload(options=(("tensor_parallel", "8"), ("quantize_weights", "false")))
    sharding = offer.open(cell, "cpu").config["sharding"]
    assert sharding == "none, the document asks for tensor_parallel=8"


def test_verify_finds_wrong_weights(
    offer: TorchLlamaOffer, workload: Callable[..., Workload]
) -> None:
    pytest.importorskip("torch")
    engine = offer.open(workload(dtype="float32"), "cpu")
    engine.weights.layers[2].down.mul_(1.001)
    assert "are off by" in (offer.verify(engine, workload(dtype="float32")) or "")


def test_verify_leaves_nothing_behind(
    offer: TorchLlamaOffer, workload: Callable[..., Workload]
) -> None:
    pytest.importorskip("torch")
    engine, prompt = offer.open(workload(), "cpu"), [[1, 2, 3]] * 3
    before = engine.decode(engine.prefill(prompt)).logits()
    offer.verify(engine, workload())
    np.testing.assert_array_equal(engine.decode(engine.prefill(prompt)).logits(), before)


def test_large_models_are_not_verified(
    offer: TorchLlamaOffer, workload: Callable[..., Workload]
) -> None:
    cell = workload(model=LLAMA3_8B)
    assert LLAMA3_8B.parameters > SEEDED_LIMIT
    assert not offers_module.is_verifiable(cell)
    assert offer.verify(None, cell) is None


def test_what_does_not_fit_says_the_arithmetic(
    offer: TorchLlamaOffer, workload: Callable[..., Workload], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offers_module.memory, "free_bytes", lambda device: 16_000_000_000)
    with pytest.raises(MemoryError, match=r"16\.1 GB of weights and 34\.4 GB of cache"):
        offer.open(workload(model=LLAMA3_8B, batch=128, cache_tokens=2048), "cpu")


def full_size(workload: Callable[..., Workload], batch: int) -> Workload:
    return workload(
        model=LLAMA3_8B, batch=batch, input_tokens=2048, output_tokens=128, cache_tokens=2176
    )


@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_full_size_programs_take_no_memory(
    offer: TorchLlamaOffer, workload: Callable[..., Workload], target: str, batch: int
) -> None:
    """16 GB of weights under fake tensors, on a machine without the device."""
    fake = pytest.importorskip("torch._subclasses.fake_tensor").FakeTensorMode
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for program in offer.programs(full_size(workload, batch), target):
        with fake():
            step: Any = program.make()()
        assert step.tokens.shape == (batch,)
        assert step.tokens.device.type == target
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < 500e6


@pytest.mark.parametrize("target", ["cpu", "cuda"])
@pytest.mark.parametrize("changes", [{}, HYDRAGEN | {"mode": "hydragen_noshared"}])
def test_programs_call_flash_attention_and_repeat_no_cache(
    offer: TorchLlamaOffer, workload: Callable[..., Workload], target: str, changes: dict[str, Any]
) -> None:
    """No n * n scores, and nothing as large as keys repeated for every query head."""
    pytest.importorskip("torch")
    from torch._subclasses.fake_tensor import FakeTensorMode

    cell = workload(**{"cache_tokens": 4096, "output_tokens": 4000, **changes})
    repeated = cell.batch * cell.model.heads * cell.model.head_dim * cell.sequence_tokens
    for program in offer.programs(cell, target):
        with FakeTensorMode():
            call = program.make()
            with Seen() as made:
                call()
        names = {name for name, _ in made}
        assert any("flash_attention" in name for name in names)
        assert not any("softmax" in name or "bmm" in name for name in names)
        if program.name == "decode":
            assert max(numbers for _, numbers in made) < repeated


class Seen:
    """Records (operator, numbers it made), views left out."""

    def __enter__(self) -> list[tuple[str, int]]:
        from torch.utils._python_dispatch import TorchDispatchMode

        made: list[tuple[str, int]] = []

        class Recorder(TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
                out = func(*args, **(kwargs or {}))
                first = out[0] if isinstance(out, tuple | list) else out
                if not func.is_view and "copy_" not in func.__name__ and hasattr(first, "numel"):
                    made.append((func.__name__, first.numel()))
                return out

        self.mode = Recorder()
        self.mode.__enter__()
        return made

    def __exit__(self, *error: object) -> None:
        self.mode.__exit__(*error)


def test_the_compiled_offer_has_no_program_without_data(
    workload: Callable[..., Workload],
) -> None:
    assert offers()[1].programs(workload(), "cpu") == []


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # torch's own
def test_the_compiled_offer_compiles_again_after_close(
    workload: Callable[..., Workload],
) -> None:
    """More engines in one process than torch keeps variants of one function."""
    torch = pytest.importorskip("torch")
    torch.compiler.reset()  # what other tests of this process left
    compiled = offers()[1]
    model = replace(workload().model, layers=1)
    cell = workload(mode="noattention", model=model, **HYDRAGEN)
    with torch._dynamo.config.patch(recompile_limit=1):
        for batch in (2, 3):
            engine = compiled.open(cell.sized(batch=batch), "cpu")
            assert compiled.verify(engine, cell.sized(batch=batch)) is None
            engine.close()
