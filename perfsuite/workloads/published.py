"""Figures that the documents, or the papers behind them, print for their own cells.

They are kept as JSON beside the baselines, one file a document:

    {"document": "torchao",
     "figures": {"torchao-8192-normal": [{"metric": "peak_memory", "value": 17860000000,
       "unit": "bytes", "hardware": "A100", "date": "", "source": "document"}]}}
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from perfsuite.errors import PerfError


class PublishedError(PerfError):
    """A file of published figures that cannot be used; the text names file, place and reason."""


@dataclass(frozen=True)
class Published:
    """One printed figure; an orientation for a reader, never a baseline to be judged by."""

    metric: str
    value: float  # in `unit`
    unit: str  # "bytes", "tokens/s"
    hardware: str
    date: str  # as printed; "" where the source prints none
    source: str  # "document" or "paper"


def load_published(folder: Path) -> dict[str, tuple[Published, ...]]:
    """The figures of every JSON file of a folder by workload id; {} if there is no such folder.

    Raises PublishedError for a file that is broken or repeats another file's workload.
    """
    if not folder.is_dir():
        return {}
    figures: dict[str, tuple[Published, ...]] = {}
    for file in sorted(folder.glob("*.json")):
        for workload_id, found in _read(file).items():
            if workload_id in figures:
                raise PublishedError(f"{file}: {workload_id} is in another file too")
            figures[workload_id] = found
    return figures


def _read(file: Path) -> dict[str, tuple[Published, ...]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_unrepeated)
    except (OSError, ValueError) as error:
        raise PublishedError(f"{file}: cannot be read: {error}") from error
    if not isinstance(content, dict) or content.keys() != {"document", "figures"}:
        raise PublishedError(f"{file}: expected an object with document and figures")
    if not isinstance(content["figures"], dict):
        raise PublishedError(f"{file}: figures: expected an object, one key a workload id")
    return {
        workload_id: _figures(rows, workload_id, str(content["document"]), file)
        for workload_id, rows in content["figures"].items()
    }


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; json itself would keep the last of two equal keys without a word."""
    names = [name for name, _ in pairs]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"key {repeated[0]!r} is given twice")
    return dict(pairs)


def _figures(rows: Any, workload_id: str, document: str, file: Path) -> tuple[Published, ...]:
    where = f"{file}: {workload_id}"
    if not workload_id.startswith(f"{document}-"):
        raise PublishedError(f"{where}: expected an id of the document {document}")
    if not isinstance(rows, list) or not rows:
        raise PublishedError(f"{where}: expected a list of figures, got {rows!r}")
    return tuple(_figure(row, where) for row in rows)


def _figure(row: Any, where: str) -> Published:
    names = {field.name for field in fields(Published)}
    if not isinstance(row, dict) or row.keys() != names:
        raise PublishedError(f"{where}: expected the keys {', '.join(sorted(names))}, got {row!r}")
    figure = Published(**row)
    number = figure.value
    if type(number) not in (int, float) or not (math.isfinite(number) and number > 0):
        raise PublishedError(f"{where}: value: expected a number above 0, got {number!r}")
    for name, value in asdict(figure).items():
        if name != "value" and not isinstance(value, str):
            raise PublishedError(f"{where}: {name}: expected a string, got {value!r}")
    return figure
