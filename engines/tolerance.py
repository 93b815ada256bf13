"""How far an honest engine's logits may be from the reference's: derived, on the largest error.

1. An engine that computes in `dtype` rounds each number it stores, with a relative error of at
   most u = 2**-bits (bits of the significand). A sum of n products, taken one after the other in
   float32, adds an error of standard deviation v * sqrt(n / 6) relative to the result, v = 2**-24:
   the partial sums grow like sqrt(j), each is rounded with variance (v * size)**2 / 3, and the
   variances add to (v * result)**2 * n / 6. Blocked sums do better.
2. `Noisy` is the reference with such errors drawn at random at every place named by it. The root
   mean square difference from the exact run, over DRAWS runs, is the standard deviation s of an
   honest engine's error, taken for each position apart, because positions differ.
3. The error of one logit is a sum of very many independent errors, so it is nearly normal, and the
   largest of M such errors passes s * sqrt(2 ln(M / p)) with a probability below p (union bound
   over exp(-t**2 / 2)). p is FALSE_ALARM.
4. SLACK = 2 covers what the model leaves out: another order of operations, errors that are not
   independent (one rounded cosine serves all heads), s itself being an estimate. It is the one
   number here that is chosen.

5. A number that is quantised after such errors may end at the level beside the reference's. How
   many do is a matter of few and large steps that DRAWS runs would miss, so every one is rounded up
   or down at random. An honest engine takes the nearest of both nearly always: the bound of an int8
   cache is that of its own resolution.

Weights are no part of it: the reference is given the weights as the engine's dtype holds them.
"""

from __future__ import annotations

from math import log, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.reference import Array, Weights, forward
from engines.weights import SIGNIFICAND_BITS

DRAWS = 4
FALSE_ALARM = 1e-6
SLACK = 2.0
FLOAT32_UNIT = 2.0**-24


class Noisy:
    """Arithmetic with the rounding errors of `dtype`, drawn at random."""

    def __init__(self, dtype: str, seed: int) -> None:
        self.unit = 2.0 ** -SIGNIFICAND_BITS[dtype]
        self.random = np.random.default_rng(seed)

    def stored(self, values: Array) -> Array:
        """Rounded: off by at most the unit, relative to itself."""
        errors: Array = self.unit * self.random.uniform(-1.0, 1.0, values.shape)
        return values * (1.0 + errors)

    def summed(self, values: Array, terms: int) -> Array:
        """Summed in float32: off by v * sqrt(terms / 6) of the size of its neighbours."""
        size = np.sqrt(np.mean(values * values, axis=-1, keepdims=True))
        spread = FLOAT32_UNIT * sqrt(terms / 6.0) * size
        errors: Array = spread * self.random.standard_normal(values.shape)
        return values + errors

    def level(self, values: Array) -> Array:
        """Rounded up or down, up with a probability of what is above the lower one."""
        levels: Array = np.floor(values + self.random.uniform(0.0, 1.0, values.shape))
        return levels


def error_bound(
    model: Any, weights: Weights, token_ids: Any, dtype: str, exact: Array, **options: Any
) -> Array:
    """Largest |engine - exact| of an honest engine, for each position: [B, T].

    exact: the reference's logits [B, T, V] for the same arguments; options go to `forward`.
    """
    squares = np.zeros(exact.shape[:2])
    for draw in range(DRAWS):
        noisy = forward(model, weights, token_ids, arithmetic=Noisy(dtype, seed=draw), **options)
        squares += np.mean((noisy - exact) ** 2, axis=-1)
    deviation = np.sqrt(squares / DRAWS)
    bound: Array = SLACK * sqrt(2.0 * log(exact.size / FALSE_ALARM)) * deviation
    return bound


def disagreement(
    logits: NDArray[Any], tokens: NDArray[Any], exact: Array, bound: Array
) -> str | None:
    """Why an engine's outputs are wrong, or None. logits, exact [B, T, V]; tokens, bound [B, T].

    A token other than the reference's counts only where the reference's two best logits are more
    than twice the bound apart: below that, an honest engine may prefer the second.
    """
    error = np.abs(logits - exact).max(axis=-1)
    if not np.isfinite(logits).all():
        return "logits are not finite"
    if (error > bound).any():
        row, time = np.unravel_index(np.argmax(error / bound), error.shape)
        found, limit = error[row, time], bound[row, time]
        return f"logits of row {row}, step {time} are off by {found:.3g}, the bound is {limit:.3g}"
    best = np.sort(exact, axis=-1)
    wrong = (tokens != exact.argmax(axis=-1)) & (best[..., -1] - best[..., -2] > 2.0 * bound)
    if wrong.any():
        row, time = np.argwhere(wrong)[0]
        expected = exact[row, time].argmax()
        return f"token of row {row}, step {time} is {tokens[row, time]}, expected {expected}"
    return None
