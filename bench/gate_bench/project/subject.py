"""Six kinds of work of 2 to 20 ms, and the slowdown that is planted in them.

Every call spins for SLOW times its own time afterwards, in the same process: the loss is the same
share of a call whatever the machine's pace is. Two commits differ in this one line.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from time import perf_counter

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

SLOW = 0.0

torch.set_num_threads(2)


@cache
def subject(kind: str) -> Callable[[], object]:
    """The call of one kind; what it works on is made at the first time."""
    work = MAKERS[kind]()

    def call() -> object:
        start = perf_counter()
        result = work()
        end = perf_counter()
        until = end + SLOW * (end - start)
        while perf_counter() < until:
            pass
        return result

    return call


def memory() -> Callable[[], object]:
    """Memory-bound: a copy of 64 MiB."""
    source = torch.ones(16 << 20)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def compute() -> Callable[[], object]:
    """Compute-bound: a product of matrices."""
    one, other = torch.randn(2, 768, 768)
    return lambda: one @ other


def interpreter() -> Callable[[], object]:
    """Interpreter-bound: a loop without any library."""

    def loop() -> int:
        number = 1
        for step in range(60_000):
            number = (number * 31 + step) % 65_521
        return number

    return loop


def launch() -> Callable[[], object]:
    """Launch-bound: 900 operators on 8 numbers."""
    few = torch.ones(8)

    def operators() -> torch.Tensor:
        x = few
        for _ in range(300):
            x = torch.relu(x * 0.5 + 1)
        return x

    return operators


def attention() -> Callable[[], object]:
    """Attention of a decode step: one query over 2048 cached tokens, 8 MiB in each of 8 layers."""
    query = torch.randn(1, 8, 1, 64)
    cached = [torch.randn(2, 1, 8, 2048, 64) for _ in range(8)]

    def decode() -> list[torch.Tensor]:
        return [F.scaled_dot_product_attention(query, keys, values) for keys, values in cached]

    return decode


def engine() -> Callable[[], object]:
    """A real engine: prefill of 64 tokens and three decode steps of a small Llama."""
    from engines.torch_llama import TorchLlama
    from perfsuite.workloads import Model

    model = Model("small", layers=3, hidden_size=256, heads=8, kv_heads=2, head_dim=32,
                  intermediate_size=512, vocab_size=1024, max_context=128)  # fmt: skip
    llama = TorchLlama(model, batch=1, cache_tokens=128, weights=0, dtype="float32")
    prompt = [list(range(64))]

    def generate() -> object:
        step = llama.prefill(prompt)
        for _ in range(3):
            step = llama.decode(step)
        return step.tokens

    return generate


MAKERS = {f.__name__: f for f in (memory, compute, interpreter, launch, attention, engine)}
KINDS = tuple(MAKERS)
