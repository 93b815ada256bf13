"""The torch engine under the gate, from the command line: measured, slowed, broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs torch")

ROOT = Path(__file__).parents[2]
PEAK = "static_peak_memory/live_tensors@decode"
WORKLOAD = "llama3_8b and single_user and i16 and measured"

CONFTEST = """
import os, time
import perfsuite.environment
import pytest

# A busy machine must change no outcome here.
perfsuite.environment.OTHERS_LIMIT = perfsuite.environment.STEAL_LIMIT = 100.0
perfsuite.environment.PACE_LIMIT = perfsuite.environment.FREQUENCY_LIMIT = 100.0

@pytest.hookimpl(optionalhook=True)
def pytest_perf_engines():
    from engines.offers import offers
    return [offer for offer in offers() if offer.framework == "torch"]

fault = os.environ.get("FAULT")
if fault:
    from engines.torch_decoder import Decoder
    from engines.torch_llama import TorchLlama
    decode, layers = TorchLlama.decode, Decoder.layers

    def slowed(self, step):
        end = time.perf_counter() + 0.06
        while time.perf_counter() < end:
            pass
        return decode(self, step)

    def wrong(self, *args, **kwargs):
        return layers(self, *args, **kwargs) * 1.5 + 0.5

    if fault == "slow":
        TorchLlama.decode = slowed
    else:
        Decoder.layers = wrong
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text("from perfsuite.suite import *\n")
    return tmp_path


def gate(folder: Path, *options: str, fault: str = "") -> tuple[int, str, list[dict[str, Any]]]:
    """Exit status, output and results of one run on a small budget."""
    command = [
        sys.executable, "-m", "pytest", "--perf", "--perf-device=cpu", "--perf-budget=0.3",
        "--perf-processes=3", "--perf-drift=5%", "--perf-json=results.json",
        "-p", "no:cacheprovider", *options,
    ]  # fmt: skip
    # One thread: beside other busy processes two wait for each other, twenty times as long.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FAULT": fault, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    results = json.loads((folder / "results.json").read_text())["results"]
    return done.returncode, done.stdout, results


def test_a_slowed_and_a_broken_engine_turn_red(folder: Path) -> None:
    """Recorded once; 60 ms in each decode step is WORSE where it is felt, wrong outputs VOID."""
    status, text, results = gate(folder, "-k", WORKLOAD, "--perf-save-force")
    assert status == 0, text
    figures = {row["figure"].split("/")[0]: row for row in results[0]["rows"]}
    assert figures["peak_memory"]["value"] > 0
    assert figures["time_to_first_token"]["ceiling"] > 0
    assert results[0]["config"]["dtype"] == "bfloat16"

    status, text, results = gate(folder, "-k", WORKLOAD, fault="slow")
    verdicts = {row["figure"].split("/")[0]: row["verdict"] for row in results[0]["rows"]}
    assert status == 1, text
    assert verdicts["time_per_output_token"] == verdicts["inter_token_latency"] == "WORSE"
    assert verdicts["peak_memory"] == "SAME"

    status, text, results = gate(folder, "-k", WORKLOAD, fault="wrong")
    assert status == 1, text
    assert [row["verdict"] for row in results[0]["rows"]] == ["VOID"]
    assert "VOID: wrong outputs" in text


def test_compiled_facts_are_gated_to_the_byte(folder: Path) -> None:
    """The full-size program is compared with no device: another figure in the file is red."""
    chosen = ("-k", "llm-llama3_8b-128-single_user and static")
    status, text, results = gate(folder, *chosen, "--perf-save")
    assert status == 0, text
    assert {row["verdict"] for row in results[0]["rows"]} == {"NEW"}
    file = folder / "baselines/static-cpu/llm.json"
    peak = next(row["value"] for row in results[0]["rows"] if row["figure"] == PEAK)
    file.write_text(file.read_text().replace(f"[{peak:.0f}]", f"[{peak // 2:.0f}]"))
    status, text, results = gate(folder, *chosen)
    assert status == 1
    worse = {row["figure"] for row in results[0]["rows"] if row["verdict"] == "WORSE"}
    assert PEAK in worse
    assert "ratio 2.000, limit 1.010" in text


def test_a_checkpoint_takes_the_documents_models_place(folder: Path) -> None:
    """--perf-model runs the workloads on the folder's weights and says so; another is refused."""
    transformers = pytest.importorskip("transformers", reason="writes the checkpoint")
    config = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=300, max_position_embeddings=512,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder / "Mine")
    status, text, results = gate(
        folder, "--perf-model=Mine", "-k", "llm and single_user and i16 and measured",
        "--perf-save-force",
    )  # fmt: skip
    assert status == 0, text
    assert [r["workload"] for r in results] == ["llm-smoke-mine-single_user-plain-b1-i16-u16"]
    assert results[0]["config"]["weights"].startswith("checkpoint ")
    (folder / "Mine/model.safetensors").write_bytes(b"")
    status, text, results = gate(
        folder, "--perf-model=Mine", "-k", "llm and single_user and i16 and measured"
    )
    assert status == 1
    assert [row["verdict"] for row in results[0]["rows"]] == ["VOID"]
