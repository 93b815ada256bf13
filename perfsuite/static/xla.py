"""Facts of a jitted program that XLA compiled for a TPU slice, ahead of time.

A program is lowered, which needs no device; its facts are looked up under the hash of what was
lowered, and compiled only where nobody has done so before.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from perfsuite.errors import Void
from perfsuite.protocols import XlaProgram
from perfsuite.static import findings, hlo, kept_facts
from perfsuite.static.collectives import KINDS, exchanges
from perfsuite.static.compiled import Compiled
from perfsuite.static.operations import matrix_operations
from perfsuite.static.schedule import schedule
from perfsuite.static.topology import Target, mismatch, toolchain
from perfsuite.static.traffic import moves

_PEAK = "static_peak_memory/compiled_hbm"
_TRAFFIC = "static_traffic/compiled_hbm"
_OPERATIONS = "static_operations/compiled_matrix_products"
LEAST_TIME = "static_least_time/slice"
_OPTIONS = ("LIBTPU_INIT_ARGS", "XLA_FLAGS")  # the environment's part of the compile options


def facts(program: XlaProgram, target: Target) -> Compiled:
    """The figures of one program, and what there is to say of it.

    Raises Void for a program that does not fit, or whose shapes do not divide by its mesh.
    """
    traced, lowered = _lowered(program, target)
    key = _key(traced, lowered, target)
    kept = kept_facts.read(key) if key else None
    if not kept:
        fresh = _facts(program, target, lowered)
        kept = {"figures": fresh.figures, "words": fresh.words}
        if key:
            kept_facts.write(key, kept)
    figures = dict(kept["figures"])
    figures |= _shares(program, figures) | _least_time(target, figures)
    return Compiled(figures, dict(kept["words"]))


def _lowered(program: XlaProgram, target: Target) -> tuple[Any, Any]:
    try:
        traced = program.jitted.trace(*program.arguments)
        return traced, traced.lower()
    except ValueError as problem:
        raise Void(f"{program.name} on {target.name}: {_short(problem)}") from None


def _key(traced: Any, lowered: Any, target: Target) -> str | None:
    """Of all that decides the facts; None, so that nothing is kept, where jax hides a part of it.

    The options that `jax.jit` was given are not in what was lowered.
    """
    told = getattr(traced, "_params", {})
    if "compiler_options_kvs" not in told:
        return None
    options = [repr(told["compiler_options_kvs"]), *(os.environ.get(n, "") for n in _OPTIONS)]
    return kept_facts.key([lowered.as_text(), target.name, toolchain(), *options])


def _facts(program: XlaProgram, target: Target, lowered: Any) -> Compiled:
    compiled = _compile(program, target, lowered)
    module = hlo.parse(compiled.as_text())
    plan = schedule(module)
    moved = moves(module, plan.steps)
    exchanged = exchanges(module, plan.steps)
    costs = compiled.cost_analysis() or {}
    figures = {
        **_memory(compiled.memory_analysis()),
        _TRAFFIC: sum(m.bytes for m in moved),
        "static_traffic/xla_bytes_accessed": costs.get("bytes accessed", 0.0),
        _OPERATIONS: matrix_operations(module, plan.steps),
        "static_fusions/compiled": sum(s.instruction.opcode == "fusion" for s in plan.steps),
    }
    for kind in KINDS:
        found, name = [e for e in exchanged if e.kind == kind], kind.replace("-", "_")
        figures[f"static_{name}/count"] = sum(e.times for e in found)
        figures[f"static_{name}/bytes"] = sum(e.bytes for e in found)
    words = findings.of(module, plan, moved, exchanged)
    return Compiled({name: float(value) for name, value in figures.items()}, words)


def _memory(stats: Any) -> dict[str, float]:
    """Bytes of one chip's HBM. XLA's own peak counts its on-chip memory in, and is not used."""
    arguments, outputs = stats.argument_size_in_bytes, stats.output_size_in_bytes
    aliased, temporaries = stats.alias_size_in_bytes, stats.temp_size_in_bytes
    return {
        _PEAK: arguments + outputs - aliased + temporaries,
        "static_arguments/compiled_hbm": arguments,
        "static_temporaries/compiled_hbm": temporaries,
        "static_outputs/compiled_hbm": outputs,
        "static_aliased/compiled_hbm": aliased,
        "static_executable/generated_code": stats.generated_code_size_in_bytes,
    }


def _shares(program: XlaProgram, figures: dict[str, float]) -> dict[str, float]:
    """Against what can not be avoided: weights and live cache held, and read once."""
    needed = program.weights_bytes + program.cache_bytes
    if needed <= 0:
        return {}
    return {
        "static_peak_share/weights_and_cache": figures[_PEAK] / needed,
        "static_traffic_share/weights_and_cache": figures[_TRAFFIC] / needed,
    }


def _least_time(target: Target, figures: dict[str, float]) -> dict[str, float]:
    """Seconds below which the chip can not run it, by its memory and by its products (roofline)."""
    chip = target.slice.chip
    by_products = figures[_OPERATIONS] / chip.peak
    return {LEAST_TIME: max(figures[_TRAFFIC] / chip.bandwidth, by_products)}


def with_rate(step: Compiled, tokens: int) -> Compiled:
    """A decode step with the most tokens per second that its least time allows."""
    least = step.figures[LEAST_TIME]
    rate = {"static_throughput_bound/slice": tokens / least} if least else {}
    return Compiled({**step.figures, **rate}, step.words)


def _compile(program: XlaProgram, target: Target, lowered: Any) -> Any:
    try:
        return lowered.compile()
    except Exception as problem:  # noqa: BLE001 - told in one line, whatever XLA raises
        text = str(problem)
        if "CompileTimeHbmOom" in text:
            raise Void(_does_not_fit(program, target, lowered, text)) from None
        raise Void(
            f"{program.name} on {target.name} does not compile: {_short(problem)}; {mismatch()}"
        ) from None


def _does_not_fit(program: XlaProgram, target: Target, lowered: Any, text: str) -> str:
    """Needed and available, then what takes most, from the module that XLA gave up on."""
    sizes = re.findall(r"\(?([\d.]+)([KMGT])\)?", text.partition("Ran out of memory")[2])
    if len(sizes) < 2:  # in words that this libtpu had not yet
        return f"{program.name} does not fit {target.name}: {text.strip().splitlines()[0][:300]}"
    needed, available = [_gib(number, unit) for number, unit in sizes[:2]]
    lines = [
        f"{program.name} does not fit {target.name}: {needed:.2f} GiB a chip needed,"
        f" {available:.2f} GiB available; weights and cache are"
        f" {(program.weights_bytes + program.cache_bytes) / 2**30:.2f} GiB",
        *_largest(lowered),
    ]
    return "\n".join(lines)


def _gib(number: str, unit: str) -> float:
    return float(number) * 1024.0 ** ("KMGT".index(unit) - 2)


def _largest(lowered: Any) -> Iterator[str]:
    """The largest arrays beside the arguments: compiled again, for XLA says them only in a dump."""
    with tempfile.TemporaryDirectory(prefix="perfsuite-") as folder:
        options = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
        try:
            lowered.compile(compiler_options=options)
        except Exception:  # noqa: BLE001 - it fails again: the dump is what is wanted
            found = next(Path(folder).glob("*oom_intermediate_module.txt"), None)
            text = found.read_text() if found else ""
    try:
        module = hlo.parse(text)
    except ValueError:
        return
    yield findings.largest_arrays(module)


def _short(problem: Exception) -> str:
    """The first sentence of a long error."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(problem).__name__
