"""The embedded default: published means, derived spread, scaled to small workloads."""

from __future__ import annotations

import math
import random
from statistics import fmean, median

import pytest

from perfsuite.serving.conversation_lengths import (
    INPUT_SCALE,
    OUTPUT_SCALE,
    PUBLISHED_INPUT,
    PUBLISHED_OUTPUT,
    published,
    scaled,
)
from perfsuite.serving.datasets import JETSTREAM


def exact_means() -> tuple[float, float]:
    """The means of the formula, summed over every pair that the limits keep."""
    weight = total_in = total_out = 0.0
    # over outputs up to a bound the sum is taken once, from the smallest up
    outs = [math.exp(-out / OUTPUT_SCALE) for out in range(JETSTREAM.most_total + 1)]
    mass, moment = [0.0], [0.0]
    for out in range(JETSTREAM.least, JETSTREAM.most_total + 1):
        mass.append(mass[-1] + outs[out])
        moment.append(moment[-1] + out * outs[out])
    for inputs in range(JETSTREAM.least, JETSTREAM.most_input + 1):
        upto = JETSTREAM.most_total - inputs - JETSTREAM.least + 1
        each = math.exp(-inputs / INPUT_SCALE)
        weight += each * mass[upto]
        total_in += inputs * each * mass[upto]
        total_out += each * moment[upto]
    return total_in / weight, total_out / weight


def test_the_scales_follow_from_the_published_means() -> None:
    """To what the paper prints: two decimals."""
    inputs, outputs = exact_means()
    assert inputs == pytest.approx(PUBLISHED_INPUT, abs=0.005)
    assert outputs == pytest.approx(PUBLISHED_OUTPUT, abs=0.005)


def test_what_is_drawn_has_the_published_means_and_the_stated_medians() -> None:
    """Within five standard errors of 20,000 draws, from a seed; all within JetStream's limits."""
    source = random.Random(1)
    pairs = [published(source) for _ in range(20_000)]
    assert not [pair for pair in pairs if JETSTREAM.refuses(*pair)]
    inputs, outputs = zip(*pairs, strict=True)
    assert fmean(inputs) == pytest.approx(PUBLISHED_INPUT, abs=5 * 153.8 / math.sqrt(20_000))
    assert fmean(outputs) == pytest.approx(PUBLISHED_OUTPUT, abs=5 * 319.9 / math.sqrt(20_000))
    assert median(inputs) == pytest.approx(114, abs=6)
    assert median(outputs) == pytest.approx(240, abs=12)


def test_a_small_workload_keeps_the_proportions() -> None:
    """A sixteenth of the input, a thirty-second of the output; never beyond the workload's sum."""
    assert scaled((1024, 1024), 64, 32) == (64, 32)
    assert scaled((512, 256), 64, 32) == (32, 8)
    assert scaled((160, 338), 1024, 1024) == (160, 338)
    assert scaled((4, 4), 64, 32) == (4, 4)
    assert scaled((4, 4), 2, 3) == (2, 3)
    for inputs in range(4, 1025):
        longest = JETSTREAM.most_total - inputs
        small_in, small_out = scaled((inputs, longest), 64, 32)
        assert 4 <= small_in <= 64
        assert small_in + small_out <= 96
