"""Partitioned checkpoints, and two processes that run one model together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("safetensors", reason="needs safetensors")

from safetensors.numpy import load_file, save_file

from engines.hydragen.make_tp_files import split
from engines.hydragen.tensor_parallel import Parts, divided_axis, part_of
from engines.reference import forward
from engines.tolerance import disagreement, error_bound
from engines.weights import seeded_weights
from perfsuite.workloads.workload import Model
from tests.conformance.checkpoints import CONFIG
from tests.conformance.hydragen_ranks import BATCH, PREFIX

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkpoint(tmp_path: Path, tiny: Model) -> Path:
    folder = tmp_path / "whole"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file(seeded_weights(tiny), folder / "model.safetensors")
    return folder


def test_parts_together_are_the_whole(checkpoint: Path, tmp_path: Path, tiny: Model) -> None:
    whole = seeded_weights(tiny)
    parts = [load_file(file) for file in split(checkpoint, tmp_path / "parts", 2)]
    for name, array in whole.items():
        axis = divided_axis(name)
        pieces = [part[name] for part in parts]
        together = pieces[0] if axis is None else np.concatenate(pieces, axis)
        np.testing.assert_array_equal(together, array)
        for rank, piece in enumerate(pieces):
            np.testing.assert_array_equal(piece, Parts(part_of(tiny, 2), whole, rank, 2)[name])
    assert json.loads((tmp_path / "parts" / "config.json").read_text()) == CONFIG


@pytest.mark.parametrize("count", [0, 3, 4])
def test_what_does_not_divide_is_refused_and_leaves_nothing(
    checkpoint: Path, tmp_path: Path, count: int
) -> None:
    with pytest.raises(ValueError, match=r"does not divide into|got 0 splits"):
        split(checkpoint, tmp_path / "parts", count)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["whole"]


def test_a_folder_that_holds_something_is_left_alone(checkpoint: Path, tmp_path: Path) -> None:
    kept = tmp_path / "parts" / "mine.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    with pytest.raises(ValueError, match="is not empty: give a new folder"):
        split(checkpoint, kept.parent, 2)
    assert [path.name for path in kept.parent.iterdir()] == ["mine.txt"]


def test_a_model_that_does_not_divide_is_named(tiny: Model) -> None:
    with pytest.raises(ValueError, match="tiny: kv_heads 2 does not divide over 4 processes"):
        part_of(tiny, 4)


def test_the_command_tells_files_and_errors(checkpoint: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "engines.hydragen.make_tp_files", str(checkpoint)]
    out = str(tmp_path / "parts")
    made = subprocess.run(
        [*command, out, "--num-splits", "2"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    assert "1.safetensors: 0.00 GB" in made.stdout
    again = subprocess.run(
        [*command, out, "--num-splits", "2"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert again.returncode == 1
    assert again.stderr.startswith("make_tp_files: ")
    assert "Traceback" not in again.stderr


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_two_processes_give_what_one_gives(
    checkpoint: Path, tmp_path: Path, tiny: Model, dtype: str
) -> None:
    out = tmp_path / "parts"
    split(checkpoint, out, 2)
    # The loopback interface by name: a machine's own name need not resolve.
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
               "--local-addr=127.0.0.1", "-m", "tests.conformance.hydragen_ranks", str(out),
               dtype]  # fmt: skip
    loopback = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}
    ran = subprocess.run(
        command, cwd=ROOT, env=loopback, capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    with np.load(out / "found.npz") as found:
        tokens, logits = found["tokens"], found["logits"]
    seen = np.concatenate([np.tile(PREFIX, (BATCH, 1)), tokens[:, :-1]], axis=1)
    weights = seeded_weights(tiny, dtype)
    exact = forward(tiny, weights, seen)
    bound = error_bound(tiny, weights, seen, dtype, exact)
    first = len(PREFIX) - 1
    assert disagreement(logits, tokens, exact[:, first:], bound[:, first:]) is None


def test_perfsuite_runs_under_torchrun(tmp_path: Path) -> None:
    """One command, two ranks, one report: checked against the reference, saved, and compared."""
    suite = ["-m", "pytest", "--perf", "--device=cpu", "--engine=hydragen", "--perf-budget=1",
             "--perf-processes=2", f"--perf-baselines={tmp_path}", "-p", "no:cacheprovider",
             f"--rootdir={ROOT}", "-k", "codellama_7b-shared-hydragen-b4-s64 and measured",
             "--perf-save-force", str(ROOT / "tests/perf")]  # fmt: skip
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
              "--local-addr=127.0.0.1"]  # fmt: skip
    ran = subprocess.run(
        [*launch, *suite], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-5000:]
    assert ran.stdout.count("test session starts") == 1
    (file,) = tmp_path.glob("*/hydragen.json")
    entries = json.loads(file.read_text())["entries"]
    assert entries
    assert {entry["config"]["sharding"] for entry in entries.values()} == {
        "heads and MLP over 2 processes"
    }
    assert {entry["config"]["verifiable"] for entry in entries.values()} == {True}
