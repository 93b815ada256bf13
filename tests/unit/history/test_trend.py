"""Series out of a history: which points belong together, and in what order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

pytest.importorskip("pyarrow", reason="a history is Parquet files")
pytest.importorskip("fsspec", reason="a history is where fsspec finds it")
pytest.importorskip("pandas", reason="a history is read into pandas")

from perfsuite import load_history
from perfsuite.history import store
from perfsuite.history.place import Place
from perfsuite.history.revision import Revision
from perfsuite.history.store import Run
from perfsuite.history.trend import Series, series, verdicts

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)  # hour 0 of `make_run`


def _one(place: Place) -> Series:
    (one,) = series(load_history(place.text))
    return one


def test_values_in_the_order_of_their_runs(place: Place, fill: Callable[..., list[str]]) -> None:
    """Appended in any order, by several runners."""
    third, first, second = fill(3, 1, 2)
    one = _one(place)
    assert one.values == (1, 2, 3)
    assert one.runs == (first, second, third)
    assert one.commits == ("c1", "c2", "c3")
    assert one.times == tuple(BEGIN + timedelta(hours=hour) for hour in (1, 2, 3))


def test_a_commit_stands_at_its_own_time(place: Place, make_run: Callable[..., Run]) -> None:
    """A runner whose clock is a year ahead, and a run of an old commit today, stand where they
    belong; where no commit is known, the run's time decides."""
    for hour, commit_hour, value in ((8760, 2, 20), (4, 1, 10), (5, 3, 30), (2.5, None, 25)):
        time = None if commit_hour is None else BEGIN + timedelta(hours=commit_hour)
        run = make_run(hour, value, revision=Revision(f"c{value}", time, "main"))
        store.append(place, run)
    one = _one(place)
    assert one.values == (10, 20, 25, 30)
    assert one.times == tuple(BEGIN + timedelta(hours=hour) for hour in (1, 2, 2.5, 3))


def test_equal_times_keep_all_points_in_a_stable_order(
    place: Place, make_run: Callable[..., Run]
) -> None:
    """Two commits of one time: by the runs' times; two runs of one moment: by their ids."""
    at = BEGIN - timedelta(hours=1)
    runs = [
        make_run(2, 1, revision=Revision("b", at, "")), make_run(1, 2, revision=Revision("a", at)),
        make_run(1, 3, revision=Revision("a", at)), make_run(1, 4, revision=Revision("a", at)),
    ]  # fmt: skip
    for run in runs:
        store.append(place, run)
        load_history(place.text)  # the index meets them in this order, which must not matter
    later = sorted(runs[1:], key=lambda run: run.id)
    expected = (*(run.id for run in later), runs[0].id)
    assert _one(place).runs == expected
    frame = load_history(place.text)
    assert series(frame.sample(frac=1, random_state=3))[0].runs == expected


def test_what_can_not_be_compared_is_another_series(
    place: Place, make_run: Callable[..., Run]
) -> None:
    """Each part of the key; commit, branch, toolchain and configuration are none of it."""
    store.append(place, make_run(0))
    changes = {
        "machine": "gpu", "suite": "b.py", "workload": "w2", "engine": "e2", "scale": "full",
        "tier": "static", "metric": "vllm_bench/mean_ttft_ms", "part": "warm", "unit": "ms",
        "source": "vllm_bench",
    }  # fmt: skip
    for name, value in changes.items():
        store.append(place, make_run(1, **{name: value}))
    for name in ("toolchain", "config", "disturbance", "test"):
        store.append(place, make_run(2, **{name: "another"}))
    store.append(place, make_run(2, revision=Revision("z", None, "topic")))
    many = series(load_history(place.text))
    assert len(many) == 1 + len(changes)
    assert len({one.key for one in many}) == len(many)
    assert many == sorted(many, key=lambda one: one.key)
    assert sorted(len(one.values) for one in many) == [1] * len(changes) + [6]


def test_what_means_nothing_is_no_point(place: Place, make_run: Callable[..., Run]) -> None:
    """VOID, the other figures of a test whose contract was broken, and figures without a value."""
    store.append(place, make_run(1))
    store.append(place, make_run(2, None))
    store.append(place, make_run(3, void=True))
    store.append(place, make_run(4, None, void=True, metric="contract", verdict="VOID"))
    assert len(load_history(place.text)) == 4
    assert _one(place).values == (1,)


def test_no_rows_are_no_series(place: Place, make_run: Callable[..., Run]) -> None:
    """Of an empty history, and of one with nothing but broken contracts."""
    store.append(place, Run([], Revision()))
    assert series(load_history(place.text)) == []
    store.append(place, make_run(1, void=True))
    assert series(load_history(place.text)) == []


def test_verdicts_follow_their_points(place: Place, make_run: Callable[..., Run]) -> None:
    """In the order of the series, whatever else the frame has."""
    for hour, verdict in ((3, "WORSE"), (1, "NEW"), (2, "SAME")):
        store.append(place, make_run(hour, verdict=verdict))
        store.append(place, make_run(hour, verdict="SHOWN", part="other"))
    frame = load_history(place.text)
    one, other = series(frame)
    assert verdicts(frame, one) == ["NEW", "SAME", "WORSE"]
    assert verdicts(frame, other) == ["SHOWN"] * 3


@pytest.mark.parametrize(
    ("metric", "unit", "larger"),
    [
        ("time_to_first_token/prefill_until_first_token", "s", False),
        ("call_throughput/tokens_per_call", "tokens/s", True),
        ("speedup/over_noshared", "times", True),
        ("vllm_bench/output_throughput", "tokens/s", True),
        ("vllm_bench/mean_tpot_ms", "ms", False),
    ],
)
def test_which_way_is_better(
    place: Place, make_run: Callable[..., Run], metric: str, unit: str, larger: bool
) -> None:
    """By the metric's kind; of others' metrics by their unit."""
    store.append(place, make_run(1, metric=metric, unit=unit))
    one = _one(place)
    assert one.larger_is_better is larger
    assert one.figure == metric
    assert replace(one, part="warm").figure == f"{metric}@warm"
