"""Lengths of prompts and answers where no dataset is given: ShareGPT's published ones. Pure.

Published are two means: 161.31 tokens of input and 337.99 of output (Kwon et al., "Efficient Memory
Management for Large Language Model Serving with PagedAttention", arXiv:2309.06180, figure 11, which
prints them beside histograms without numbers). JetStream's benchmark adds the limits within which
it takes conversations. The spread is not published, and is derived: of all distributions within
those limits that have those means, the one of the largest entropy claims nothing else,

    p(input, output) ~ exp(-input / a - output / b)      4 <= input <= 1024, 4 <= output,
                                                         input + output <= 2048

Its a and b follow from the means. The medians are then 114 and 240 tokens, the standard deviations
153.8 and 319.9. Whoever needs the real shape gives the file itself.
"""

from __future__ import annotations

import random

from perfsuite.serving.datasets import JETSTREAM

PUBLISHED_INPUT, PUBLISHED_OUTPUT = 161.31, 337.99  # means, tokens
INPUT_SCALE, OUTPUT_SCALE = 160.0496, 342.9064  # a and b of the formula, from the means
NAME = "ShareGPT's published mean lengths, 161.31 in and 337.99 out"


def published(source: random.Random) -> tuple[int, int]:
    """One pair of lengths, in tokens, at full size.

    Whole numbers by rounding down: an exponential draw becomes a geometric one with the same ratio.
    """
    while True:
        inputs = JETSTREAM.least + int(source.expovariate(1 / INPUT_SCALE))
        outputs = JETSTREAM.least + int(source.expovariate(1 / OUTPUT_SCALE))
        if not JETSTREAM.refuses(inputs, outputs):
            return inputs, outputs


def scaled(lengths: tuple[int, int], longest_in: int, longest_out: int) -> tuple[int, int]:
    """The same lengths for a workload whose longest prompt and answer are others than 1,024.

    Both stay in proportion, at JetStream's least (or the longest, where that is less) at least, and
    within `longest_in` and the sum of both longest.
    """
    full_out = JETSTREAM.most_total - JETSTREAM.most_input
    inputs = round(lengths[0] * longest_in / JETSTREAM.most_input)
    outputs = round(lengths[1] * longest_out / full_out)
    inputs = max(inputs, min(JETSTREAM.least, longest_in))
    outputs = max(outputs, min(JETSTREAM.least, longest_out))
    return inputs, min(outputs, longest_in + longest_out - inputs)
