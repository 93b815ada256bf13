"""Decode on a CPU: how much of the read bandwidth do the engines reach, and which is the fastest?
Every side has a process of its own, and they take turns; the others are stopped.

    python bench/decode.py [--dtype float32] [--batch 1] [--rounds 40] [jetstream torch_llama ...]

Sides are this repository's engines, with an option of theirs behind a plus (torchao_llama+int8wo),
and what users would run instead: transformers, and vllm (--vllm=PYTHON, the interpreter of an
environment that has it). A block of a side is some steps of its engine, or as many reads of as many
bytes as a step in the stated type reads: the weights but for the embedding, of which it reads one
row, and the live cache. A share is that many bytes by the time of a step, over the bandwidth of
the same round; quantised weights, which are fewer bytes, can pass 1. Medians and quartiles.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.peers import transformers_block, vllm_block
from perfsuite.workloads.workload import Model, Workload

MODEL = Model("llama_167m", layers=12, hidden_size=1024, heads=16, kv_heads=4, head_dim=64,
              intermediate_size=2816, vocab_size=32_000, max_context=4096)  # fmt: skip
ROOT = Path(__file__).parents[1]
PROMPT, STEPS = 128, 16  # vLLM stamps the first token, so its block is one step longer
BYTES = {"float32": 4, "bfloat16": 2}
READ = "read"
PEERS = {"transformers": transformers_block, "vllm": vllm_block}


@dataclass(frozen=True)
class Asked:
    """What all sides are asked for."""

    dtype: str
    batch: int = 1

    @property
    def prompts(self) -> list[list[int]]:
        """Of every sequence, all different."""
        places = range(PROMPT)
        return [[(7 * p + row) % MODEL.vocab_size for p in places] for row in range(self.batch)]

    def workload(self, engine: str, option: str) -> Workload:
        """A prompt, then a warm-up and one block of steps, as a row of the engine's document."""
        torchao = engine.startswith("torchao")
        document, mode = ("torchao", "normal") if torchao else ("jetstream", "bf16")
        return Workload(
            id="decode", document=document, place="", kind="generate", mode=option or mode,
            model=MODEL, device="cpu", dtype=self.dtype, batch=self.batch, input_tokens=PROMPT,
            output_tokens=STEPS + 2, options=(("quantization", option),) if option else (),
            scale="smoke",
        )  # fmt: skip

    @property
    def bytes_of_step(self) -> int:
        """Weights without the embedding's table, and the caches halfway through a block."""
        weights = MODEL.parameters - MODEL.vocab_size * MODEL.hidden_size
        cached = MODEL.kv_values_per_token * (PROMPT + 1 + STEPS // 2) * self.batch
        return (weights + cached) * BYTES[self.dtype]


def engine_block(side: str, asked: Asked) -> Callable[[], float]:
    """Seconds a step, over one block after a prefill and a step that are not counted."""
    from engines.offers import offers

    name, _, option = side.partition("+")
    offer = next(offer for offer in offers() if offer.name == name)
    engine = offer.open(asked.workload(name, option), "cpu")
    tokens = asked.prompts

    def block() -> float:
        step = engine.decode(engine.prefill(tokens))
        engine.wait(step)
        start = time.perf_counter()
        for _ in range(STEPS):
            step = engine.decode(step)
        engine.wait(step)
        return (time.perf_counter() - start) / STEPS

    return block


def read_block(asked: Asked) -> Callable[[], float]:
    """Seconds to sum as many bytes as a step reads, on all threads."""
    import torch

    values = torch.ones(asked.bytes_of_step // 8, dtype=torch.int64)

    def block() -> float:
        start = time.perf_counter()
        for _ in range(STEPS):
            values.sum()
        return (time.perf_counter() - start) / STEPS

    return block


def block_of(name: str, asked: Asked) -> Callable[[], float]:
    """What a side does when its turn comes."""
    if name in PEERS:
        return PEERS[name](MODEL, asked.dtype, asked.prompts, STEPS)
    return read_block(asked) if name == READ else engine_block(name, asked)


def serve(name: str, asked: Asked) -> None:
    """The child: one block for every line that it is sent; what libraries print goes elsewhere."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    block = block_of(name, asked)
    block()
    print("ready", file=answers, flush=True)
    for _ in sys.stdin:
        print(json.dumps(block()), file=answers, flush=True)


@dataclass
class Side:
    """A child process, stopped but for its turns."""

    name: str
    process: subprocess.Popen[str]

    @classmethod
    def started(cls, name: str, asked: Asked, python: str) -> Side:
        """Once it has loaded and run a block."""
        command = [python, "-m", "bench.decode", "--side", name, "--dtype", asked.dtype,
                   "--batch", str(asked.batch)]  # fmt: skip
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
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


def measured(
    names: list[str], asked: Asked, rounds: int, vllm: str = sys.executable
) -> dict[str, list[float]]:
    """Seconds a step of every side in every round."""
    sides: list[Side] = []
    try:
        pythons = [vllm if name == "vllm" else sys.executable for name in names]
        sides.extend(map(Side.started, names, [asked] * len(names), pythons))
        found: dict[str, list[float]] = {name: [] for name in names}
        for number in range(rounds):
            for side in random.sample(sides, len(sides)):
                found[side.name].append(side.block())
            print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr)
        print(file=sys.stderr)
        return found
    finally:
        for side in sides:
            os.killpg(side.process.pid, signal.SIGKILL)


def middle(values: list[float], digits: int = 2) -> str:
    """Median and quartiles."""
    low, half, high = statistics.quantiles(values, n=4)
    return f"{half:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def table(found: dict[str, list[float]], asked: Asked) -> str:
    """One row an engine; ratios are of the same round."""
    names = [name for name in found if name != READ]
    size = asked.bytes_of_step
    lines = [
        f"{MODEL.name}, {asked.dtype}, batch {asked.batch}, prompt {PROMPT}: "
        f"{size / 1e6:.0f} MB a step; "
        f"read at {middle([size / s / 1e9 for s in found[READ]], 1)} GB/s",
        f"| engine | tokens/s | share of read bandwidth | against {names[-1]} |",
        "| --- | --- | --- | --- |",
    ]
    for name in names:
        pairs = list(zip(found[name], found[READ], found[names[-1]], strict=True))
        speed = middle([asked.batch / own for own, _, _ in pairs], 1)
        share = middle([read / own for own, read, _ in pairs])
        lines.append(f"| {name} | {speed} | {share} | {middle([o / s for s, _, o in pairs])} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print, or be one of the sides."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("engines", nargs="*", default=["jetstream", "torch_llama"])
    parser.add_argument("--dtype", choices=BYTES, default="float32")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--vllm", default=sys.executable, help="the interpreter that has vllm")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    given = parser.parse_args()
    asked = Asked(given.dtype, given.batch)
    if given.side:
        serve(given.side, asked)
    else:
        found = measured([READ, *given.engines], asked, given.rounds, given.vllm)
        print(table(found, asked))


if __name__ == "__main__":
    main()
