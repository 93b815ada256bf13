"""Sampling: which tokens are left, how often each comes, and that a seed repeats a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("jax", reason="needs jax")

import jax.numpy as jnp

from engines.jetstream.sampling import GREEDY, Sampling, choose, restricted
from perfsuite.workloads.workload import Model
from tests.conformance.jetstream_runs import continued, opened, prompts

SHARES = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
SCORES = jnp.log(jnp.asarray(SHARES, jnp.float32))[None]


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({}, 5),
        ({"top_k": 1}, 1),
        ({"top_k": 3}, 3),
        ({"top_k": 99}, 5),
        ({"top_p": 0.01}, 1),
        ({"top_p": 0.69}, 2),
        ({"top_p": 0.71}, 3),
        ({"top_k": 2, "top_p": 0.56}, 1),  # 0.4 / 0.7 is 0.57
        ({"top_k": 2, "top_p": 0.58}, 2),
    ],
)
def test_the_best_tokens_are_left(options: dict[str, Any], left: int) -> None:
    kept = np.isfinite(restricted(SCORES, Sampling(temperature=1.0, **options)))[0]
    np.testing.assert_array_equal(kept, np.arange(5) < left)


def test_the_order_of_tokens_does_not_matter() -> None:
    order = np.array([3, 1, 4, 0, 2])
    kept = restricted(SCORES[:, order], Sampling(temperature=1.0, top_k=2))
    np.testing.assert_array_equal(np.isfinite(kept)[0], order < 2)


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, 0), (0.5, 0), (2.0, 3)])
def test_tokens_come_as_often_as_their_shares(temperature: float, top_k: int) -> None:
    """Of 20,000 draws each count is within five standard deviations: of a seed, so never flaky."""
    draws = 20_000
    sampling = Sampling(temperature=temperature, top_k=top_k, seed=3)
    tokens = np.asarray(choose(sampling, jnp.tile(SCORES, (draws, 1)), jnp.int32(0)))
    shares = SHARES ** (1 / temperature)
    shares[top_k or 5 :] = 0
    shares /= shares.sum()
    counts = np.bincount(tokens, minlength=5)
    assert (np.abs(counts - draws * shares) <= 5 * np.sqrt(draws * shares * (1 - shares))).all()


def test_each_draw_is_another() -> None:
    sampling = Sampling(temperature=1.0)
    scores = jnp.zeros((1, 1000))
    tokens = {int(choose(sampling, scores, jnp.int32(draw))[0]) for draw in range(-5, 5)}
    assert len(tokens) > 8


def test_greedy_takes_the_best() -> None:
    assert int(choose(GREEDY, SCORES[:, ::-1], jnp.int32(7))[0]) == 4


def test_a_seed_repeats_a_run_and_another_does_not(tiny: Model) -> None:
    def tokens(seed: int) -> Any:
        engine = opened(tiny, sampling=Sampling(temperature=1.0, top_k=50, top_p=0.95, seed=seed))
        first = continued(engine, prompts(engine, 5), 8)[0]
        np.testing.assert_array_equal(continued(engine, prompts(engine, 5), 8)[0], first)
        assert "top_k=50" in engine.config["sampling"]
        return first

    one = tokens(1)
    np.testing.assert_array_equal(tokens(1), one)
    assert (tokens(2) != one).any()


@pytest.mark.parametrize(
    "options",
    [{"temperature": -1}, {"temperature": 1, "top_k": -1}, {"temperature": 1, "top_p": 0},
     {"temperature": 1, "top_p": 1.5}, {"top_k": 5}, {"top_p": 0.5}, {"seed": 1}],
)  # fmt: skip
def test_what_has_no_meaning_or_no_effect_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected|no effect"):
        Sampling(**options)
