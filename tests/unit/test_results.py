"""Results travel: to built-in types, through JSON and back, without a change."""

from __future__ import annotations

import json
from collections.abc import Callable

from perfsuite.judging import void
from perfsuite.results import Result, Row
from perfsuite.verdict import Verdict


def test_a_result_survives_json(make_result: Callable[..., Result]) -> None:
    """Verdicts, tuples, samples and configuration come back equal."""
    result = make_result(
        stands_for=("a", "b"),
        published=("peak 1 GB",),
        config={"dtype": "float32", "sizes": [1, 2]},
        disturbance="others",
        seconds=1.5,
        waivers={"the waiver of a": True},
        expired=("the waiver of b expired",),
        machine_state={"start": {"temperatures_c": {"k10temp": 60.0}}, "end": {}},
    )
    assert Result.from_dict(json.loads(json.dumps(result.as_dict()))) == result


def test_a_row_survives_json(
    make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """With its sessions, its waiver and its best."""
    row = make_row(sessions=(1, 2), waiver="waived", best=0.01, best_date="2026", drift=1.1)
    result = make_result(rows=(row, make_row()))
    assert Result.from_dict(json.loads(json.dumps(result.as_dict()))) == result


def test_a_result_as_a_dict_is_built_in_types(make_result: Callable[..., Result]) -> None:
    """What pytest-xdist can send: no enumeration, no class of ours."""

    def kinds(value: object) -> set[type]:
        inner = value.values() if isinstance(value, dict) else value
        below = set().union(*map(kinds, inner)) if isinstance(value, dict | list | tuple) else set()  # type: ignore[union-attr]
        return {type(value)} | below

    assert kinds(make_result().as_dict()) <= {dict, list, tuple, str, float, int, bool, type(None)}


def test_a_figure_is_metric_and_part(make_row: Callable[..., Row]) -> None:
    """The part is what the test called its call, empty where it named none."""
    row = make_row(figure="call_time/per_call@load")
    assert (row.metric_id, row.part) == ("call_time/per_call", "load")
    assert (make_row().part, make_row().metric_id) == ("", make_row().figure)


def test_one_void_figure_voids_the_result(
    make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """Nothing of a test whose contract was broken may be used."""
    assert make_result(rows=(make_row(), void("no")), samples={}).is_void
    assert not make_result(rows=(make_row(verdict=Verdict.UNSURE),)).is_void
    assert not make_result(rows=()).is_void
