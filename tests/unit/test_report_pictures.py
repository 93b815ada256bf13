"""The documents' pictures: which results make one, and what stands in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from perfsuite.report.pictures import pictures, plain
from perfsuite.results import Result, Row
from perfsuite.verdict import Verdict

DECODE = "decode_throughput/decode_steps"
CELL = "hydragen-smoke-codellama_7b-shared-{mode}-b{batch}-s{prefix}-u16"


@pytest.fixture
def make(make_result: Callable[..., Result]) -> Callable[..., Result]:
    """A result of a document's cell with these figures; metric ids may have a part."""

    def made(workload: str, figures: dict[str, float], **changes: Any) -> Result:
        rows = tuple(Row(name, Verdict.SAME, value=value) for name, value in figures.items())
        return make_result(workload=workload, key=workload, rows=rows, samples={}, **changes)

    return made


@pytest.fixture
def grid(make: Callable[..., Result]) -> list[Result]:
    """Four cells of Hydragen with both neighbours, the last without one."""
    own = [
        make(CELL.format(mode="hydragen", batch=batch, prefix=prefix),
             {DECODE: 100.0 * batch, "share_of/noattention": 0.5}
             | ({} if (batch, prefix) == (8, 256) else {"speedup/over_noshared": prefix / 64}))
        for batch in (4, 8) for prefix in (64, 256)
    ]  # fmt: skip
    beside = [
        make(CELL.format(mode=mode, batch=4, prefix=64), {DECODE: value})
        for mode, value in (("hydragen_noshared", 200.0), ("noattention", 800.0))
    ]
    return [*own, *beside]


def test_hydragen_is_a_heat_map_with_its_neighbours(grid: list[Result]) -> None:
    """Batch downwards, prefix to the right, an empty cell where there is no neighbour."""
    (picture,) = pictures(grid)

    speedup, share = (spec["data"][0] for _, spec in picture.panels)
    assert (speedup["x"], speedup["y"]) == (["64", "256"], ["4", "8"])
    assert speedup["z"] == [[1.0, 4.0], [1.0, None]]
    assert speedup["text"][1] == ["1.00", ""]
    assert share["z"] == [[0.5, 0.5], [0.5, 0.5]]
    assert picture.rows[0] == ["4", "64", "400 tok/s", "200 tok/s", "800 tok/s", "1.000 times",
                               "0.500 times"]  # fmt: skip
    assert picture.rows[1][3:5] == ["", "800 tok/s"]  # without attention any prefix is the same
    assert picture.rows[3][3:6] == ["", "", ""]


def test_machines_have_pictures_of_their_own(
    grid: list[Result], make: Callable[..., Result]
) -> None:
    """What two machines gave is never one map."""
    other = make(grid[0].workload, {DECODE: 1.0, "speedup/over_noshared": 9.0}, machine="other")

    first, second = pictures([*grid, other])

    assert first.panels[0][1]["data"][0]["z"] == [[1.0, 4.0], [1.0, None]]
    assert second.panels[0][1]["data"][0]["z"] == [[9.0]]


def test_torchao_stands_beside_what_is_published(make: Callable[..., Result]) -> None:
    """The largest peak of the programs, a line a technique, the document's as open marks."""
    peak = "static_peak_memory/live_tensors"
    words = ("peak_memory 17.86 GB on A100 (document)", "decode_throughput 1 tok/s (paper)")
    ours = [
        make(f"torchao-{context}-normal", {f"{peak}@prefill": 2e10, f"{peak}@decode": size},
             engine="torchao_llama", tier="static", published=words if context == 8192 else ())
        for context, size in ((16384, 3e10), (8192, 1e10))
    ]  # fmt: skip

    (picture,) = pictures(ours)

    (_, spec), = picture.panels
    line, printed = spec["data"]
    assert (line["x"], line["y"]) == (["8192", "16384"], [2e10, 3e10])
    assert (printed["x"], printed["y"]) == (["8192"], [17.86e9])
    assert printed["marker"]["symbol"] == "circle-open"
    assert picture.rows[0] == ["8192", "as it is", "torchao_llama", "20 GB", "17.86 GB", "1.120"]
    assert picture.rows[1][4:] == ["", ""]


def test_jetstream_stands_against_the_ceiling(make: Callable[..., Result]) -> None:
    """Bound, published figure and what was measured; the largest bound comes first in the table."""
    bound = "static_throughput_bound/slice@decode"
    rows = ("jetstream-gemma_2b-v5e_8-bf16-b512-c2048", "jetstream-gemma_7b-v5e_8-bf16-b96-c2048")
    published = ("output_throughput 8.7 ktok/s on TPU v5e-8, 2024-05-14 (document)",)
    found = [
        make(rows[0], {bound: 17_400.0}, tier="static", machine="tpu-v5e-8", published=published),
        make(rows[1], {bound: 5_000.0}, tier="static", machine="tpu-v5e-8"),
        make(rows[1], {"max_throughput/decode_only": 4_000.0}, machine="tpu-v5e-8"),
    ]

    (picture,) = pictures(found)

    assert picture.rows == [
        ["gemma_2b-v5e_8-bf16-b512-c2048", "17.4 ktok/s", "8.7 ktok/s", "50%", ""],
        ["gemma_7b-v5e_8-bf16-b96-c2048", "5 ktok/s", "", "", "4 ktok/s"],
    ]
    ceiling, printed, measured = picture.panels[0][1]["data"]
    assert ceiling["x"] == [5_000.0, 17_400.0]
    assert printed["x"] == [None, 8_700.0]
    assert measured["x"] == [4_000.0, None]


def test_specifications_are_plotlys(grid: list[Result], make: Callable[..., Result]) -> None:
    """The validators of plotly know every property of every picture."""
    graph_objects = pytest.importorskip("plotly.graph_objects", reason="plotly checks the pictures")
    peak, bound = "static_peak_memory/live_tensors", "static_throughput_bound/slice"
    words = ("peak_memory 17.86 GB on A100 (document)",)
    found = pictures([
        *grid,
        make("torchao-8192-normal", {peak: 1e10}, engine="torchao_llama", published=words),
        make("jetstream-gemma_2b-v5e_8-bf16-b512-c2048", {bound: 17_400.0}),
    ])  # fmt: skip

    specs = [spec for picture in found for _, spec in picture.panels]
    assert len(specs) == 4
    for spec in specs:
        graph_objects.Figure(spec)


def test_other_results_make_no_picture(
    make_result: Callable[..., Result], make: Callable[..., Result]
) -> None:
    """A test of a user's own, a cell without the figures, a name that no document has."""
    unknown = make("hydragen-unknown-b1", {"speedup/over_noshared": 2.0})
    bare = make(CELL.format(mode="hydragen", batch=4, prefix=64), {DECODE: 1.0})
    assert pictures([make_result(), unknown, bare]) == []


def test_plotly_sees_no_tags() -> None:
    """Texts of results may hold what plotly would read as a link."""
    assert plain('<a href="x">\n&') == '&lt;a href="x"&gt; &amp;'
