"""The share of the machine's ceiling that a figure reached, and when it is beyond physics. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfsuite.roofline import (
    Ceilings,
    attention_parts,
    decode_parts,
    floor_s,
    prefill_parts,
    working_set_bytes,
)
from perfsuite.workloads import Workload

BEYOND = 1.2  # times the ceiling: no measurement error explains more
CACHE_FACTOR = 4  # a working set this many times the last-level cache can not hide in it


def share(
    metric_id: str, value: float, workload: Workload, facts: Mapping[str, Any]
) -> float | None:
    """Floor time / measured time for a figure of a workload, None where no floor is known."""
    shown = facts.get("ceilings")
    if not shown:
        return None
    ceilings = Ceilings(**shown)
    if "prefix_tokens" in facts:  # of a text, by the tokenizer that was there
        workload = workload.sized(shared_tokens=facts["prefix_tokens"])
    floor = _floor_s(metric_id, workload, facts, ceilings)
    if floor is None:
        return None
    tokens = _tokens(metric_id, workload, facts)
    return floor * value / tokens if tokens else floor / value


def hides_in_cache(workload: Workload, facts: Mapping[str, Any], cache_bytes: int) -> bool:
    """Whether the memory ceiling is no bound, because the caches hold the working set."""
    return working_set_bytes(workload, int(facts.get("batch", 1))) <= CACHE_FACTOR * cache_bytes


def _floor_s(
    metric_id: str, workload: Workload, facts: Mapping[str, Any], ceilings: Ceilings
) -> float | None:
    batch = int(facts.get("batch", 1))
    prefill = floor_s(prefill_parts(workload, batch), ceilings)
    one_by_one = batch * floor_s(prefill_parts(workload, 1), ceilings)
    decode = floor_s(decode_parts(workload, batch), ceilings)
    step = decode / max(workload.output_tokens - 1, 1)
    match metric_id.split("/"):
        case ["prompt_throughput", "one_sequence_at_a_time"]:
            return one_by_one
        case ["max_throughput", "serial_prefill_and_decode"]:
            return one_by_one + workload.output_tokens * step
        case ["max_throughput" | "decode_step_time", _]:
            return step
        case ["time_to_first_token" | "prompt_throughput", _]:
            return prefill
        case ["max_prompt_throughput", _]:
            return floor_s(prefill_parts(workload, int(facts["prompt_batch"])), ceilings)
        case ["time_per_output_token" | "inter_token_latency", _]:
            return step
        case ["decode_throughput", "decode_steps"]:
            return decode
        case ["attention_time", _]:
            return floor_s(attention_parts(workload, batch), ceilings)
        case ["single_user_throughput" | "multi_user_throughput", _]:
            return prefill + decode
        case _:
            return None


def _tokens(metric_id: str, workload: Workload, facts: Mapping[str, Any]) -> float:
    """Tokens that a throughput counts in the floor's time, 0 for a time."""
    batch = int(facts.get("batch", 1))
    prompt, output = workload.input_tokens, workload.output_tokens
    match metric_id:
        case "single_user_throughput/output_tokens":
            return output
        case "single_user_throughput/prompt_and_output_tokens":
            return prompt + output
        case "multi_user_throughput/prompt_and_output_tokens_best_batch":
            return batch * (prompt + output)
        case "max_prompt_throughput/best_batch":
            return int(facts["prompt_batch"]) * prompt
        case "prompt_throughput/batch" | "prompt_throughput/one_sequence_at_a_time":
            return batch * prompt
        case "max_throughput/decode_only":
            return batch
        case "max_throughput/serial_prefill_and_decode":
            return batch * output
        case "decode_throughput/decode_steps":
            return batch * (output - 1)
        case _:
            return 0
