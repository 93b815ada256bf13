"""The printed figures: every one of them, and what happens to a broken file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from perfsuite.workloads import Published, PublishedError, load_catalogue, load_published

FOLDER = Path(__file__).parents[3] / "baselines" / "published"
FIGURES = load_published(FOLDER)
GOOD = {
    "metric": "peak_memory",
    "value": 1,
    "unit": "bytes",
    "hardware": "A100",
    "date": "",
    "source": "document",
}


def only(workload_id: str) -> Published:
    """The one figure of a workload."""
    (figure,) = FIGURES[workload_id]
    return figure


def test_every_figure_belongs_to_a_cell() -> None:
    """No figure is printed for a workload that the catalogue lacks."""
    assert set(FIGURES) <= {workload.id for workload in load_catalogue()}


@pytest.mark.parametrize(
    ("cell", "date", "value"),
    [
        ("llama3_8b-v5e_8-bf16-b128-c2048", "2024-04-24", 8249),
        ("llama3_8b-v5e_8-int8-b256-c2048", "2024-04-24", 10873),
        ("gemma_7b-v5e_8-bf16-b96-c2048", "2024-05-10", 3236),
        ("gemma_7b-v5e_8-int8-b128-c2048", "2024-05-10", 4695),
        ("gemma_2b-v5e_8-bf16-b512-c2048", "2024-05-14", 8700),
        ("gemma_2b-v5e_8-int8-b1024-c2048", "2024-05-14", 8746),
        ("gemma_2b-v5e_1-bf16-b1024-c2048", "2024-06-13", 4249),
        ("llama2_7b-v5e_8-bf16-b96-c2048", "2024-03-28", 3663),
        ("llama2_7b-v5e_8-int8-b96-c2048", "2024-03-28", 4783),
        ("llama2_13b-v5e_8-bf16-b48-c2048", "2024-03-28", 2056),
        ("llama2_13b-v5e_8-int8-b96-c2048", "2024-03-28", 3458),
        ("llama2_13b-v5e_8-bf16-b80-c1280", "2024-03-28", 2911),
        ("llama2_13b-v5e_8-int8-b96-c1280", "2024-03-28", 3938),
    ],
)
def test_jetstream_row(cell: str, date: str, value: int) -> None:
    """Each row of the tables with its date, chip and output tokens a second."""
    hardware = "TPU v5e-1" if "v5e_1" in cell else "TPU v5e-8"
    assert only(f"jetstream-{cell}") == Published(
        "output_throughput", value, "tokens/s", hardware, date, "document"
    )


def test_jetstream_sum() -> None:
    """The thirteen throughputs add up, so none was left out or mistyped."""
    rows = [only(name) for name in FIGURES if name.startswith("jetstream-")]
    assert len(rows) == 13
    assert sum(row.value for row in rows) == 69_557


@pytest.mark.parametrize(
    ("context", "normal", "kv_quant", "kv_quant_linear_mask"),
    [
        (8192, 17.86, 17.52, 17.47),
        (16384, 19.81, 18.75, 18.48),
        (32768, 23.83, 21.72, 20.64),
        (65536, 33.5, 29.54, 25.24),
        (131072, 59.27, 52.62, 34.18),
    ],
)
def test_torchao_row(
    context: int, normal: float, kv_quant: float, kv_quant_linear_mask: float
) -> None:
    """Each row of the table in bytes, a GB being 10^9 of them."""
    modes = {"normal": normal, "kv_quant": kv_quant, "kv_quant_linear_mask": kv_quant_linear_mask}
    for mode, gigabytes in modes.items():
        figure = only(f"torchao-{context}-{mode}")
        assert figure.value == round(gigabytes * 1e9)
        assert (figure.metric, figure.unit, figure.hardware) == ("peak_memory", "bytes", "A100")


def test_torchao_long_context() -> None:
    """130k tokens of context with int4 weights in 18.9 GB."""
    figure = only("torchao-131072-int4_kv_quant_linear_mask")
    assert figure.value == 18_900_000_000
    assert len([name for name in FIGURES if name.startswith("torchao-")]) == 16


def test_hydragen_paper() -> None:
    """The paper's table of decode throughput, marked as the paper's and not the document's."""
    names = [name for name in FIGURES if name.startswith("hydragen-")]
    assert len(names) == 24
    assert {only(name).source for name in names} == {"paper"}
    assert {only(name).metric for name in names} == {"decode_throughput"}
    assert only("hydragen-codellama_13b-hydragen-b1024-s16256-u128").value == 14_000
    assert only("hydragen-codellama_7b-noattention-b2048-s1024-u128").value == 32_900
    assert sum(only(name).value for name in names) == 172_300


def test_files_are_sorted() -> None:
    """Keys are sorted, so that a review shows what changed and nothing else."""
    files = sorted(FOLDER.glob("*.json"))
    assert [file.stem for file in files] == ["hydragen", "jetstream", "torchao"]
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"


def test_a_missing_folder_has_no_figures(tmp_path: Path) -> None:
    """Where nothing is published there is nothing, and no error."""
    assert load_published(tmp_path / "absent") == {}
    assert load_published(tmp_path) == {}


def write(folder: Path, row: object, name: str = "mine.json") -> Path:
    """A file of one figure."""
    file = folder / name
    file.write_text(json.dumps({"document": "mine", "figures": {"mine-1": row}}))
    return file


def test_a_good_file_is_read(tmp_path: Path) -> None:
    """The figures come back as they were written, several for one workload if need be."""
    write(tmp_path, [GOOD, {**GOOD, "value": 2.5}])
    figures = load_published(tmp_path)["mine-1"]
    assert [figure.value for figure in figures] == [1, 2.5]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([{**GOOD, "value": "1"}], "mine-1: value: expected a number above 0, got '1'"),
        ([{**GOOD, "value": True}], "mine-1: value: expected a number above 0, got True"),
        ([{**GOOD, "value": 0}], "mine-1: value: expected a number above 0, got 0"),
        ([{**GOOD, "value": float("nan")}], "value: expected a number above 0, got nan"),
        ([{**GOOD, "value": float("inf")}], "value: expected a number above 0, got inf"),
        ([{**GOOD, "unit": None}], "mine-1: unit: expected a string, got None"),
        ([{**GOOD, "extra": 1}], "mine-1: expected the keys date, hardware"),
        ([{"metric": "x"}], "mine-1: expected the keys date, hardware"),
        ([], "mine-1: expected a list of figures, got []"),
        (GOOD, "mine-1: expected a list of figures, got {"),
    ],
)
def test_a_wrong_figure_is_named(tmp_path: Path, row: object, reason: str) -> None:
    """A figure that cannot be used is an error with file, workload and reason."""
    file = write(tmp_path, row)
    with pytest.raises(PublishedError, match=re.escape(reason)) as caught:
        load_published(tmp_path)
    assert str(caught.value).startswith(str(file))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "cannot be read"),
        ("", "cannot be read"),
        ("[]", "expected an object with document and figures"),
        ('{"document": "mine"}', "expected an object with document and figures"),
        ('{"document": "mine", "figures": []}', "figures: expected an object"),
        ('{"document": "mine", "figures": {"x-1": []}}', "x-1: expected an id of the document"),
        ('{"document": "a", "document": "b", "figures": {}}', "'document' is given twice"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, text: str, reason: str) -> None:
    """A file that is not what it should be is an error with its path and the reason."""
    (tmp_path / "mine.json").write_text(text)
    with pytest.raises(PublishedError, match=re.escape(reason)) as caught:
        load_published(tmp_path)
    assert str(tmp_path / "mine.json") in str(caught.value)


def test_a_workload_in_two_files_is_an_error(tmp_path: Path) -> None:
    """Of two files that speak of one workload neither wins silently."""
    write(tmp_path, [GOOD], "a.json")
    write(tmp_path, [GOOD], "b.json")
    with pytest.raises(PublishedError, match="mine-1 is in another file too"):
        load_published(tmp_path)
