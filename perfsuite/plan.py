"""What a collected test means to the gate: is it one of ours, its key, its options."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from perfsuite.baselines import Key
from perfsuite.cases import Case
from perfsuite.devices import machine_class, static_target
from perfsuite.errors import OptionError
from perfsuite.options import ItemOptions, Marker, Options, for_item, parse_marker

CASE = "perf_case"
_SUITE_MODULE = "perfsuite.suite"
_FIXTURES = pytest.StashKey[frozenset[str]]()


@dataclass(frozen=True)
class Plan:
    """A perf test: its case (None for a test of one's own), key, suite, and options."""

    nodeid: str
    test: str
    case: Case | None
    key: Key
    suite: str
    machine: str
    options: ItemOptions

    @property
    def is_static(self) -> bool:
        """Whether it compiles and compares, and measures nothing."""
        return self.case is not None and self.case.tier == "static"

    @property
    def is_served(self) -> bool:
        """Whether a server answers, whose processes may be the busiest of this machine."""
        return self.case is not None and self.case.workload.kind == "serving"

    @property
    def is_alone(self) -> bool:
        """Whether its document measures it in processes that run nothing else."""
        asked = self.case.workload.option("one_process_per_point") if self.case else None
        return asked == "true" and not self.is_static


def is_perf(item: pytest.Item) -> bool:
    """A test that takes `perf` or `benchmark`, or is marked `perf`."""
    names = _fixtures(item)
    return bool(names & {"perf", "benchmark"}) or item.get_closest_marker("perf") is not None


def uses_benchmark(item: pytest.Item) -> bool:
    """A test that pytest-benchmark measures."""
    names = _fixtures(item)
    return "benchmark" in names and "perf" not in names


def _fixtures(item: pytest.Item) -> frozenset[str]:
    """The fixtures that a test asked for when it was collected; later they may be emptied."""
    if _FIXTURES not in item.stash:
        item.stash[_FIXTURES] = frozenset(getattr(item, "fixturenames", ()))
    return item.stash[_FIXTURES]


def marker_of(item: pytest.Item) -> Marker:
    """The closest `perf` marker, checked; OptionError names the test."""
    marker = item.get_closest_marker("perf")
    try:
        return parse_marker(marker.args, marker.kwargs) if marker else Marker()
    except OptionError as problem:
        raise OptionError(f"{item.nodeid}: {problem}") from None


def plan_of(item: pytest.Item, options: Options) -> Plan:
    """The plan of a perf test."""
    case = case_of(item)
    test = item.nodeid.partition("::")[0]
    of_documents = case is not None and item.obj.__module__.startswith(_SUITE_MODULE)  # type: ignore[attr-defined]
    name = case.workload.id if of_documents and case else _own_name(item, case)
    static = case is not None and case.tier == "static"
    return Plan(
        nodeid=item.nodeid,
        test=test,
        case=case,
        key=_key(name, case, options.ranks),
        suite=case.workload.document if of_documents and case else test,
        machine=static_target(options.device, case.slice)
        if static and case
        else machine_class(options.device),
        options=for_item(options, marker_of(item)),
    )


def _own_name(item: pytest.Item, case: Case | None) -> str:
    name = item.nodeid.partition("::")[2]
    return name if case is None or case.offer is None else name.replace(case.id, case.name)


def case_of(item: pytest.Item) -> Case | None:
    """The case that a test was parametrised with."""
    spec = getattr(item, "callspec", None)
    return spec.params.get(CASE) if spec is not None else None


def scale_of(scale: str, ranks: int) -> str:
    """`smoke`, or `smoke x2` where two processes hold the model together."""
    return f"{scale} x{ranks}" if ranks > 1 else scale


def _key(name: str, case: Case | None, ranks: int) -> Key:
    if case is None or case.offer is None:
        return Key(name)
    return Key(name, case.offer.name, scale_of(case.workload.scale, ranks), case.tier)
