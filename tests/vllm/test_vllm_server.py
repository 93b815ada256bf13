"""vLLM's own server on a CPU: the client's figures beside what vLLM counts itself. Needs vllm."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="needs vllm: tox run -e vllm")

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))  # as the script is started

import serving_vllm
from serving_vllm import INPUT, OUTPUT, as_a_server, disagreements, vllm_server, write_model


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of two small layers."""
    folder = tmp_path_factory.mktemp("model")
    write_model(
        folder, hidden_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=512,
    )  # fmt: skip
    with vllm_server(folder) as served:
        yield served.url


def test_the_client_and_vllm_tell_the_same(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts are equal. Moments are near: generously, because a busy machine may put anything
    between the two; the bench prints how near they are on an idle one."""
    pairs = as_a_server(url, 3)
    assert [pair.client_tokens for pair in pairs] == [(INPUT, OUTPUT)] * 3
    assert [pair.vllm_tokens for pair in pairs] == [(INPUT, OUTPUT)] * 3
    for pair in pairs:
        assert 0 < pair.client["TTFT"] <= pair.client["E2E"]
    monkeypatch.setattr(serving_vllm, "NEAR_S", 0.5)
    monkeypatch.setattr(serving_vllm, "NEAR", 0.5)
    assert disagreements(pairs) == []
