"""Every metric once: name, unit, direction, formula and definition id.

The id is `name/definition`, because the same name means several things in this field: a value is
only ever compared with values of the same id. Inside, times are seconds, sizes bytes, rates
tokens per second; `display` is the only place that converts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from perfsuite.errors import OptionError

Kind = Literal["time", "throughput", "memory", "count"]


@dataclass(frozen=True)
class Metric:
    """One measured or compiled quantity.

    kind decides direction and default limit: a throughput is better when larger, all others when
    smaller. A metric that is not gated is recorded and shown but never judged.
    """

    name: str
    definition: str
    title: str
    kind: Kind
    unit: str
    formula: str
    gated: bool = True
    exact: bool = False  # without noise: one value, its interval is a point
    within_toolchain: bool = False  # comparable only between equal toolchains
    derived: bool = False  # made of two tests of one run: what slows both leaves it as it is
    limit: float | None = None  # share that may be lost by default, where the kind's does not fit

    @property
    def id(self) -> str:
        """`name/definition`, the part of a baseline's key that says what was measured."""
        return f"{self.name}/{self.definition}"


# kind of collective, title of its count, title of its bytes
_COLLECTIVES = (
    ("all-gather", "all-gathers", "gathered"),
    ("all-reduce", "all-reduces", "reduced"),
    ("reduce-scatter", "reduce-scatters", "scattered"),
    ("all-to-all", "all-to-alls", "exchanged"),
    ("collective-permute", "permutes", "permuted"),
)


def _of_collective(kind: str, count: str, moved: str) -> tuple[Metric, Metric]:
    """How many a compiled program runs, and what they take of one chip."""
    name = f"static_{kind.replace('-', '_')}"
    return (
        Metric(
            name, "count", count, "count", "calls",
            f"{kind} operations that one run makes, loops turned out",
            exact=True,
        ),
        Metric(
            name, "bytes", moved, "count", "bytes",
            f"bytes of one chip in the larger side, operands or results, of every {kind}",
            exact=True,
        ),
    )  # fmt: skip


# kind of tensor at the static peak, which ones these are, share that may be lost
_AT_PEAK = (
    ("weights", "that the program names as its weights", 0.01),
    ("cache", "that the program names as its cache", 0.01),
    ("mask", "that the program names as its mask", 0.01),
    ("activations", "that the call makes, or that have no name among the program's", 0.05),
)


def _at_peak(kind: str, which: str, limit: float) -> Metric:
    """A part of the static peak: a count, so that it may be 0 and a mask that appears is a loss."""
    return Metric(
        "static_at_peak", kind, f"peak {kind}", "count", "bytes",
        f"bytes of the tensors {which}, when the sum of live tensor bytes is largest",
        exact=True,
        limit=limit,
    )  # fmt: skip


# name, definition, title and formula of a latency of served requests; which of its two figures,
# median and p99, are judged
_SERVED = (
    (
        "served_time_to_first_token", "from_due", "TTFT due",
        "requests of: first output - the moment it was due", (),
    ),
    (
        "served_time_to_first_token", "from_sent", "TTFT sent",
        "requests of: first output - the moment it was sent", (),
    ),
    (
        "served_time_per_output_token", "excluding_first_event", "TPOT served",
        "requests of: (last output - first) / (tokens - those of the first event)",
        ("median",),
    ),
    (
        "served_inter_token_latency", "per_token", "ITL served",
        "tokens of: gap to the token before it; tokens that came together share their gap evenly",
        (),
    ),
    (
        "end_to_end_latency", "from_due", "E2E due",
        "requests of: last output - the moment it was due", (),
    ),
    (
        "end_to_end_latency", "from_sent", "E2E sent",
        "requests of: last output - the moment it was sent", (),
    ),
)  # fmt: skip


def _served(
    name: str, definition: str, title: str, formula: str, gated: tuple[str, ...]
) -> tuple[Metric, Metric]:
    """The median and p99; a request that failed counts as infinite."""
    median, p99 = (
        Metric(
            name, f"{definition}_{word}", f"{title} {word}", "time", "s",
            f"{word} over {formula}",
            gated=word in gated,
        )
        for word in ("median", "p99")
    )  # fmt: skip
    return median, p99


_ALL = (
    Metric(
        "time_to_first_token", "prefill_until_first_token", "TTFT", "time", "s",
        "from the call of prefill until the first token of every sequence exists; batch as given",
    ),
    Metric(
        "time_per_output_token", "excluding_first_token", "TPOT", "time", "s",
        "(end of the last token - end of the first) / (output tokens - 1), a wait for each step",
    ),
    Metric(
        "inter_token_latency", "median_step", "ITL", "time", "s",
        "median of the gaps between two consecutive tokens of one generation",
    ),
    Metric(
        "single_user_throughput", "output_tokens", "single-user out", "throughput", "tokens/s",
        "output tokens / time of prefill and decode, batch 1, one wait at the end",
    ),
    Metric(
        "single_user_throughput", "prompt_and_output_tokens", "single-user all", "throughput",
        "tokens/s",
        "(prompt + output tokens) / time of prefill and decode, batch 1, one wait at the end",
    ),
    Metric(
        "max_prompt_throughput", "best_batch", "max prompt", "throughput", "tokens/s",
        "largest over the batches 2, 4, 8 ... of batch * prompt tokens / time of prefill",
    ),
    Metric(
        "multi_user_throughput", "prompt_and_output_tokens_best_batch", "multi-user max",
        "throughput", "tokens/s",
        "largest over the batches 2, 4, 8 ... of batch * (prompt + output tokens) / time of"
        " prefill and decode, one wait at the end",
    ),
    Metric(
        "prompt_throughput", "batch", "prompt", "throughput", "tokens/s",
        "batch * prompt tokens / time of prefill, one wait at the end",
    ),
    Metric(
        "decode_throughput", "decode_steps", "decode", "throughput", "tokens/s",
        "batch * (output tokens - 1) / time of the decode steps, one wait at the end",
    ),
    Metric(
        "decode_throughput", "all_less_first_token", "decode (paper)", "throughput", "tokens/s",
        "batch * (output tokens - 1) / (time of a generation of all tokens - time of a generation"
        " of one token), each from the call of prefill to one wait at its end",
    ),
    Metric(
        "attention_time", "flushed_call", "attention", "time", "s",
        "median over a block of the time of one call of the attention operation with its wait, the"
        " last-level cache overwritten before each call, outside the clock",
    ),
    Metric(
        "answer_time", "all_questions", "answers", "time", "s",
        "from handing over all questions, behind a prefix that was run before, until the last"
        " token of every answer is on the host",
    ),
    Metric(
        "wrong_answers", "exact_match", "wrong answers", "count", "answers",
        "answers whose text between the first pair of ### is not exactly the color in question",
        exact=True,
    ),
    Metric(
        "speedup", "over_noshared", "x noshared", "throughput", "times",
        "decode throughput / that of hydragen_noshared of the same sizes, process by process of"
        " one run",
        derived=True,
    ),
    Metric(
        "share_of", "noattention", "of noattention", "throughput", "times",
        "decode throughput / that of noattention of the same batch and output, process by process"
        " of one run",
        derived=True,
    ),
    Metric(
        "speedup", "attention_over_base", "x base", "throughput", "times",
        "time of a call of base of the same sizes / time of a call, process by process of one run",
        derived=True,
    ),
    Metric(
        "prompt_throughput", "one_sequence_at_a_time", "slot prompt", "throughput", "tokens/s",
        "prompt tokens of all slots / time of their prefills, one after the other, a wait for each",
    ),
    Metric(
        "insert_time", "one_slot", "insert", "time", "s",
        "time of inserting the prefilled prompts / slots, a wait for each",
    ),
    Metric(
        "decode_step_time", "all_slots_filled", "decode step", "time", "s",
        "time of the decode steps / (output tokens - 1), all slots filled, a wait for each step",
    ),
    Metric(
        "max_throughput", "decode_only", "MAX tokens", "throughput", "tokens/s",
        "batch / decode step time",
    ),
    Metric(
        "max_throughput", "serial_prefill_and_decode", "MAX tokens 2", "throughput", "tokens/s",
        "batch * output tokens / (batch * (prefill + insert time of one sequence) + output tokens"
        " * decode step time)",
    ),
    Metric(
        "call_time", "per_call", "time/call", "time", "s",
        "time of a block of calls / calls in it",
    ),
    Metric(
        "call_throughput", "tokens_per_call", "tokens/s", "throughput", "tokens/s",
        "tokens of one call (as the test states) * calls / time of the block",
    ),
    Metric(
        "benchmark_time", "per_iteration", "benchmark", "time", "s",
        "pytest-benchmark's round / its iterations",
    ),
    Metric(
        "peak_memory", "allocator", "peak memory", "memory", "bytes",
        "largest sum of live tensor bytes during one generation, weights and cache included",
        exact=True,
    ),
    Metric(
        "resident_memory", "process_peak", "resident", "memory", "bytes",
        "largest resident set of the measuring process during the measured part",
        gated=False,
    ),
    Metric(
        "reserved_memory", "allocator", "reserved", "memory", "bytes",
        "most bytes that torch's CUDA allocator had taken from the device during one generation,"
        " after it gave back what lay unused",
        gated=False,
        exact=True,
    ),
    Metric(
        "load_memory", "allocator", "load peak", "memory", "bytes",
        "largest rise of the sum of live tensor bytes while the engine was opened",
        exact=True,
    ),
    Metric(
        "load_memory", "process_rise", "load resident", "memory", "bytes",
        "largest resident set of the measuring process while the engine was opened, less the one"
        " before",
        gated=False,
    ),
    Metric(
        "kl_divergence", "mean_of_unquantised", "KL", "count", "nats",
        "mean over the positions of a fixed token stream of sum p * ln(p / q) over the vocabulary,"
        " p of the model without the technique, q of the engine",
        exact=True,
        limit=0.05,
    ),
    Metric(
        "logit_error", "maximum", "logit error", "count", "logits",
        "largest absolute difference of a logit from the model without the technique, over the same"
        " stream",
        exact=True,
        limit=0.25,
    ),
    Metric(
        "perplexity", "teacher_forced", "perplexity", "count", "tokens",
        "e to the mean of -ln p over the tokens of a text, all but the first of each sequence, p"
        " the engine's probability of the token given those before it",
        exact=True,
        limit=0.01,
    ),
    Metric(
        "output_throughput", "whole_run", "served out", "throughput", "tokens/s",
        "output tokens of the requests that were answered / time from the first that was due to the"
        " end of the last",
    ),
    Metric(
        "input_throughput", "whole_run", "served in", "throughput", "tokens/s",
        "prompt tokens of the requests that were answered / the same time",
        gated=False,
    ),
    Metric(
        "request_throughput", "whole_run", "served requests", "throughput", "requests/s",
        "requests that were answered / the same time",
        gated=False,
    ),
    Metric(
        "goodput", "all_objectives", "goodput", "throughput", "requests/s",
        "requests that kept every objective that was stated / the same time",
        gated=False,
    ),
    Metric(
        "served_time_to_first_token", "low_load_median", "TTFT low load", "time", "s",
        "median over requests that did not wait for one another of: first output - the moment it"
        " was sent",
    ),
    *(metric for words in _SERVED for metric in _served(*words)),
    Metric(
        "queue_time", "on_the_client_median", "client queue median", "count", "s",
        "median over requests of: the moment it was sent - the moment it was due",
        gated=False,
    ),
    Metric(
        "queue_time", "on_the_client_p99", "client queue p99", "count", "s",
        "p99 over requests of: the moment it was sent - the moment it was due",
        gated=False,
    ),
    Metric(
        "failed_requests", "all", "failed", "count", "requests",
        "requests that were sent and not answered to the end, of any kind",
        exact=True,
    ),
    Metric(
        "machine_pace", "matrix_products", "machine pace", "throughput", "operations/s",
        "operations / time of small square products on all threads, before and after the blocks",
        gated=False,
    ),
    Metric(
        "machine_pace", "memory_copy", "copy pace", "throughput", "bytes/s",
        "bytes copied / time within the memory of the device, on a CPU by one thread from beyond"
        " its last-level cache, before and after the blocks",
        gated=False,
    ),
    Metric(
        "machine_pace", "interpreter_loop", "loop pace", "throughput", "operations/s",
        "additions / time of a loop in the interpreter, before and after the blocks",
        gated=False,
    ),
    Metric(
        "static_peak_memory", "live_tensors", "static peak", "memory", "bytes",
        "largest sum of live tensor bytes while the full-size program runs without data",
        exact=True,
    ),
    Metric(
        "static_loaded_memory", "weights_and_cache", "static loaded", "memory", "bytes",
        "live tensor bytes before the program starts",
        exact=True,
    ),
    Metric(
        "static_operations", "matrix_products", "operations", "count", "operations",
        "2 for each multiply-add of matrix products and attention in the full-size program",
        exact=True,
    ),
    Metric(
        "static_traffic", "operands_and_results", "traffic", "count", "bytes",
        "sum over dispatched operators of the bytes of their tensor operands and results,"
        " views excluded",
        exact=True,
    ),
    Metric(
        "static_traffic", "at_least", "least traffic", "count", "bytes",
        "bytes that operators read of what was alive before the call, and write to it, each once,"
        " and bytes of what the call makes and leaves; of views that overlap the larger counts",
        exact=True,
    ),
    Metric(
        "static_operators", "dispatched", "operators", "count", "calls",
        "operators that the framework dispatches for the full-size program, views excluded",
        exact=True,
        within_toolchain=True,
    ),
    *(_at_peak(*words) for words in _AT_PEAK),
    Metric(
        "static_graph_breaks", "aot_eager", "graph breaks", "count", "breaks",
        "places where torch.compile leaves the graph for Python, over all lengths of the program;"
        " traced under fake tensors",
        exact=True,
        within_toolchain=True,
    ),
    Metric(
        "static_recompiles", "aot_eager", "recompiles", "count", "graphs",
        "graphs that torch.compile makes again because a length does not fit those made before;"
        " traced under fake tensors",
        exact=True,
        within_toolchain=True,
    ),
    Metric(
        "static_peak_memory", "compiled_hbm", "HBM peak", "memory", "bytes",
        "arguments + outputs - aliased + temporaries of one chip, as XLA compiled the program",
        exact=True,
    ),
    Metric(
        "static_arguments", "compiled_hbm", "HBM arguments", "memory", "bytes",
        "bytes of one chip that the arguments take, with their padding",
        exact=True,
    ),
    Metric(
        "static_temporaries", "compiled_hbm", "HBM temporary", "count", "bytes",
        "bytes of one chip that XLA reserves for what is neither argument nor output",
        gated=False,
        exact=True,
    ),
    Metric(
        "static_outputs", "compiled_hbm", "HBM outputs", "count", "bytes",
        "bytes of one chip that the outputs take, with those that take an argument's memory over",
        gated=False,
        exact=True,
    ),
    Metric(
        "static_aliased", "compiled_hbm", "HBM aliased", "count", "bytes",
        "bytes of one chip of outputs that take a donated argument's memory over",
        gated=False,
        exact=True,
    ),
    Metric(
        "static_peak_share", "weights_and_cache", "peak/needed", "count", "times",
        "HBM peak / (weights + live cache of one chip)",
        gated=False,
        exact=True,
    ),
    Metric(
        "static_traffic", "compiled_hbm", "HBM traffic", "count", "bytes",
        "bytes that the scheduled program reads from and writes to one chip's memory, an update in"
        " place and a slice at their own size",
        exact=True,
    ),
    Metric(
        "static_traffic_share", "weights_and_cache", "traffic/needed", "count", "times",
        "HBM traffic / (weights + live cache of one chip), which a decode step reads once",
        gated=False,
        exact=True,
    ),
    Metric(
        "static_traffic", "xla_bytes_accessed", "XLA's bytes", "count", "bytes",
        "XLA's own `bytes accessed`: every operand and result of every operation at full size",
        gated=False,
        exact=True,
    ),
    Metric(
        "static_operations", "compiled_matrix_products", "matrix ops", "count",
        "operations",
        "2 for each multiply-add of the matrix products that XLA compiled for one chip",
        exact=True,
    ),
    Metric(
        "static_least_time", "slice", "least time", "count", "s",
        "the larger of HBM traffic / the chip's bandwidth and matrix operations / its peak",
        gated=False,
        exact=True,
    ),
    Metric(
        "static_throughput_bound", "slice", "at most", "count", "tokens/s",
        "batch / least time of the decode step, on all chips of the slice",
        gated=False,
        exact=True,
    ),
    *(metric for words in _COLLECTIVES for metric in _of_collective(*words)),
    Metric(
        "static_fusions", "compiled", "fusions", "count", "calls",
        "fusions in the scheduled program, those in a loop's body once",
        exact=True,
        within_toolchain=True,
    ),
    Metric(
        "static_executable", "generated_code", "executable", "memory", "bytes",
        "bytes of the code that XLA generated for one chip",
        exact=True,
        within_toolchain=True,
    ),
    Metric(
        "static_registers", "per_thread", "registers", "count", "regs",
        "registers that each thread of a compiled kernel takes",
        exact=True,
        limit=0.05,
    ),
    Metric(
        "static_spill_stores", "per_thread", "spill stores", "count", "bytes",
        "bytes that a thread's spill instructions write, each counted once: ptxas' own figure",
        exact=True,
    ),
    Metric(
        "static_spill_loads", "per_thread", "spill loads", "count", "bytes",
        "bytes that a thread's spill instructions read, each counted once: ptxas' own figure",
        exact=True,
    ),
    Metric(
        "static_local_memory", "per_thread", "local memory", "count", "bytes",
        "bytes of each thread's stack, in which its spills lie",
        exact=True,
    ),
    Metric(
        "static_shared_memory", "per_block", "shared memory", "count", "bytes",
        "bytes of shared memory, static and dynamic, that a block of a compiled kernel takes",
        exact=True,
        limit=0.01,
    ),
    Metric(
        "static_instructions", "sass", "instructions", "count", "instr",
        "machine instructions in the code of a compiled kernel, those in a loop once, NOP none",
        exact=True,
        within_toolchain=True,
        limit=0.05,
    ),
    Metric(
        "static_idle_warps", "occupancy_bound", "idle warps", "count", "warps",
        "warps of a multiprocessor that the kernel can not fill: 64 - those of the blocks that"
        " registers, shared memory and warps let in at a time",
        exact=True,
    ),
)  # fmt: skip

METRICS: dict[str, Metric] = {metric.id: metric for metric in _ALL}

DEFAULT_LIMITS: dict[str, float] = {"time": 0.05, "throughput": 0.05, "memory": 0.01, "count": 0.0}


def metric(metric_id: str) -> Metric:
    """The metric of that id; an unknown one is a defect of the caller."""
    return METRICS[metric_id]


def matching(selector: str) -> list[Metric]:
    """The metrics that a kind ("time"), a name ("time_to_first_token"), a title or an id names.

    Raises OptionError listing the known words when none matches.
    """
    word = selector.strip()
    found = [m for m in _ALL if word.lower() in (m.kind, m.name, m.id, m.title.lower())]
    if not found:
        kinds = ", ".join(DEFAULT_LIMITS)
        names = ", ".join(dict.fromkeys(m.name for m in _ALL))
        raise OptionError(f"unknown metric {word!r}; known kinds: {kinds}; known names: {names}")
    return found


def ratio(of: Metric, target: float, baseline: float) -> float:
    """Below 1 is better: target / baseline, for a throughput baseline / target.

    From the documents' "knowledge 4". A count may be 0 on either side: 0 against 0 is 1.
    """
    over, under = (baseline, target) if of.kind == "throughput" else (target, baseline)
    if under == 0:
        return 1.0 if over == 0 else math.inf
    return over / under


def refusal(of: Metric, value: float) -> str | None:
    """Why a value cannot be a figure of this metric, or None."""
    if not math.isfinite(value):
        return f"{of.id} is {value}, which is not a finite number"
    if value < 0 or (value == 0 and of.kind != "count"):
        return f"{of.id} is {value} {of.unit}, which must be above zero"
    return None


_STEPS: dict[str, tuple[tuple[float, str], ...]] = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")),
    "bytes": ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")),
    "bytes/s": ((1e12, "TB/s"), (1e9, "GB/s"), (1e6, "MB/s"), (1.0, "B/s")),
    "tokens/s": ((1e6, "Mtok/s"), (1e3, "ktok/s"), (1.0, "tok/s")),
    "operations/s": ((1e12, "Top/s"), (1e9, "Gop/s"), (1e6, "Mop/s"), (1.0, "op/s")),
    "operations": ((1e12, "Top"), (1e9, "Gop"), (1e6, "Mop"), (1.0, "op")),
    "calls": ((1.0, "calls"),),
    "requests": ((1.0, "req"),),
    "requests/s": ((1.0, "req/s"),),
}


def display(of: Metric, value: float) -> str:
    """The value for people, four digits and a unit: `12.41 ms`, `17.86 GB`."""
    return in_unit(of.unit, value)


def in_unit(stored: str, value: float) -> str:
    """A value of one of the stored units for people; another unit is shown as it is."""
    if stored == "times":
        return f"{value:.3f} times"
    steps = _STEPS.get(stored, ((1.0, stored),))
    size, unit = next((step for step in steps if abs(value) >= step[0]), steps[-1])
    shown = value / size
    if stored == "calls" or (size == 1.0 and unit == "B"):
        return f"{shown:.0f} {unit}"
    return f"{shown:.4g} {unit}" if shown < 1000 else f"{shown:.0f} {unit}"
