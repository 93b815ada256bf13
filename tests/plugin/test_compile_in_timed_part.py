"""A program that is compiled inside the timed part: VOID, with the argument that made it new."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("jax", reason="needs jax")

# JetStream's issue 228: every request's own identifier was an argument of a jitted function.
_ENGINES = """
from functools import partial
from itertools import count

import pytest
from fake import Offer

REQUESTS = count()


class Step:
    def __init__(self, tokens):
        self.tokens = tokens


class Steady:
    config = {"kind": "jax"}

    def __init__(self):
        import jax

        def step_of(tokens, request):
            return (tokens + 1) % 256

        self.jax = jax
        self.step = jax.jit(step_of, static_argnames="request")

    def request(self):
        return "the same"

    def prefill(self, token_ids):
        tokens = self.jax.numpy.zeros(len(token_ids), int)
        return Step(self.step(tokens, request=self.request()))

    def decode(self, step):
        return Step(self.step(step.tokens, request="the same"))

    def wait(self, step):
        self.jax.block_until_ready(step.tokens)

    def close(self):
        pass


class Numbered(Steady):
    def request(self):
        return f"request {next(REQUESTS)}"


class Growing(Steady):
    lengths = count(1)

    def prefill(self, token_ids):
        self.step(self.jax.numpy.zeros(next(self.lengths), int), request="the same")
        return super().prefill(token_ids)


class Jax(Offer):
    framework = "jax"

    def open(self, workload, device):
        return self.engine()


@pytest.hookimpl(optionalhook=True)
def pytest_perf_engines(config):
    return [
        Jax("steady", engine=Steady), Jax("numbered", engine=Numbered),
        Jax("growing", engine=Growing),
    ]
"""


@pytest.fixture
def jax_engines(engine_test: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A project with one workload and three engines in jax."""
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    engine_test.conftest(_ENGINES)
    return engine_test


def test_a_fresh_identifier_in_a_jitted_function_is_void(jax_engines: Any) -> None:
    """Function and argument are named in one line; a steady engine beside it is measured."""
    result = jax_engines.perf("--perf-processes=1", "--perf-save")

    assert result.ret == 1
    rows = {r["engine"]: r["rows"][0] for r in jax_engines.report["results"]}
    assert {engine: row["verdict"] for engine, row in rows.items()} == {
        "steady": "NEW",
        "numbered": "VOID",
        "growing": "VOID",
    }
    numbered = rows["numbered"]["note"]
    assert "programs were compiled inside the timed part: step_of (conftest.py:" in numbered
    assert "request was 'request " in numbered
    assert ", now 'request " in numbered
    assert "\n" not in numbered
    assert "step_of (conftest.py:" in rows["growing"]["note"]
    assert ": tokens was i32[" in rows["growing"]["note"]
    (saved,) = jax_engines.baselines
    assert "| steady |" in saved
