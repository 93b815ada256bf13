"""--perf-list and --perf-list-csv: the catalogue of the selected tests, and nothing else."""

from __future__ import annotations

import csv
from typing import Any

import pytest


@pytest.fixture
def suite(project: Any) -> Any:
    """A project that takes the documents' suite whole."""
    project.write("test_suite.py", "from perfsuite.suite import *\n")
    project.write("test_own.py", "def test_own(perf):\n    raise AssertionError('must not run')\n")
    return project


def test_the_table_is_filtered_by_k(suite: Any) -> None:
    """A line for each selected workload and their count; nothing is measured."""
    chosen = "llama2_13b and single_user"
    result = suite.pytest("--perf", "--device=cpu", "--perf-list", "-k", chosen)

    assert result.ret == 0
    listed = [line.split()[0] for line in result.outlines if line.startswith("llm-")]
    assert listed == [f"llm-llama2_13b-{n}-single_user" for n in (128, 1024, 2048)]
    assert "3 workloads" in result.outlines
    assert not (suite.path / "baselines").exists()


def test_the_csv_parses(suite: Any) -> None:
    """A header, then every field of each selected workload."""
    result = suite.pytest("--perf", "--device=cpu", "--perf-list-csv", "-k", "torchao", "-q")

    assert result.ret == 0
    start = next(i for i, line in enumerate(result.outlines) if line.startswith("id,document,"))
    rows = list(csv.DictReader(line for line in result.outlines[start:] if "," in line))
    assert len(rows) > 5
    assert {row["document"] for row in rows} == {"torchao"}
    assert all(None not in row and None not in row.values() for row in rows)
    assert {row["scale"] for row in rows} == {"full"}
    assert {row["device"] for row in rows} == {"A100"}


def test_the_catalogue_is_at_full_size(suite: Any) -> None:
    """What the documents name is listed, on any machine, with its place in the document."""
    result = suite.pytest(
        "--perf", "--device=cuda", "--perf-list-csv", "-k", "jetstream-llama3_8b", "-q"
    )

    start = next(i for i, line in enumerate(result.outlines) if line.startswith("id,document,"))
    rows = list(csv.DictReader(line for line in result.outlines[start:] if "," in line))
    assert {row["scale"] for row in rows} == {"full"}
    assert "Llama 3 - 8B" in rows[0]["place"]


def test_smoke_scale_lists_the_small_ones(suite: Any) -> None:
    """--perf-scale=smoke lists what a CPU measures by default."""
    result = suite.pytest(
        "--perf", "--device=cpu", "--perf-list", "--perf-scale=smoke", "-k", "llm and single_user"
    )
    listed = [line.split()[0] for line in result.outlines if line.startswith("llm-smoke-")]
    assert len(listed) == 9


def test_xdist_is_refused(suite: Any) -> None:
    """Under -n there is nothing to list in the controller, and it says what to do."""
    result = suite.pytest("--perf", "--perf-list", "-n", "2")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: --perf-list and --perf-list-csv run in one process: add -n 0"]
    )
