"""Shared-prefix attention on this machine: each mode's share of its own ceiling, and the speedup.

    python bench/attention.py [--rounds 15] [--prefix 4096] [--suffix 128] [--batch 32]
    python bench/attention.py --grid [--kv-heads 8] [--dtype float32] [--plot FILE.svg]

For each type and number of key/value heads, `base`, `hydragen` and two probes of the machine take
turns in one process, the cache flushed before each call. A ceiling is the sum over the parts of
max(bytes / read bandwidth, operations / matrix peak) with the probes of the same round. Medians and
quartiles; a speedup is that of the same round. The grid is batch by prefix: the speedup, and beside
it the share of its ceiling that `hydragen` reaches; a base that needs over 4 GB is left out. The
plot needs matplotlib.
"""

from __future__ import annotations

import argparse
import math
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


def cell(shape: Shape, rounds: int) -> tuple[float, float]:
    """The speedup, NaN where base is left out, and the share of the ceiling."""
    fits = working_set_bytes(shape.workload("base"), shape.batch) <= LARGEST_BASE
    found = measured(shape, rounds, MODES if fits else ("hydragen",))
    speedup = statistics.median(speedups(found)) if fits else math.nan
    return speedup, statistics.median(shares(shape, "hydragen", found))


def grid(dtype: str, kv_heads: int, suffix: int, rounds: int) -> list[list[tuple[float, float]]]:
    """Batch by prefix, printed row by row."""
    print(f"{dtype}, {kv_heads} key/value heads, suffix {suffix}: speedup (share of the ceiling)")
    print("| batch | " + " | ".join(map(str, PREFIXES)) + " |")
    print("| " + " | ".join(["---"] * (1 + len(PREFIXES))) + " |")
    rows = []
    for batch in BATCHES:
        shapes = [Shape(batch, prefix, suffix, kv_heads, dtype) for prefix in PREFIXES]
        rows.append([cell(shape, rounds) for shape in shapes])
        words = [f"{'-' if math.isnan(s) else f'{s:.1f}'} ({share:.2f})" for s, share in rows[-1]]
        print("| " + " | ".join([str(batch), *words]) + " |", flush=True)
    return rows


def plot(rows: list[list[tuple[float, float]]], title: str, path: Path) -> None:
    """The speedups as a heat map, on a logarithmic scale, each with its number."""
    from matplotlib import colors, pyplot

    speeds = [[speedup for speedup, _ in row] for row in rows]
    figure, axes = pyplot.subplots(figsize=(6.4, 3.6), layout="constrained")
    shown = axes.imshow(speeds, norm=colors.LogNorm(1 / 16, 16), cmap="RdBu", aspect="auto")
    for y, row in enumerate(speeds):
        for x, speedup in enumerate(row):
            words = "base\nleft out" if math.isnan(speedup) else f"{speedup:.1f}"
            dark = not math.isnan(speedup) and speedup > 6
            axes.text(x, y, words, ha="center", va="center", color="white" if dark else "black")
    axes.set_xticks(range(len(PREFIXES)), map(str, PREFIXES))
    axes.set_yticks(range(len(BATCHES)), map(str, BATCHES))
    axes.set_xlabel("prefix, tokens")
    axes.set_ylabel("batch, sequences")
    axes.set_title(title, fontsize=10)
    figure.colorbar(shown, label="times as fast as base", ticks=[0.25, 0.5, 1, 2, 4, 8, 16],
                    format="%g")  # fmt: skip
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--prefix", type=int, default=4096)
    parser.add_argument("--suffix", type=int, default=128)
    parser.add_argument("--grid", action="store_true", help="batch by prefix")
    parser.add_argument("--plot", type=Path, help="the grid as a heat map")
    parser.add_argument("--kv-heads", type=int, default=8, help="of the grid")
    parser.add_argument("--dtype", default="float32", help="of the grid")
    given = parser.parse_args()
    if given.grid:
        rows = grid(given.dtype, given.kv_heads, given.suffix, given.rounds)
        if given.plot:
            title = f"attention with a shared prefix, {given.dtype}, {given.kv_heads} kv heads"
            plot(rows, title, given.plot)
        return
    if given.plot:
        parser.error("--plot has no effect without --grid")
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
