"""A real vLLM in process, on a CPU: its tokens, its prefix cache, its figures. Needs vllm."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="needs vllm: tox run -e vllm")

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from perfsuite.adapters.vllm import Vllm, VllmOffer
from perfsuite.errors import Void
from perfsuite.workloads import Model, Workload

ROOT = Path(__file__).parents[2]
OUTPUT, BATCH = 6, 3


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers with heads of 64, which vLLM's attention on a CPU takes, and a tokenizer."""
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=64, intermediate_size=512, vocab_size=512, max_position_embeddings=512,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.float32).save_pretrained(folder)
    words = {f"w{number} ": number for number in range(512)}
    model = {"type": "WordLevel", "vocab": words, "unk_token": "w0 "}
    names = ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder")
    tokenizer = {"version": "1.0", "added_tokens": [], "model": model, **dict.fromkeys(names)}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "w0 "}
    (folder / "tokenizer_config.json").write_text(json.dumps(kind))
    return folder


@pytest.fixture
def shared(checkpoint: Path) -> Workload:
    """A prefix of 70 tokens, of which vLLM shares two blocks of 32."""
    model = Model(**VllmOffer().model_shape(checkpoint), checkpoint=str(checkpoint))
    return Workload(
        id="shared", document="hydragen", place="", kind="shared", mode="vllm_notok", model=model,
        device="cpu", dtype="float32", batch=BATCH, shared_tokens=70, output_tokens=OUTPUT,
    )  # fmt: skip


@pytest.fixture
def engine(shared: Workload) -> Iterator[Vllm]:
    opened = VllmOffer().open(shared, "cpu")
    yield opened
    opened.close()


def test_tokens_and_prefix_cache(
    engine: Vllm, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each sequence gets transformers' tokens, twice; a prefix that is not shared is VOID."""
    prefix = [(7 * place) % 512 for place in range(70)]
    network = LlamaForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    asked = torch.tensor([prefix])
    wanted = network.generate(asked, do_sample=False, max_new_tokens=OUTPUT, eos_token_id=None)
    for _ in range(2):
        steps = [engine.prefill_shared(prefix, BATCH)]
        while len(steps) < OUTPUT:
            steps.append(engine.decode(steps[-1]))
        rows = [list(row) for row in zip(*(step.tokens for step in steps), strict=True)]
        assert rows == [wanted[0, 70:].tolist()] * BATCH
    assert engine.config["prefix_cache"] is True
    call = engine._call

    def emptied() -> object:
        found = call()
        for out in found.values():
            out.num_cached_tokens = 0
        return found

    monkeypatch.setattr(engine, "_call", emptied)
    with pytest.raises(Void, match="found 0 tokens of a prefix of 70 in its cache, expected 64"):
        engine.prefill_shared(prefix, BATCH)


def test_the_suite_gates_it(checkpoint: Path, tmp_path: Path) -> None:
    """From the command line, with and without text; the second run is compared."""
    command = [
        sys.executable, "-m", "pytest", "--perf", "--device=cpu", "--engine=vllm",
        f"--perf-model={checkpoint}", f"--perf-baselines={tmp_path}", "--perf-processes=1",
        "--perf-budget=1", "-p", "no:cacheprovider", "-k", "shared-vllm and b4-s64", "tests/perf",
    ]  # fmt: skip
    saved = subprocess.run(
        [*command, "--perf-save-force"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert saved.returncode == 0, saved.stdout[-3000:]
    (file,) = tmp_path.glob("cpu-*/hydragen.json")
    entries = json.loads(file.read_text())["entries"]
    assert {entry["config"]["detokenize"] for entry in entries.values()} == {True, False}
    again = subprocess.run(
        [*command, "--perf-limit=time:900%", "--perf-limit=throughput:900%"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert again.returncode == 0, again.stdout[-3000:]
    assert "SAME" in again.stdout
