"""Does the peak that is gated, the allocator's, tell what a process needs? One engine is opened and
run in this fresh process, and what the process had resident at most is put beside it.

    python -m bench.resident [--engine torch_llama] [--mode normal] [--layers 8] [--cache 16384]

Both peaks are of one generation, after loading and a warm-up. The process's is taken above what a
small engine of the same kind left behind: the interpreter and the libraries are none of the
allocator's. What the C library keeps unused is given back before each of the two readings. For
peaks of 1 GiB and more they should differ by no more than 3 % and 32 MiB.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from perfsuite.runtimes import resident
from perfsuite.workloads import Model, Workload, load_catalogue

SHARE, ROOM = 0.03, 32 * 2**20
MODEL = Model("llama_resident", layers=8, hidden_size=2048, heads=16, kv_heads=4, head_dim=128,
              intermediate_size=5632, vocab_size=32_000, max_context=2**20)  # fmt: skip
PROMPT, OUTPUT = 128, 8


@dataclass(frozen=True)
class Peaks:
    """Bytes above what the process had before."""

    allocator: int
    process: int
    loading_allocator: int
    loading_process: int

    @property
    def agree(self) -> bool:
        """Whether the two peaks of the generation are within the bound of each other."""
        return abs(self.process - self.allocator) <= SHARE * self.allocator + ROOM


def workload(mode: str, layers: int, cache: int) -> Workload:
    """The torchao document's cell of that mode, on a model of so many layers."""
    cell = next(w for w in load_catalogue() if (w.document, w.mode) == ("torchao", mode))
    return cell.sized(
        model=replace(MODEL, layers=layers),
        cache_tokens=cache,
        input_tokens=PROMPT,
        output_tokens=OUTPUT,
    )


def measured(name: str, asked: Workload) -> Peaks:
    """The peaks of this process; it must not have measured before."""
    from engines.offers import offers
    from perfsuite.runtimes.torch_runtime import opened, peak

    offer = next(offer for offer in offers() if offer.name == name)
    small = asked.sized(model=replace(asked.model, layers=1, vocab_size=512), cache_tokens=256)
    engine, _ = opened(lambda: offer.open(small, "cpu"), "cpu")
    generation(engine, small)()
    engine.close()
    del engine

    before = settled_bytes()
    resident.reset_peak()
    engine, loading = opened(lambda: offer.open(asked, "cpu"), "cpu")
    loading_process = peak_bytes() - before
    run = generation(engine, asked)
    run()
    settled_bytes()
    resident.reset_peak()
    run()
    process = peak_bytes() - before
    return Peaks(peak(run, "cpu").allocated, process, loading, loading_process)


def generation(engine: Any, asked: Workload) -> Callable[[], None]:
    """A prompt and all its tokens."""
    tokens = [[(7 * place) % 512 for place in range(asked.input_tokens)]]

    def run() -> None:
        step = engine.prefill(tokens)
        for _ in range(asked.output_tokens - 1):
            step = engine.decode(step)
        engine.wait(step)

    return run


def settled_bytes() -> int:
    """The resident set, once garbage and what glibc keeps unused are gone."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    size = resident.size_bytes()
    assert size, "needs Linux's /proc"
    return size


def peak_bytes() -> int:
    """The resident peak since it was reset."""
    peak = resident.peak_bytes()
    assert peak, "needs Linux's /proc"
    return peak


def told(peaks: Peaks) -> str:
    """A line for the generation and one for the load."""
    verdict = "within" if peaks.agree else "NOT within"
    ratio = peaks.process / peaks.allocator
    return "\n".join([
        _line("generation", peaks.allocator, peaks.process) + f", ratio {ratio:.4f}: {verdict}"
        " 3 % and 32 MiB",
        _line("loading", peaks.loading_allocator, peaks.loading_process),
    ])


def _line(what: str, allocator: int, process: int) -> str:
    return f"{what}: allocator {allocator / 1e6:.1f} MB, process {process / 1e6:.1f} MB"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--engine", default="torch_llama")
    parser.add_argument("--mode", default="normal")
    parser.add_argument("--layers", type=int, default=MODEL.layers)
    parser.add_argument("--cache", type=int, default=16_384)
    parser.add_argument("--json", action="store_true", help="print the four figures as JSON")
    given = parser.parse_args()
    peaks = measured(given.engine, workload(given.mode, given.layers, given.cache))
    print(json.dumps(asdict(peaks)) if given.json else told(peaks))


if __name__ == "__main__":
    main()
