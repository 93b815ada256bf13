"""Several processes that hold one model together, as torchrun starts them. Pure.

`torchrun --nproc_per_node=N -m pytest --perf` starts that command once for each rank. The pytest
process of rank 0 is the run: it collects, starts every worker once for each rank (gang.py),
decides, prints and saves. Those of the other ranks end at once and say nothing, so none of them can
disagree about what comes next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfsuite.errors import OptionError
from perfsuite.metrics import METRICS

COUNT_VARIABLE = "PERFSUITE_RANKS"  # how a worker knows that it is one of several
_LAUNCHED = "TORCHELASTIC_RUN_ID"


def rank_count(environment: Mapping[str, str]) -> int:
    """Processes that run one model together; 1 where torchrun started none.

    Raises OptionError where they are on several machines, or where a red run would be run again.
    """
    if COUNT_VARIABLE in environment:
        return int(environment[COUNT_VARIABLE])
    if _LAUNCHED not in environment:
        return 1
    count, here = (int(environment[name]) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if count != here:
        raise OptionError(
            f"torchrun started {count} processes, {here} of them on this machine: perfsuite starts"
            " its workers from rank 0, so all must be on one machine (--nnodes=1)"
        )
    restarts = int(environment.get("TORCHELASTIC_MAX_RESTARTS", "0"))
    if restarts:
        raise OptionError(
            f"torchrun --max-restarts={restarts} would run a red run again: give --max-restarts=0"
        )
    return count


def is_follower(environment: Mapping[str, str]) -> bool:
    """Whether torchrun started this pytest process as another rank than 0."""
    started = _LAUNCHED in environment and COUNT_VARIABLE not in environment
    return started and environment.get("RANK", "0") != "0"


def worst(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """What all ranks gave, of each the worst: the smallest throughput, the largest of the rest."""
    named = [name for name in figures[0] if all(name in other for other in figures)]
    return {
        name: (min if METRICS[name].kind == "throughput" else max)(one[name] for one in figures)
        for name in named
    }


def together(facts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What rank 0 tells of itself; bandwidths and peaks are those of all devices together."""
    shown = [one["ceilings"] for one in facts if "ceilings" in one]
    if len(shown) < len(facts):
        return facts[0]
    return facts[0] | {"ceilings": {name: sum(one[name] for one in shown) for name in shown[0]}}
