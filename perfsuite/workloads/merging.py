"""Workloads that ask the same question become one, which names those it stands for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from perfsuite.errors import PerfError
from perfsuite.workloads.workload import Model, Workload


class MergeError(PerfError):
    """Two workloads that differ in what is run came out under one id."""


def merge(named: Iterable[tuple[Workload, str]]) -> tuple[Workload, ...]:
    """One workload for each id, in order of first appearance.

    Each workload comes with the id of the one it was made from; `stands_for` gets those, sorted.
    What says where a cell comes from (place, device, iterations) is taken from the first. Raises
    MergeError when an id was given to two workloads that an engine would run differently.
    """
    first: dict[str, Workload] = {}
    origins: dict[str, set[str]] = {}
    for workload, origin in named:
        kept = first.setdefault(workload.id, workload)
        if _question(kept) != _question(workload):
            raise MergeError(f"{workload.id}: made from {origin} and others, but they differ")
        origins.setdefault(workload.id, set()).add(origin)
    return tuple(
        replace(workload, stands_for=tuple(sorted(origins[workload.id])))
        for workload in first.values()
    )


def _question(workload: Workload) -> Workload:
    """The workload without what only says where it comes from and how often it was repeated."""
    return replace(workload, place="", device="", iterations=0, warmup_iterations=0, stands_for=())


def with_checkpoint(workload: Workload, model: Model) -> Workload:
    """The workload asked of another model, whose name takes the place of the document's in the id.

    Where the id does not name the model, the new name follows the document's: `torchao-8192-normal`
    becomes `torchao-mine-8192-normal`.
    """
    name = id_part(model.name)
    parts = workload.id.split("-")
    if workload.model.name in parts:
        parts[parts.index(workload.model.name)] = name
    else:
        parts.insert(1, name)
    return replace(workload, id="-".join(parts), model=model)


def catalogue_with_checkpoint(workloads: Iterable[Workload], model: Model) -> tuple[Workload, ...]:
    """All workloads asked of one model; those that only differed in the model become one.

    Raises MergeError where they differ in more than that.
    """
    return merge((with_checkpoint(workload, model), workload.id) for workload in workloads)


def id_part(name: str) -> str:
    """A model's name as an id may contain it: lower case, everything not allowed as '_'."""
    return re.sub(r"[^a-z0-9_.]", "_", name.lower())
