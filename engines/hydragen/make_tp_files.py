"""Divide a checkpoint for tensor parallel processes, one safetensors file each:

    python -m engines.hydragen.make_tp_files MODEL_FOLDER OUT_FOLDER --num-splits 8

OUT_FOLDER gets 0.safetensors, 1.safetensors ... and copies of config.json and tokenizer.json. It
must be new or empty; a run that fails leaves nothing behind.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from engines import checkpoint
from engines.hydragen.tensor_parallel import divided_axis, span

COPIED = ("config.json", "tokenizer.json")


def split(source: Path, out: Path, count: int) -> list[Path]:
    """The files, by rank; ValueError where the model does not divide or OUT holds something."""
    model = SimpleNamespace(**checkpoint.read_shape(source))
    _require_divides(model, count)
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty: give a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as made:
        for rank in range(count):
            _write_part(source, Path(made) / f"{rank}.safetensors", rank, count)
        for name in COPIED:
            if (source / name).exists():
                shutil.copyfile(source / name, Path(made) / name)
        out.mkdir(exist_ok=True)
        for file in Path(made).iterdir():
            file.replace(out / file.name)
    return [out / f"{rank}.safetensors" for rank in range(count)]


def _require_divides(model: Any, count: int) -> None:
    if count < 1:
        raise ValueError(f"got {count} splits, expected at least 1")
    for name in ("heads", "kv_heads", "intermediate_size"):
        size = getattr(model, name)
        if size % count:
            raise ValueError(f"{name} {size} does not divide into {count} splits")


def _write_part(source: Path, target: Path, rank: int, count: int) -> None:
    """One rank's tensors, in the type of the checkpoint."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    tensors = {}
    for file in checkpoint.files(source):
        with safe_open(file, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118  (no mapping)
                tensors[name] = _part(stored.get_slice(name), divided_axis(name), rank, count)
    save_file(tensors, target, metadata={"rank": str(rank), "splits": str(count)})


def _part(tensor: Any, axis: int | None, rank: int, count: int) -> Any:
    if axis is None:
        return tensor[:]
    mine = span(tensor.get_shape()[axis], rank, count)
    return (tensor[mine] if axis == 0 else tensor[:, mine]).contiguous()


def main() -> None:
    """The command line; what is the user's to mend is told in one line."""
    parser = argparse.ArgumentParser(prog="python -m engines.hydragen.make_tp_files",
                                     description=(__doc__ or "").split("\n")[0])  # fmt: skip
    parser.add_argument("model", type=Path, help="a checkpoint folder in the Hugging Face layout")
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--num-splits", type=int, required=True, help="processes")
    given = parser.parse_args()
    try:
        files = split(given.model, given.out, given.num_splits)
    except (ValueError, OSError) as problem:
        sys.exit(f"make_tp_files: {problem}")
    for file in files:
        print(f"{file}: {file.stat().st_size / 1e9:.2f} GB")  # noqa: T201  (a command)


if __name__ == "__main__":
    main()
