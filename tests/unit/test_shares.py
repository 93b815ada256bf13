"""The share of the ceiling: exactly 1 for a machine at its floor, by every metric."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from statistics import median
from typing import Any

import pytest

from perfsuite.metrics import METRICS
from perfsuite.roofline import Ceilings, attention_parts, decode_parts, floor_s, prefill_parts
from perfsuite.shares import CACHE_FACTOR, hides_in_cache, share
from perfsuite.workloads import Workload

# Slow memory, slow arithmetic, and one where each binds some part of the tiny model.
MACHINES = [Ceilings(100.0, 1e9), Ceilings(1e9, 100.0), Ceilings(1000.0, 1500.0)]
SHAPES: list[dict[str, Any]] = [
    {},
    {"mode": "noattention"},
    {"mode": "hydragen", "shared_tokens": 6, "input_tokens": 0},
    {"mode": "hydragen_noshared", "shared_tokens": 6, "input_tokens": 0},
    {"cache_tokens": 3},
    {"output_tokens": 2},
]


def facts(machine: Ceilings, **others: Any) -> dict[str, Any]:
    """What a worker tells about its run."""
    return {"ceilings": {"bandwidth": machine.bandwidth, "peak": machine.peak}, **others}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("changes", SHAPES)
def test_a_machine_at_its_floor_has_all_of_its_ceiling(
    make_workload: Callable[..., Workload], machine: Ceilings, changes: dict[str, Any]
) -> None:
    """Latencies and throughputs of the floor's own times are a share of 1."""
    workload = make_workload(**changes)
    prefill = floor_s(prefill_parts(workload, 3), machine)
    decode = floor_s(decode_parts(workload, 3), machine)
    prompt, output = workload.input_tokens, workload.output_tokens
    figures = {
        "time_to_first_token/prefill_until_first_token": prefill,
        "time_per_output_token/excluding_first_token": decode / (output - 1),
        "decode_throughput/decode_steps": 3 * (output - 1) / decode,
        "multi_user_throughput/prompt_and_output_tokens_best_batch": (
            3 * (prompt + output) / (prefill + decode)
        ),
    }
    if prompt:
        figures["prompt_throughput/batch"] = 3 * prompt / prefill
    ran = facts(machine, batch=3)
    for metric_id, value in figures.items():
        assert share(metric_id, value, workload, ran) == pytest.approx(1), metric_id


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("changes", [{}, {"cache_tokens": 3}, {"output_tokens": 2}])
def test_slots_at_the_floor(
    make_workload: Callable[..., Workload], machine: Ceilings, changes: dict[str, Any]
) -> None:
    """Each prompt reads the weights for itself; inserting takes no time at best."""
    workload = make_workload(**changes)
    prefill = floor_s(prefill_parts(workload, 1), machine)
    output = workload.output_tokens
    step = floor_s(decode_parts(workload, 3), machine) / (output - 1)
    figures = {
        "prompt_throughput/one_sequence_at_a_time": workload.input_tokens / prefill,
        "decode_step_time/all_slots_filled": step,
        "max_throughput/decode_only": 3 / step,
        "max_throughput/serial_prefill_and_decode": 3 * output / (3 * prefill + output * step),
    }
    for metric_id, value in figures.items():
        reached = share(metric_id, value, workload, facts(machine, batch=3))
        assert reached == pytest.approx(1), metric_id
    assert share("insert_time/one_slot", 1.0, workload, facts(machine, batch=3)) is None


@pytest.mark.parametrize("machine", MACHINES)
def test_a_single_user_at_the_floor(
    make_workload: Callable[..., Workload], machine: Ceilings
) -> None:
    """Both definitions of the throughput are 1; the prompt's best batch has a floor of its own."""
    workload = make_workload()
    parts = prefill_parts(workload, 1) + decode_parts(workload, 1)
    seconds = floor_s(parts, machine)
    ran = facts(machine, batch=1, prompt_batch=8)
    figures = {
        "single_user_throughput/output_tokens": 4 / seconds,
        "single_user_throughput/prompt_and_output_tokens": 9 / seconds,
        "max_prompt_throughput/best_batch": 8 * 5 / floor_s(prefill_parts(workload, 8), machine),
    }
    for metric_id, value in figures.items():
        assert share(metric_id, value, workload, ran) == pytest.approx(1), metric_id


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("changes", SHAPES[:4])
def test_the_median_step_of_a_machine_at_its_floor_is_not_beyond_it(
    make_workload: Callable[..., Workload], machine: Ceilings, changes: dict[str, Any]
) -> None:
    """Steps grow with the text; their median is not below the mean that the floor gives."""
    fields = {"output_tokens": 9, **changes}
    workload = make_workload(**fields)
    whole = [
        floor_s(decode_parts(make_workload(**{**fields, "output_tokens": n}), 3), machine)
        for n in range(1, workload.output_tokens + 1)
    ]
    step = median(later - earlier for earlier, later in pairwise(whole))
    reached = share("inter_token_latency/median_step", step, workload, facts(machine, batch=3))
    assert reached is not None
    assert reached <= 1 + 1e-9


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("mode", ["base", "hydragen"])
def test_attention_alone_at_its_floor(
    make_workload: Callable[..., Workload], machine: Ceilings, mode: str
) -> None:
    """Neither weights nor logits are part of it."""
    workload = make_workload(kind="attention", mode=mode, shared_tokens=6, input_tokens=0)
    least = floor_s(attention_parts(workload, 3), machine)
    reached = share("attention_time/flushed_call", 2 * least, workload, facts(machine, batch=3))
    assert reached == pytest.approx(0.5)


def test_a_text_has_the_tokens_that_it_has(make_workload: Callable[..., Workload]) -> None:
    """The floor of needles' prefill is of the prefix that ran, not of the one that was expected."""
    workload = make_workload(kind="needles", mode="hydragen", shared_tokens=6, input_tokens=0)
    ran = facts(MACHINES[2], batch=3, prefix_tokens=12)
    least = floor_s(prefill_parts(workload.sized(shared_tokens=12), 3), MACHINES[2])
    first = "time_to_first_token/prefill_until_first_token"
    assert share(first, least, workload, ran) == pytest.approx(1)


def test_twice_as_slow_is_half_of_the_ceiling(make_workload: Callable[..., Workload]) -> None:
    """For a time and for a throughput."""
    workload, machine = make_workload(), MACHINES[2]
    prefill = floor_s(prefill_parts(workload, 3), machine)
    decode = floor_s(decode_parts(workload, 3), machine)
    ran = facts(machine, batch=3)
    first = "time_to_first_token/prefill_until_first_token"
    assert share(first, 2 * prefill, workload, ran) == pytest.approx(0.5)
    rate = 3 * 3 / (2 * decode)
    assert share("decode_throughput/decode_steps", rate, workload, ran) == pytest.approx(0.5)


def test_without_a_floor_there_is_no_share(make_workload: Callable[..., Workload]) -> None:
    """Memory and counts have no ceiling, and nothing has one where none was shown."""
    ran = facts(MACHINES[0], batch=3, prompt_batch=2)
    without = {m.id for m in METRICS.values() if share(m.id, 1.0, make_workload(), ran) is None}
    assert {m.kind for m in METRICS.values() if m.id in without} >= {"memory", "count"}
    throughputs = {m.id for m in METRICS.values() if m.kind == "throughput" and m.gated}
    derived = {m.id for m in METRICS.values() if m.derived}
    assert without & throughputs == derived | {
        "call_throughput/tokens_per_call",
        "decode_throughput/all_less_first_token",  # a difference of two times may be below
        "output_throughput/whole_run",  # requests that come one by one: no batch to count with
    }
    assert share("time_to_first_token/prefill_until_first_token", 1.0, make_workload(), {}) is None


def test_a_working_set_near_the_cache_hides(make_workload: Callable[..., Workload]) -> None:
    """Up to four times the last-level cache: 388 weights and 27 tokens of 8 values in float32."""
    size = (388 + 3 * 9 * 8) * 4
    ran = {"batch": 3}
    assert hides_in_cache(make_workload(), ran, size // CACHE_FACTOR)
    assert not hides_in_cache(make_workload(), ran, size // CACHE_FACTOR - 1)
    assert not hides_in_cache(make_workload(), ran, 0)
