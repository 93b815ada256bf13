"""What the torchao offers run, refuse, cost before they are opened, and say of accuracy."""

from __future__ import annotations

import math
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engines import memory
from engines.torchao_llama.offer import TorchaoLlamaOffer
from perfsuite.workloads import load_catalogue, load_published, smoke_catalogue
from perfsuite.workloads.workload import Model, Workload
from tests.conformance.torchao_runs import OPTIONS, cell

ROOT = Path(__file__).parents[2]
OFFER = TorchaoLlamaOffer()
CELLS = [w for w in load_catalogue() if w.document == "torchao"]
SMOKE = [w for w in smoke_catalogue(load_catalogue()) if w.document == "torchao"]


def needs(workload: Workload) -> None:
    """Skip what the installed libraries cannot run."""
    pytest.importorskip("torch", reason="needs torch")
    if workload.option("quantization"):
        pytest.importorskip("torchao", reason="needs torchao")


@pytest.mark.parametrize("workload", [*CELLS, *SMOKE], ids=lambda w: w.id)
def test_every_cell_of_the_document_is_run(workload: Workload) -> None:
    needs(workload)
    assert OFFER.refuses(workload, "cpu") is None
    assert OFFER.refuses(workload, "cuda:0") is None


@pytest.mark.parametrize(
    ("changes", "device", "words"),
    [
        ({}, "tpu", "tpu support"),
        ({"document": "jetstream"}, "cpu", "jetstream generate"),
        ({"kind": "serving"}, "cpu", "torchao serving"),
        ({"options": (("quantization", "int3wo"),)}, "cpu", "option quantization=int3wo: quanti"),
        ({"options": (("quantization", "fp6"),)}, "cpu", "option quantization=fp6: quantization t"),
        ({"options": (("kv_cache_quantization", "4"),)}, "cpu", "option kv_cache_quantization=4: "),
        ({"options": (("speculate", "5"),)}, "cpu", "option speculate=5: the options are kv_cache"),
        ({"mode": "kv_quant", "options": ()}, "cpu", "mode kv_quant with other options"),
        ({"options": (("linear_causal_mask", "true"),)}, "cpu", "mode normal with other options"),
        ({"cache_tokens": 10}, "cpu", "rolling cache: 10 cached of 14 tokens"),
        ({"cache_tokens": 256}, "cpu", "context of 256 tokens: tiny has 128"),
        ({"input_tokens": 200, "cache_tokens": 0}, "cpu", "context of 208 tokens: tiny has 128"),
        ({"dtype": "float8"}, "cpu", "float8 weights"),
        ({"dtype": "float32"}, "cuda:0", "float32 on cuda"),
    ],
)
def test_refusals_name_what_is_missing_and_what_there_is(
    tiny: Model, changes: dict[str, Any], device: str, words: str
) -> None:
    workload = cell(tiny, **changes)
    reason = OFFER.refuses(workload, device)
    assert reason is not None
    assert reason.startswith(f"torchao_llama has no {words}")
    with pytest.raises(ValueError, match="torchao_llama has no"):
        OFFER.open(workload, device)


@pytest.mark.parametrize(
    ("scheme", "changes", "device", "words"),
    [
        ("int4wo", {"hidden_size": 48}, "cpu", "int4wo of a width of 48: it takes multiples of 32"),
        ("int4wo", {"vocab_size": 250}, "cpu", "int4wo of a height of 250: it takes multiples of"),
        ("int8wo", {"intermediate_size": 100}, "cpu", "int8wo of a width of 100: it takes"),
    ],
)
def test_shapes_that_the_operators_do_not_take_are_refused(
    tiny: Model, scheme: str, changes: dict[str, int], device: str, words: str
) -> None:
    pytest.importorskip("torchao", reason="needs torchao")
    options = (("quantization", scheme),)
    workload = cell(replace(tiny, **changes), "of mine", options=options)  # type: ignore[arg-type]
    assert words in (OFFER.refuses(workload, device) or "")


def test_int4_on_cuda_takes_bfloat16(tiny: Model) -> None:
    pytest.importorskip("torchao", reason="needs torchao")
    workload = cell(tiny, "of mine", dtype="float16", options=(("quantization", "int4wo"),))
    assert "int4wo in float16 on cuda" in (OFFER.refuses(workload, "cuda") or "")
    assert OFFER.refuses(workload.sized(dtype="bfloat16"), "cuda") is None


def test_a_library_that_is_missing_is_named(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.torchao_llama.schemes.find_spec", lambda name: None)
    workload = cell(tiny, "int4_kv_quant_linear_mask")
    assert "the package torchao is not installed" in (OFFER.refuses(workload, "cpu") or "")
    assert OFFER.refuses(cell(tiny, "kv_quant"), "cpu") is None


@pytest.mark.parametrize("workload", SMOKE, ids=lambda w: w.id)
def test_smoke_cells_are_proved(workload: Workload) -> None:
    """Opened, verified twice, and compared with the unquantised model."""
    needs(workload)
    engine = OFFER.open(workload, "cpu")
    assert engine.config["verifiable"]
    assert OFFER.verify(engine, workload) is None
    assert OFFER.verify(engine, workload) is None
    assert {type(value) for value in engine.config.values()} <= {str, int, bool}


def test_what_does_not_fit_says_the_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, cache and mask of the largest cell, before anything is allocated."""
    largest = next(w for w in CELLS if w.id == "torchao-131072-normal")
    needs(largest)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 16_000_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    words = "16.1 GB of weights and 17.2 GB of cache and 17.2 GB of mask, cpu has 16.0 GB free"
    with pytest.raises(MemoryError, match=words):
        OFFER.open(largest, "cpu")
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 500e6


# Programs without data


def run_without_data(workload: Workload, target: str) -> dict[str, int]:
    """Bytes that each program holds, with two of the largest tensors that its call makes."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    from engines.torchao_llama.engine import held_bytes
    from tests.conformance.test_torchao_planted_bugs import Largest

    found = {}
    for program in OFFER.programs(workload, target):
        with FakeTensorMode():
            call = program.make()
            held = sum(held_bytes(tensor) for tensor in program.held().values())
            with Largest() as largest:
                step: Any = call()
            assert step.tokens.device.type == target
        found[program.name] = held + 2 * 2 * largest.numbers
    return found


@pytest.mark.parametrize("workload", [w for w in CELLS if w.cache_tokens <= 16384], ids=str)
def test_programs_stay_under_the_published_peaks(workload: Workload) -> None:
    """On a machine without the device; the larger ones are compared by the suite itself."""
    needs(workload)
    (published,) = (f.value for f in load_published(ROOT / "baselines/published")[workload.id])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert max(run_without_data(workload, "cuda").values()) < published
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 500e6


@pytest.mark.parametrize("workload", CELLS, ids=lambda w: w.id)
def test_what_is_held_is_under_the_published_peaks(workload: Workload) -> None:
    """Weights, cache, mask and tables of every cell, and 14 GB for the 130K case with int4."""
    needs(workload)
    from engines.torchao_llama.room import held_by_kind

    (published,) = (f.value for f in load_published(ROOT / "baselines/published")[workload.id])
    held = held_by_kind(workload, "cuda").total()
    assert held < published - 0.3e9
    if workload.mode.startswith("int4"):
        assert held < 13.85e9


@pytest.mark.parametrize("target", ["cpu", "cuda"])
@pytest.mark.parametrize("mode", OPTIONS)
def test_programs_name_what_they_hold(tiny: Model, mode: str, target: str) -> None:
    workload = cell(tiny, mode)
    needs(workload)
    from torch._subclasses.fake_tensor import FakeTensorMode

    for program in OFFER.programs(workload, target):
        with FakeTensorMode():
            program.make()
            held = program.held()
            for call in program.lengths():
                call()
        assert {name.partition(".")[0] for name in held} == {
            "weights",
            "cache",
            "mask",
            "rope",
            "inputs",
        }
        assert "weights.layers.2.gate_up" in held
        assert ("cache.layers.0.key_scales" in held) == (mode != "normal")
        assert held["mask"].ndim == (1 if "linear" in mode else 2)
        assert held["inputs.tokens"].device.type == target


def test_the_compiled_offer_has_no_program_without_data(tiny: Model) -> None:
    compiled = TorchaoLlamaOffer("torchao_llama_compile", compiled=True, default=False)
    assert compiled.programs(cell(tiny), "cpu") == []
    assert not compiled.has_programs


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # torch's own
@pytest.mark.parametrize("mode", OPTIONS)
def test_the_functions_of_a_program_are_one_graph_at_all_lengths(tiny: Model, mode: str) -> None:
    """No break, and nothing traced again from the second length on."""
    workload = cell(tiny, mode)
    needs(workload)
    from torch._subclasses.fake_tensor import FakeTensorMode

    from perfsuite.static import recompiles

    for program in OFFER.programs(workload, "cuda"):
        with FakeTensorMode():
            program.make()
            found = recompiles.facts(program)
        assert found.words == {}
        assert set(found.figures.values()) == {0.0}


# Accuracy


@pytest.mark.parametrize("mode", OPTIONS)
def test_a_technique_moves_the_distribution_a_little(tiny: Model, mode: str) -> None:
    workload = cell(tiny, mode, cache_tokens=128)
    needs(workload)
    engine = OFFER.open(workload, "cpu")
    found = OFFER.compare(engine, workload)
    if mode == "normal":
        assert found == {}
        return
    assert found.keys() == {"kl_divergence", "max_logit_error"}
    assert all(type(value) is float for value in found.values())
    assert 1e-7 < found["kl_divergence"] < (0.1 if "int4" in mode else 0.01)
    assert 0.0 < found["max_logit_error"] < (3.0 if "int4" in mode else 0.5)
    assert OFFER.compare(engine, workload) == found


def test_what_loses_a_bit_moves_it_further(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.conformance.test_torchao_planted_bugs import a_bit_lost

    pytest.importorskip("torch", reason="needs torch")
    workload = cell(tiny, "kv_quant", cache_tokens=128)
    right = OFFER.compare(OFFER.open(workload, "cpu"), workload)
    a_bit_lost(monkeypatch)
    wrong = OFFER.compare(OFFER.open(workload, "cpu"), workload)
    assert wrong["kl_divergence"] > 10 * right["kl_divergence"]
    assert wrong["max_logit_error"] > 2 * right["max_logit_error"]


def test_the_divergence_is_its_definition() -> None:
    np = pytest.importorskip("numpy")
    pytest.importorskip("torch", reason="needs torch")
    from engines.torchao_llama.accuracy import divergence

    p, q = np.array([[0.5, 0.5], [0.9, 0.1]]), np.array([[0.25, 0.75], [0.9, 0.1]])
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    np.testing.assert_allclose(
        divergence(np.log(p) + 3.0, np.log(q) - 1.0), [expected, 0.0], atol=1e-15
    )


def test_models_too_large_to_verify_are_not_compared() -> None:
    assert OFFER.compare(None, CELLS[1]) == {}
    assert OFFER.verify(None, CELLS[1]) is None
