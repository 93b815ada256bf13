"""What a test's neighbours make of it: which they are, which way round, what is said without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from perfsuite.metrics import METRICS, ratio
from perfsuite.neighbours import RELATIONS, Derived, Ran, comes_last, derive
from perfsuite.results import Row
from perfsuite.verdict import Verdict
from perfsuite.workloads import Workload, load_catalogue, smoke_catalogue

DECODE = "decode_throughput/decode_steps"
ATTENTION = "attention_time/flushed_call"
SPEEDUP, SHARE = "speedup/over_noshared", "share_of/noattention"
OVER_BASE = "speedup/attention_over_base"


@pytest.fixture
def ran(make_workload: Callable[..., Workload]) -> Callable[..., Ran]:
    """A test of kind "shared" whose processes decoded at these rates."""

    def make(mode: str, *rates: float, engine: str = "fast", **changes: Any) -> Ran:
        facts, is_void = changes.pop("facts", {}), changes.pop("is_void", False)
        figure = changes.pop("figure", DECODE)
        fields = {"id": f"hydragen-{mode}", "kind": "shared", "mode": mode, "shared_tokens": 6,
                  "input_tokens": 0, "document": "hydragen"}  # fmt: skip
        workload = make_workload(**{**fields, **changes})
        return Ran(workload, engine, [[{figure: rate} for rate in rates]], facts, is_void)

    return make


def test_a_speedup_is_above_1_where_sharing_is_faster(ran: Callable[..., Ran]) -> None:
    """Planted: computed upside down, four times as fast would be a quarter."""
    own = ran("hydragen", 400.0, 420.0, 390.0)
    found = derive(own, [ran("hydragen_noshared", 100.0, 100.0, 100.0)])
    assert found.samples == {SPEEDUP: [[4.0], [4.2], [3.9]]}
    assert found.counts == {SPEEDUP: [3]}
    assert found.over == {SPEEDUP: "hydragen-hydragen_noshared on fast"}
    assert found.absent.keys() == {SHARE}


def test_of_times_the_shorter_is_the_faster(ran: Callable[..., Ran]) -> None:
    """Attention in a quarter of the time is four times as fast."""
    kind = {"kind": "attention", "figure": ATTENTION}
    found = derive(ran("hydragen", 0.5, **kind), [ran("base", 2.0, **kind)])
    assert found.samples == {OVER_BASE: [[4.0]]}
    assert not found.absent


def test_the_share_of_noattention_is_of_any_prefix(ran: Callable[..., Ran]) -> None:
    """The document runs it at one prefix; sharing is compared with its own prefix alone."""
    own = ran("hydragen", 60.0, shared_tokens=16)
    others = [ran("noattention", 80.0), ran("hydragen_noshared", 30.0)]
    found = derive(own, others)
    assert found.samples == {SHARE: [[0.75]]}
    assert "hydragen_noshared of these sizes was not measured" in found.absent[SPEEDUP]


@pytest.mark.parametrize(
    "changes",
    [{"batch": 4}, {"shared_tokens": 7}, {"output_tokens": 5}, {"dtype": "bfloat16"},
     {"scale": "full-other"}, {"kind": "generate"}, {"document": "llm"}],
)  # fmt: skip
def test_a_workload_of_another_size_is_no_neighbour(
    ran: Callable[..., Ran], changes: dict[str, Any]
) -> None:
    """Planted: a neighbour of another batch would give a figure of two questions."""
    found = derive(ran("hydragen", 4.0), [ran("hydragen_noshared", 1.0, **changes)])
    assert not found.samples
    assert "was not measured before it in this run" in found.absent[SPEEDUP]


def test_without_attention_its_own_prefix_goes_before_another(ran: Callable[..., Ran]) -> None:
    """Else the first that ran: it makes no difference."""
    own = ran("hydragen", 60.0, shared_tokens=16)
    others = [ran("noattention", rate, shared_tokens=n) for rate, n in ((80.0, 6), (120.0, 16))]
    assert derive(own, others).samples[SHARE] == [[0.5]]
    assert derive(own, others[:1]).samples[SHARE] == [[0.75]]


def test_processes_are_paired_by_their_number(ran: Callable[..., Ran]) -> None:
    """What one has more of is left out; sessions stay apart."""
    own, other = ran("hydragen"), ran("hydragen_noshared")
    mine = [[{DECODE: 2.0}, {DECODE: 4.0}, {DECODE: 8.0}], [{DECODE: 3.0}]]
    its = [[{DECODE: 1.0}, {DECODE: 2.0}], [{DECODE: 1.0}, {DECODE: 1.0}]]
    found = derive(Ran(own.workload, "fast", mine), [Ran(other.workload, "fast", its)])
    assert found.samples[SPEEDUP] == [[2.0], [2.0], [3.0]]
    assert found.counts[SPEEDUP] == [2, 1]


def test_the_same_engine_goes_before_another(ran: Callable[..., Ran]) -> None:
    """The only other one is taken where it has none, and its name told; of two others neither."""
    own = ran("hydragen", 4.0)
    same, torch = (
        ran("hydragen_noshared", rate, engine=e) for rate, e in ((2.0, "fast"), (1.0, "torch"))
    )
    third = ran("hydragen_noshared", 3.0, engine="third")
    assert derive(own, [torch, same]).samples[SPEEDUP] == [[2.0]]
    other = derive(own, [torch])
    assert other.samples[SPEEDUP] == [[4.0]]
    assert other.over[SPEEDUP] == "hydragen-hydragen_noshared on torch"
    assert "several could be compared with" in derive(own, [torch, third]).absent[SPEEDUP]


def test_a_void_neighbour_gives_nothing(ran: Callable[..., Ran]) -> None:
    """And is named; so is one that did not give the figure."""
    own = ran("hydragen", 4.0)
    void = derive(own, [ran("hydragen_noshared", 1.0, is_void=True)])
    assert void.absent[SPEEDUP] == "hydragen-hydragen_noshared on fast is VOID"
    other = derive(own, [ran("hydragen_noshared", 1.0, figure=ATTENTION)])
    assert f"share no {DECODE}" in other.absent[SPEEDUP]


@pytest.mark.parametrize("mode", ["hydragen_noshared", "noattention", "vllm"])
def test_only_the_technique_has_such_figures(ran: Callable[..., Ran], mode: str) -> None:
    """Its neighbours have no rows for it."""
    found = derive(ran(mode, 1.0), [ran("hydragen", 4.0), ran("hydragen_noshared", 1.0)])
    assert (found.samples, found.absent) == ({}, {})


def test_other_documents_have_none(make_workload: Callable[..., Workload]) -> None:
    """No row, no word."""
    found = derive(Ran(make_workload(), "fast", [[{DECODE: 1.0}]]), [])
    assert found == Derived()


def test_what_is_absent_is_told(ran: Callable[..., Ran]) -> None:
    """A row of its own, or a word at the row of a baseline that has it; what is there stays."""
    found = derive(ran("hydragen", 4.0), [ran("noattention", 5.0)])
    share = Row(SHARE, Verdict.UNSURE, may_settle=True)
    own = Row(DECODE, Verdict.UNSURE, may_settle=True)
    told = found.told([own, share])
    assert [row.figure for row in told] == [DECODE, SHARE, SPEEDUP]
    assert [row.may_settle for row in told] == [True, False, False]
    assert told[2].verdict is Verdict.SHOWN
    assert told[2].note.startswith("absent: hydragen_noshared of these sizes")
    gone = found.told([Row(SPEEDUP, Verdict.GONE, note="the baseline has this figure")])
    assert len(gone) == 1
    assert "hydragen_noshared of these sizes was not measured" in gone[0].note


def test_what_a_process_could_not_give_is_told_too(ran: Callable[..., Ran]) -> None:
    """Its facts name the figure and the reason, in any mode."""
    words = {"absent": {"wrong_answers/exact_match": "random weights"}}
    told = derive(ran("no_attention", kind="needles", facts=words), []).told([])
    assert [(row.figure, row.note) for row in told] == [
        ("wrong_answers/exact_match", "absent: random weights")
    ]


def answers(ran: Callable[..., Ran], mode: str, *words: str, **facts: Any) -> Ran:
    """A needles test with answers of these digests."""
    said = {"2": " ".join(words[:2]), "4": " ".join(words)} if words else None
    return ran(mode, kind="needles", facts=facts | ({"answers": said} if said else {}))


def test_equal_answers_pass(ran: Callable[..., Ran]) -> None:
    """However the prefix is read, the same is said."""
    own, other = (answers(ran, mode, *"abcd") for mode in ("hydragen", "disable_hydragen"))
    assert derive(own, [other]) == Derived()


@pytest.mark.parametrize(
    ("words", "told"),
    [("abXd", "of 4 questions number 3 is the first"), ("aXXd", "of 2 questions number 2 is"),
     ("abc", "did not answer 4 questions")],
)  # fmt: skip
def test_unequal_answers_break_the_contract(
    ran: Callable[..., Ran], words: Sequence[str], told: str
) -> None:
    """The first question that differs is named, and with whom."""
    own, other = answers(ran, "hydragen", *"abcd"), answers(ran, "disable_hydragen", *words)
    found = derive(own, [other])
    assert told in found.broken
    assert "hydragen-disable_hydragen on fast" in found.broken


def test_answers_that_can_not_be_compared_are_told(ran: Callable[..., Ran]) -> None:
    """No neighbour, or near ties: a row says so, nothing is called equal."""
    own, why = answers(ran, "hydragen", *"abcd"), "near ties"
    assert "disable_hydragen of these sizes" in derive(own, []).absent["equal_answers"]
    near = answers(ran, "disable_hydragen", answers_not_compared=why)
    assert derive(own, [near]).absent["equal_answers"] == why
    (row,) = derive(own, [near]).told([])
    assert (row.verdict, row.note) == (Verdict.SHOWN, "absent: near ties")


def test_the_catalogue_has_neighbours_at_both_sizes() -> None:
    """Not every cell has them: copies of a prefix did not fit at large batches."""
    for cells, fewest in ((smoke_catalogue(load_catalogue()), 0.4), (load_catalogue(), 0.2)):
        for relation in RELATIONS:
            own = [w for w in cells if (w.mode, w.kind) == ("hydragen", relation.kind)]
            paired = [w for w in own if any(relation.holds(w, other) for other in cells)]
            assert own
            assert len(paired) >= fewest * len(own), relation.figure
            assert all(map(comes_last, own))


def test_every_derived_figure_is_a_metric() -> None:
    """Larger is better, and a self-test, which slows both sides, does not ask for it."""
    for relation in RELATIONS:
        of = METRICS[relation.figure]
        assert of.derived
        assert ratio(of, 2.0, 4.0) == 2.0
