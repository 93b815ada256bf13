"""Figures that two tests of one run make together: a technique against doing without. Pure.

A cell of Hydragen's grids has neighbours that differ from it in the mode alone: the same sizes
without sharing, and without attention. What it gains over them is a figure of its own test, judged
per cell like any other. It is made process by process: processes of one number are compared, and
each process gives one value, the ratio of its two medians.

A neighbour is measured before (`comes_last` sorts the tests). Where it did not run in this process
of pytest, or its contract was broken, the figure is absent and said to be; it is never guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from perfsuite.metrics import METRICS, ratio
from perfsuite.results import Row
from perfsuite.verdict import Verdict
from perfsuite.workloads import Workload

_DECODE = "decode_throughput/decode_steps"
_ATTENTION = "attention_time/flushed_call"
_SAME = ("document", "scale", "kind", "model", "dtype", "batch", "input_tokens", "output_tokens",
         "cache_tokens")  # fmt: skip


@dataclass(frozen=True)
class Relation:
    """A derived figure of a test in mode "hydragen": its advantage in `source` over a mode."""

    figure: str
    kind: str
    over: str
    source: str
    any_prefix: bool = False  # the other mode runs one prefix alone: it makes no difference there

    def holds(self, own: Workload, other: Workload) -> bool:
        """Whether the second workload is the neighbour of the first."""
        return (
            (own.mode, other.mode) == ("hydragen", self.over)
            and own.kind == self.kind
            and all(getattr(own, name) == getattr(other, name) for name in _SAME)
            and (self.any_prefix or own.shared_tokens == other.shared_tokens)
        )


RELATIONS = (
    Relation("speedup/over_noshared", "shared", "hydragen_noshared", _DECODE),
    Relation("share_of/noattention", "shared", "noattention", _DECODE, any_prefix=True),
    Relation("speedup/attention_over_base", "attention", "base", _ATTENTION),
)
EQUAL = Relation("equal_answers", "needles", "disable_hydragen", "")


@dataclass(frozen=True)
class Ran:
    """A measured test: of each process of each session the median of every figure."""

    workload: Workload
    engine: str
    sessions: Sequence[Sequence[Mapping[str, float]]]
    facts: Mapping[str, Any] = field(default_factory=dict)
    is_void: bool = False

    @property
    def name(self) -> str:
        """`hydragen-...-b32 on torch_llama`."""
        return f"{self.workload.id} on {self.engine}"


@dataclass
class Derived:
    """What a test's neighbours made of it."""

    samples: dict[str, list[list[float]]] = field(default_factory=dict)
    counts: dict[str, list[int]] = field(default_factory=dict)  # processes of each session
    over: dict[str, str] = field(default_factory=dict)  # figure -> the neighbour
    absent: dict[str, str] = field(default_factory=dict)  # figure -> why there is none
    broken: str = ""  # why the test's contract is

    def told(self, rows: Iterable[Row]) -> list[Row]:
        """The rows with a word where a figure is absent; more processes settle no derived one."""
        found = [self._with_word(row) for row in rows]
        gone = {row.figure for row in found}
        return found + [
            Row(figure, Verdict.SHOWN, note=f"absent: {why}")
            for figure, why in self.absent.items()
            if figure not in gone
        ]

    def _with_word(self, row: Row) -> Row:
        if row.verdict is Verdict.GONE and row.figure in self.absent:
            return replace(row, note=f"{row.note}: {self.absent[row.figure]}")
        return replace(row, may_settle=False) if row.figure in self.samples else row


def comes_last(workload: Workload) -> bool:
    """Whether a test has neighbours that are to be measured before it."""
    kinds = {relation.kind for relation in (*RELATIONS, EQUAL)}
    return workload.mode == "hydragen" and workload.kind in kinds


def derive(own: Ran, others: Sequence[Ran]) -> Derived:
    """The figures of one test that its neighbours give, and whether its answers equal theirs."""
    found = Derived(absent=dict(own.facts.get("absent", {})))
    for relation in RELATIONS:
        if own.workload.mode == "hydragen" and own.workload.kind == relation.kind:
            _compare(found, relation, own, others)
    if own.workload.mode == "hydragen" and own.workload.kind == EQUAL.kind:
        _compare_answers(found, own, others)
    return found


def _compare(found: Derived, relation: Relation, own: Ran, others: Sequence[Ran]) -> None:
    other = _neighbour(relation, own, others)
    if isinstance(other, str):
        found.absent[relation.figure] = other
        return
    sessions = _ratios(relation.source, own, other)
    values = [value for session in sessions for value in session]
    if not values:
        found.absent[relation.figure] = f"{other.name} and this test share no {relation.source}"
        return
    found.samples[relation.figure] = [[value] for value in values]
    found.counts[relation.figure] = [len(session) for session in sessions if session]
    found.over[relation.figure] = other.name


def _neighbour(relation: Relation, own: Ran, others: Sequence[Ran]) -> Ran | str:
    """The neighbour, on the same engine where it has one; or why there is none."""
    beside = [other for other in others if relation.holds(own.workload, other.workload)]
    same = [other for other in beside if other.engine == own.engine]
    chosen = same or beside
    if not chosen:
        return f"{relation.over} of these sizes was not measured before it in this run"
    if len({other.engine for other in chosen}) > 1:
        return f"several could be compared with: {', '.join(other.name for other in chosen)}"
    first = min(chosen, key=lambda o: o.workload.shared_tokens != own.workload.shared_tokens)
    return f"{first.name} is VOID" if first.is_void else first


def _ratios(source: str, own: Ran, other: Ran) -> list[list[float]]:
    """Of each session, for each process that both have: the other's cost over one's own."""
    of = METRICS[source]
    return [
        [
            ratio(of, theirs[source], ours[source])
            for ours, theirs in zip(mine, its, strict=False)
            if source in ours and source in theirs
        ]
        for mine, its in zip(own.sessions, other.sessions, strict=False)
    ]


def _compare_answers(found: Derived, own: Ran, others: Sequence[Ran]) -> None:
    other = _neighbour(EQUAL, own, others)
    if isinstance(other, str):
        found.absent[EQUAL.figure] = other
    elif "answers" not in own.facts or "answers" not in other.facts:
        why = own.facts.get("answers_not_compared") or other.facts.get("answers_not_compared")
        found.absent[EQUAL.figure] = str(why or "no digest of the answers")
    else:
        found.broken = _difference(own.facts["answers"], other.facts["answers"], other.name)


def _difference(ours: Mapping[str, str], theirs: Mapping[str, str], name: str) -> str:
    """The first question that was answered otherwise, or nothing."""
    for count, digests in ours.items():
        pairs = zip(digests.split(), theirs.get(count, "").split(), strict=False)
        for number, (mine, its) in enumerate(pairs, start=1):
            if mine != its:
                return (
                    f"of {count} questions number {number} is the first whose answer differs from"
                    f" {name}'s: how the prefix is read must not change what is said"
                )
        if len(digests.split()) != len(theirs.get(count, "").split()):
            return f"{name} did not answer {count} questions, this test did"
    return ""
