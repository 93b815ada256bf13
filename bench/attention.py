"""Shared-prefix attention on this machine: each mode's share of its own ceiling, and the speedup.

    python bench/attention.py [--rounds 15] [--prefix 4096] [--suffix 128] [--batch 32]
    python bench/attention.py --grid [--kv-heads 8] [--dtype float32]

For each type and number of key/value heads, `base`, `hydragen` and two probes of the machine take
turns in one process, the cache flushed before each call. A ceiling is the sum over the parts of
max(bytes / read bandwidth, operations / matrix peak) with the probes of the same round. Medians and
quartiles; a speedup is that of the same round. The grid is batch by prefix: the speedup, and beside
it the share of its ceiling that `hydragen` reaches; a base that needs over 4 GB is left out.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from engines.hydragen.offer import HydragenOffer
from perfsuite.roofline import Ceilings, attention_parts, floor_s, working_set_bytes
from perfsuite.workloads.workload import Model, Workload

MODES = ("base", "hydragen")
READ_BYTES, SQUARE = 256 << 20, 2048
BATCHES, PREFIXES = (1, 4, 16, 64, 256), (1024, 2048, 4096, 8192, 16384)
LARGEST_BASE = 4e9  # bytes of keys and values


@dataclass(frozen=True)
class Shape:
    """Sizes of one cell."""

    batch: int
    prefix: int
    suffix: int
    kv_heads: int
    dtype: str
    heads: int = 8
    dim: int = 128

    def workload(self, mode: str) -> Workload:
        """As the document's cells are described."""
        model = Model("attention", layers=1, hidden_size=1, heads=self.heads, head_dim=self.dim,
                      kv_heads=self.kv_heads, intermediate_size=1, vocab_size=1,
                      max_context=1)  # fmt: skip
        return Workload(
            id="", document="hydragen", place="", kind="attention", mode=mode, model=model,
            device="cpu", dtype=self.dtype, batch=self.batch, shared_tokens=self.prefix,
            output_tokens=self.suffix,
        )  # fmt: skip

    def floor_s(self, mode: str, ceilings: Ceilings) -> float:
        """The least time of a mode: base reads all keys of every sequence, hydragen shares."""
        return floor_s(attention_parts(self.workload(mode), self.batch), ceilings)


def opened(shape: Shape, mode: str) -> Any:
    """The benchmark of a mode on the CPU."""
    return HydragenOffer().open(shape.workload(mode), "cpu")


def measured(
    shape: Shape, rounds: int, modes: tuple[str, ...] = MODES
) -> dict[str, list[float]]:
    """Seconds of each mode and probe in every round."""
    engines = {mode: opened(shape, mode) for mode in modes}
    calls: dict[str, Callable[[], Any]] = {m: engine.attention for m, engine in engines.items()}
    return in_turn(calls | probes(shape.dtype), rounds, engines[modes[0]].flush)


def probes(dtype: str) -> dict[str, Callable[[], Any]]:
    """Reading READ_BYTES, and a product of two squares."""
    values = torch.ones(READ_BYTES // 8, dtype=torch.int64)
    square = torch.ones(SQUARE, SQUARE, dtype=getattr(torch, dtype))
    return {"read": values.sum, "product": lambda: square @ square}


def in_turn(
    calls: dict[str, Callable[[], Any]], rounds: int, between: Callable[[], Any] = lambda: None
) -> dict[str, list[float]]:
    """Seconds of each call in every round, in a new order each; one round more warms up."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name in random.sample(list(calls), len(calls)):
            between()
            start = time.perf_counter()
            calls[name]()
            if number:
                found[name].append(time.perf_counter() - start)
    return found


def middle(values: list[float], digits: int = 2) -> str:
    """Median and quartiles."""
    low, half, high = statistics.quantiles(values, n=4)
    return f"{half:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def ceilings_of(found: dict[str, list[float]]) -> list[Ceilings]:
    """What the probes of each round showed."""
    return [
        Ceilings(bandwidth=READ_BYTES / read, peak=2 * SQUARE**3 / product)
        for read, product in zip(found["read"], found["product"], strict=True)
    ]


def shares(shape: Shape, mode: str, found: dict[str, list[float]]) -> list[float]:
    """The least time of a mode over its own, round by round."""
    pairs = zip(ceilings_of(found), found[mode], strict=True)
    return [shape.floor_s(mode, ceilings) / seconds for ceilings, seconds in pairs]


def speedups(found: dict[str, list[float]]) -> list[float]:
    """Of hydragen over base, round by round."""
    return [b / h for b, h in zip(found["base"], found["hydragen"], strict=True)]


def row(shape: Shape, found: dict[str, list[float]]) -> str:
    """A line of the table."""
    ceilings, cells = ceilings_of(found), [shape.dtype, str(shape.kv_heads)]
    for mode in MODES:
        milliseconds = 1e3 * statistics.median(found[mode])
        cells += [f"{milliseconds:.1f} ms", middle(shares(shape, mode, found))]
    cells.append(middle(speedups(found), 1))
    bandwidth = statistics.median(c.bandwidth for c in ceilings) / 1e9
    peak = statistics.median(c.peak for c in ceilings) / 1e9
    return "| " + " | ".join([*cells, f"{bandwidth:.0f} GB/s", f"{peak:.0f} Gop/s"]) + " |"


def cell(shape: Shape, rounds: int) -> str:
    """A cell of the grid."""
    if working_set_bytes(shape.workload("base"), shape.batch) > LARGEST_BASE:
        found = measured(shape, rounds, ("hydragen",))
        return f"- ({statistics.median(shares(shape, 'hydragen', found)):.2f})"
    found = measured(shape, rounds)
    share = statistics.median(shares(shape, "hydragen", found))
    return f"{statistics.median(speedups(found)):.1f} ({share:.2f})"


def grid(dtype: str, kv_heads: int, suffix: int, rounds: int) -> None:
    """Batch by prefix."""
    print(f"{dtype}, {kv_heads} key/value heads, suffix {suffix}: speedup (share of the ceiling)")
    print("| batch | " + " | ".join(map(str, PREFIXES)) + " |")
    print("| " + " | ".join(["---"] * (1 + len(PREFIXES))) + " |")
    for batch in BATCHES:
        cells = [cell(Shape(batch, prefix, suffix, kv_heads, dtype), rounds) for prefix in PREFIXES]
        print("| " + " | ".join([str(batch), *cells]) + " |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--prefix", type=int, default=4096)
    parser.add_argument("--suffix", type=int, default=128)
    parser.add_argument("--grid", action="store_true", help="batch by prefix")
    parser.add_argument("--kv-heads", type=int, default=8, help="of the grid")
    parser.add_argument("--dtype", default="float32", help="of the grid")
    given = parser.parse_args()
    if given.grid:
        grid(given.dtype, given.kv_heads, given.suffix, given.rounds)
        return
    print(f"batch {given.batch}, prefix {given.prefix}, suffix {given.suffix}, 8 heads of 128")
    print("| type | kv heads | base | of its ceiling | hydragen | of its ceiling | speedup "
          "| read | products |")  # fmt: skip
    print("| " + " | ".join(["---"] * 9) + " |")
    for dtype in ("float32", "bfloat16"):
        for kv_heads in (8, 1):
            shape = Shape(given.batch, given.prefix, given.suffix, kv_heads, dtype)
            print(row(shape, measured(shape, given.rounds)), flush=True)


if __name__ == "__main__":
    main()
