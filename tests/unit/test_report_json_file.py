"""The JSON of a run: our own results, and entries that other tools read as pytest-benchmark's."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import pytest

from perfsuite.judging import void
from perfsuite.report.json_file import write
from perfsuite.results import Result, Row

TTFT = "time_to_first_token/prefill_until_first_token"
DECODE = "decode_throughput/decode_steps"
PEAK = "peak_memory/allocator"


def written(folder: Path, results: list[Result], gone: Any = ()) -> dict[str, Any]:
    """The document as strict JSON gives it back."""
    path = folder / "deep/out.json"
    write(path, results, list(gone), folder)

    def refuse(text: str) -> float:
        raise AssertionError(f"{text} is no JSON")

    document: dict[str, Any] = json.loads(path.read_text(), parse_constant=refuse)
    assert os.listdir(path.parent) == ["out.json"]
    return document


def test_the_results_are_the_whole_truth(
    make_result: Callable[..., Result], tmp_path: Path
) -> None:
    """Every field of every result comes back, and what is gone."""
    results = [make_result(), make_result(nodeid="other")]
    document = written(tmp_path, results, [("key", "file")])
    assert [Result.from_dict(values) for values in document["results"]] == results
    assert document["gone"] == [{"key": "key", "file": "file"}]
    assert document["perfsuite_format"] == 1


def test_a_time_is_a_benchmark(make_result: Callable[..., Result], tmp_path: Path) -> None:
    """All that github-action-benchmark and bencher read, from all samples of all processes."""
    samples = [[0.010, 0.012], [0.011, 0.015]]
    (entry,) = written(tmp_path, [make_result(samples={TTFT: samples})])["benchmarks"]
    each = [0.010, 0.012, 0.011, 0.015]
    assert entry["fullname"] == f"tests/test_a.py::test_a {TTFT}"
    assert entry["name"] == f"test_a {TTFT}"
    assert entry["stats"] == {
        "min": 0.010,
        "max": 0.015,
        "mean": pytest.approx(fmean(each)),
        "stddev": pytest.approx(stdev(each)),
        "median": pytest.approx(median(each)),
        "rounds": 4,
        "iterations": 1,
        "total": pytest.approx(sum(each)),
        "ops": pytest.approx(1 / fmean(each)),
    }


def test_a_throughput_is_the_time_of_a_token(
    make_result: Callable[..., Result], make_row: Callable[..., Row], tmp_path: Path
) -> None:
    """So that its operations a second are tokens a second, and less is better as for times."""
    row = make_row(figure=DECODE)
    (entry,) = written(tmp_path, [make_result(rows=(row,), samples={DECODE: [[100.0], [400.0]]})])[
        "benchmarks"
    ]
    assert entry["stats"]["min"] == 1 / 400
    assert entry["stats"]["mean"] == pytest.approx((1 / 100 + 1 / 400) / 2)
    assert entry["stats"]["ops"] == pytest.approx(160)  # the harmonic mean


def test_one_sample_has_no_spread(make_result: Callable[..., Result], tmp_path: Path) -> None:
    """A number all the same, because the readers want one."""
    (entry,) = written(tmp_path, [make_result(samples={TTFT: [[0.5]]})])["benchmarks"]
    assert (entry["stats"]["stddev"], entry["stats"]["rounds"]) == (0.0, 1)


def test_only_times_and_throughputs_are_benchmarks(
    make_result: Callable[..., Result], make_row: Callable[..., Row], tmp_path: Path
) -> None:
    """Memory has no operations a second, a void figure has no samples."""
    rows = (make_row(figure=PEAK), void("no"))
    document = written(tmp_path, [make_result(rows=rows, samples={PEAK: [[1.0]]})])
    assert document["benchmarks"] == []
    assert len(document["results"][0]["rows"]) == 2


def test_names_of_benchmarks_are_unique(
    make_result: Callable[..., Result], make_row: Callable[..., Row], tmp_path: Path
) -> None:
    """Tools keep one history for each fullname."""
    rows = tuple(make_row(figure=f) for f in (TTFT, DECODE, f"{TTFT}@part"))
    results = [make_result(nodeid=name, rows=rows) for name in ("a", "b")]
    names = [entry["fullname"] for entry in written(tmp_path, results)["benchmarks"]]
    assert len(set(names)) == len(names) == 6


def test_what_json_has_no_word_for_is_null(
    make_result: Callable[..., Result], make_row: Callable[..., Row], tmp_path: Path
) -> None:
    """An infinite ratio or limit, a sample that voided its figure, a setting without end."""
    row = make_row(ratio=math.inf, ratio_low=math.inf, ratio_high=math.inf, limit=math.inf)
    result = make_result(rows=(row,), config={"limit": math.inf})
    broken = make_result(rows=(Row(PEAK, void("").verdict),), samples={PEAK: [[math.nan, 1.0]]})
    document = written(tmp_path, [result, broken])
    assert document["results"][0]["rows"][0]["ratio"] is None
    assert document["results"][0]["rows"][0]["limit"] is None
    assert document["results"][0]["config"] == {"limit": None}
    assert document["results"][1]["samples"] == {PEAK: [[None, 1.0]]}


def test_a_full_disk_leaves_the_old_file(
    make_result: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no half of a new one."""
    document = written(tmp_path, [make_result()])

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        written(tmp_path, [])
    assert json.loads((tmp_path / "deep/out.json").read_text()) == document
    assert os.listdir(tmp_path / "deep") == ["out.json"]
