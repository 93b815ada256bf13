"""Decode throughput of a whole model behind prefixes of 1K to 16K tokens, at one batch.

    python bench/shared_prefix.py [--batch 32] [--dtype bfloat16] [--rounds 10]

Hydragen claims that a longer prefix costs little. Beside each engine's tokens/s stands the share
of its own ceiling (weights, prefix and suffixes each as max(bytes / bandwidth, operations / peak),
with probes of the same round), and what the ceiling itself loses. The prefix's keys and values are
random: they are not computed, only read. A copied prefix of over 8 GB is left out.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from bench.attention import ceilings_of, in_turn, middle, probes
from bench.decode import MODEL
from engines.hydragen.engine import Hydragen
from engines.hydragen.engine import Step as SharedStep
from engines.torch_llama import Step, TorchLlama
from perfsuite.roofline import decode_parts, floor_s
from perfsuite.workloads.workload import Workload

PREFIXES = (1024, 2048, 4096, 8192, 16_384)
SUFFIX, STEPS = 32, 8
LARGEST_COPY = 8e9  # bytes of keys and values


@dataclass(frozen=True)
class Cell:
    """One batch and prefix of a mode, as a workload whose ceiling is known."""

    mode: str
    prefix: int
    batch: int
    dtype: str

    @property
    def workload(self) -> Workload:
        """All steps of one block, each SUFFIX / 2 tokens behind the prefix in the middle."""
        return Workload(
            id="", document="hydragen", place="", kind="shared", mode=self.mode, device="cpu",
            model=replace(MODEL, max_context=32_768), dtype=self.dtype, batch=self.batch,
            shared_tokens=self.prefix, input_tokens=SUFFIX // 2, output_tokens=STEPS + 1,
        )  # fmt: skip

    @property
    def copied(self) -> int:
        """Bytes of the prefix in every sequence's own cache."""
        size = getattr(torch, self.dtype).itemsize
        return self.batch * self.prefix * MODEL.kv_values_per_token * size


def block(cell: Cell) -> Callable[[], None]:
    """STEPS decode steps behind a prefix that is held, and half of the suffix."""
    options: dict[str, Any] = {"batch": cell.batch, "weights": 0, "dtype": cell.dtype}
    model, first = replace(MODEL, max_context=32_768), SUFFIX // 2
    tokens = torch.zeros(cell.batch, dtype=torch.int64)
    scores = torch.empty(cell.batch, 0)
    start: Any
    if cell.mode == "hydragen":
        shared = Hydragen(model, shared_tokens=cell.prefix, own_tokens=SUFFIX, **options)
        shared.hold(cell.prefix)
        caches = [(p.keys, p.values) for p in shared.levels[0].layers]
        caches += [(own.keys, own.values) for own in shared.own]
        engine: Any = shared
        start = SharedStep(tokens, scores, first)
    else:
        engine = TorchLlama(model, cache_tokens=cell.prefix + SUFFIX, **options)
        caches = engine.caches or []
        start = Step(tokens, scores, cell.prefix + first)
    with torch.inference_mode():
        for pair in caches:
            for tensor in pair:
                tensor.normal_()

    def run() -> None:
        step = start
        for _ in range(STEPS):
            step = engine.decode(step)

    return run


def measured(cells: list[Cell], rounds: int) -> dict[str, list[float]]:
    """Seconds of each cell's block and of the probes in every round."""
    blocks: dict[str, Callable[[], Any]] = {cell.mode: block(cell) for cell in cells}
    return in_turn(blocks | probes(cells[0].dtype), rounds)


def row(cell: Cell, found: dict[str, list[float]], first: dict[str, list[float]]) -> str:
    """A line: throughput, share of the ceiling, and what both lost since the shortest prefix."""
    parts = decode_parts(cell.workload, cell.batch)
    floors = [floor_s(parts, ceilings) for ceilings in ceilings_of(found)]
    rates = [cell.batch * STEPS / seconds for seconds in found[cell.mode]]
    most = [cell.batch * STEPS / floor for floor in floors]
    shares = [rate / limit for rate, limit in zip(rates, most, strict=True)]
    rate, limit = statistics.median(rates), statistics.median(most)
    first.setdefault(cell.mode, [rate, limit])
    lost = [1 - now / then for now, then in zip([rate, limit], first[cell.mode], strict=True)]
    return (
        f"| {cell.prefix} | {cell.mode} | {middle(rates, 0)} | {middle(shares)} "
        f"| {100 * lost[0]:.0f} % | {100 * lost[1]:.0f} % |"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
    print(f"{MODEL.name}, {given.dtype}, batch {given.batch}, {STEPS} steps from {SUFFIX // 2} on")
    print("| prefix | mode | tokens/s | of the ceiling | lost since 1024 | ceiling lost |")
    print("| --- | --- | --- | --- | --- | --- |")
    first: dict[str, list[float]] = {}
    for prefix in PREFIXES:
        both = [Cell(mode, prefix, given.batch, given.dtype)
                for mode in ("hydragen", "hydragen_noshared")]  # fmt: skip
        cells = [cell for cell in both if cell.mode == "hydragen" or cell.copied <= LARGEST_COPY]
        found = measured(cells, given.rounds)
        for cell in cells:
            print(row(cell, found, first), flush=True)


if __name__ == "__main__":
    main()
