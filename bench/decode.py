"""Decode at batch 1 on a CPU: how much of the read bandwidth do the engines reach, and which is
the fastest? Every side has a process of its own, and they take turns; the others are stopped.

    python bench/decode.py [--dtype float32] [--rounds 40] [jetstream torch_llama ...]

A block of a side is some steps of its engine, or as many reads of as many bytes as a step reads:
the weights but for the embedding, of which it reads one row, and the live cache. A share is the
bytes of a step by its time, over the bandwidth of the same round. Medians and quartiles.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from perfsuite.workloads.workload import Model, Workload

MODEL = Model("llama_167m", layers=12, hidden_size=1024, heads=16, kv_heads=4, head_dim=64,
              intermediate_size=2816, vocab_size=32_000, max_context=4096)  # fmt: skip
ROOT = Path(__file__).parents[1]
PROMPT, STEPS = 128, 16
BYTES = {"float32": 4, "bfloat16": 2}
READ = "read"


def workload(dtype: str) -> Workload:
    """One user: a prompt, then a warm-up and one block of steps."""
    return Workload(
        id="decode", document="llm", place="", kind="single_user", mode="plain", model=MODEL,
        device="cpu", dtype=dtype, input_tokens=PROMPT, output_tokens=STEPS + 2, scale="smoke",
    )  # fmt: skip


def bytes_of_step(dtype: str) -> int:
    """Weights without the embedding's table, and the cache halfway through a block."""
    weights = MODEL.parameters - MODEL.vocab_size * MODEL.hidden_size
    cached = MODEL.kv_values_per_token * (PROMPT + 1 + STEPS // 2)
    return (weights + cached) * BYTES[dtype]


def engine_block(name: str, dtype: str) -> Callable[[], float]:
    """Seconds a step, over one block after a prefill and a step that are not counted."""
    from engines.offers import offers

    offer = next(offer for offer in offers() if offer.name == name)
    engine = offer.open(workload(dtype), "cpu")
    tokens = [[(7 * place) % MODEL.vocab_size for place in range(PROMPT)]]

    def block() -> float:
        step = engine.decode(engine.prefill(tokens))
        engine.wait(step)
        start = time.perf_counter()
        for _ in range(STEPS):
            step = engine.decode(step)
        engine.wait(step)
        return (time.perf_counter() - start) / STEPS

    return block


def read_block(dtype: str) -> Callable[[], float]:
    """Seconds to sum as many bytes as a step reads, on all threads."""
    import torch

    values = torch.ones(bytes_of_step(dtype) // 8, dtype=torch.int64)

    def block() -> float:
        start = time.perf_counter()
        for _ in range(STEPS):
            values.sum()
        return (time.perf_counter() - start) / STEPS

    return block


def serve(name: str, dtype: str) -> None:
    """The child: one block for every line that it is sent."""
    block = read_block(dtype) if name == READ else engine_block(name, dtype)
    block()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps(block()), flush=True)


@dataclass
class Side:
    """A child process, stopped but for its turns."""

    name: str
    process: subprocess.Popen[str]

    @classmethod
    def started(cls, name: str, dtype: str) -> Side:
        """Once it has loaded and run a block."""
        command = [sys.executable, "-m", "bench.decode", "--side", name, "--dtype", dtype]
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        side = cls(name, process)
        if side._line() != "ready":
            raise SystemExit(f"{name} did not start: its error is above")
        process.send_signal(signal.SIGSTOP)
        return side

    def block(self) -> float:
        """Seconds a step."""
        assert self.process.stdin is not None
        self.process.send_signal(signal.SIGCONT)
        print(file=self.process.stdin, flush=True)
        seconds = float(self._line())
        self.process.send_signal(signal.SIGSTOP)
        return seconds

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


def measured(names: list[str], dtype: str, rounds: int) -> dict[str, list[float]]:
    """Seconds a step of every side in every round."""
    sides: list[Side] = []
    try:
        sides.extend(Side.started(name, dtype) for name in names)
        found: dict[str, list[float]] = {name: [] for name in names}
        for number in range(rounds):
            for side in random.sample(sides, len(sides)):
                found[side.name].append(side.block())
            print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr)
        print(file=sys.stderr)
        return found
    finally:
        for side in sides:
            side.process.kill()


def middle(values: list[float], digits: int = 2) -> str:
    """Median and quartiles."""
    low, half, high = statistics.quantiles(values, n=4)
    return f"{half:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def table(found: dict[str, list[float]], dtype: str) -> str:
    """One row an engine; ratios are of the same round."""
    names = [name for name in found if name != READ]
    size = bytes_of_step(dtype)
    lines = [
        f"{MODEL.name}, {dtype}, batch 1, prompt {PROMPT}: {size / 1e6:.0f} MB a step; "
        f"read at {middle([size / s / 1e9 for s in found[READ]], 1)} GB/s",
        f"| engine | tokens/s | share of read bandwidth | against {names[-1]} |",
        "| --- | --- | --- | --- |",
    ]
    for name in names:
        pairs = list(zip(found[name], found[READ], found[names[-1]], strict=True))
        speed = middle([1 / own for own, _, _ in pairs], 1)
        share = middle([read / own for own, read, _ in pairs])
        lines.append(f"| {name} | {speed} | {share} | {middle([o / s for s, _, o in pairs])} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print, or be one of the sides."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("engines", nargs="*", default=["jetstream", "torch_llama"])
    parser.add_argument("--dtype", choices=BYTES, default="float32")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        serve(given.side, given.dtype)
    else:
        found = measured([READ, *given.engines], given.dtype, given.rounds)
        print(table(found, given.dtype))


if __name__ == "__main__":
    main()
