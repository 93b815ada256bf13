"""The documents' own pictures, made of the results that belong to them. Pure.

    Hydragen    the speedup over batch and prefix as a heat map, with the neighbours that it is made
                of: the same sizes without sharing, and without attention
    torchao     peak memory over the context, the published figures beside ours
    JetStream   every row against the ceiling of its slice, the published figure beside it

A picture is a specification for plotly.js without colours, which belong to the reader's scheme. All
text in it is `plain`: plotly reads tags in texts.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from perfsuite.metrics import METRICS, display, in_unit
from perfsuite.results import Result, Row
from perfsuite.workloads import Workload, load_catalogue, smoke_catalogue

_DECODE = "decode_throughput/decode_steps"
_PEAKS = ("static_peak_memory/live_tensors", "peak_memory/allocator")
_BOUND = "static_throughput_bound/slice"
_SERVED = ("max_throughput/serial_prefill_and_decode", "max_throughput/decode_only")
_MODES = {"normal": "as it is", "kv_quant": "int8 cache",
          "kv_quant_linear_mask": "int8 cache, mask by rows",
          "int4_kv_quant_linear_mask": "int4 weights, int8 cache, mask by rows"}  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """A heading, one or more plots side by side, and their numbers as a table."""

    title: str
    caption: str
    panels: Sequence[tuple[str, Mapping[str, Any]]]  # (label, {"data": ..., "layout": ...})
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class _Cell:
    """A result with the cell of a document that it ran."""

    workload: Workload
    result: Result

    def row(self, metric_id: str) -> Row | None:
        """Its figure of that metric; of several parts the largest value."""
        rows = [r for r in self.result.rows if r.metric_id == metric_id and r.value is not None]
        return max(rows, key=lambda row: row.value or 0.0, default=None)

    def value(self, metric_id: str) -> float | None:
        """The figure's value."""
        row = self.row(metric_id)
        return row.value if row else None

    def shown(self, metric_id: str) -> str:
        """The figure as text, empty where there is none."""
        value = self.value(metric_id)
        return "" if value is None else display(METRICS[metric_id], value)


def pictures(results: Iterable[Result]) -> list[Picture]:
    """Every picture for which there is a result."""
    known = _catalogue()
    cells = [_Cell(known[r.workload], r) for r in results if r.workload in known]
    return [*_hydragen(cells), *_torchao(cells), *_jetstream(cells)]


@cache
def _catalogue() -> dict[str, Workload]:
    full = load_catalogue()
    return {workload.id: workload for workload in (*full, *smoke_catalogue(full))}


def plain(text: str) -> str:
    """A text in which plotly sees no tag."""
    return html.escape(" ".join(text.split()), quote=False)


def _hydragen(cells: Sequence[_Cell]) -> Iterator[Picture]:
    of = [c for c in cells if c.workload.kind == "shared" and c.workload.mode == "hydragen"]
    groups: dict[tuple[str, ...], list[_Cell]] = {}
    for cell in of:
        if cell.value("speedup/over_noshared") or cell.value("share_of/noattention"):
            groups.setdefault(_grid_of(cell), []).append(cell)
    for (machine, engine, model, output), group in groups.items():
        yield Picture(
            title=f"Hydragen: {model}, {output} new tokens, on {engine}",
            caption=(
                "Decode throughput over batch and shared prefix. Left: times that of the same sizes"
                " without sharing; an empty cell has no such neighbour in the results. Right: the"
                f" share of what is left when attention is taken out. {machine}."
            ),
            panels=[
                ("times hydragen_noshared", _heat(group, "speedup/over_noshared", "times")),
                ("share of noattention", _heat(group, "share_of/noattention", "share")),
            ],
            header=("batch", "prefix", "hydragen", "noshared", "noattention", "x noshared",
                    "of noattention"),
            rows=[_hydragen_row(cell, cells) for cell in sorted(group, key=_place)],
        )  # fmt: skip


def _grid_of(cell: _Cell) -> tuple[str, str, str, str]:
    w = cell.workload
    return (cell.result.machine, cell.result.engine, w.model.name, str(w.output_tokens))


def _place(cell: _Cell) -> tuple[int, int]:
    return cell.workload.batch, cell.workload.shared_tokens


def _heat(group: Sequence[_Cell], metric_id: str, name: str) -> dict[str, Any]:
    batches = sorted({cell.workload.batch for cell in group})
    prefixes = sorted({cell.workload.shared_tokens for cell in group})
    values = {_place(cell): cell.value(metric_id) for cell in group}
    z = [[values.get((batch, prefix)) for prefix in prefixes] for batch in batches]
    trace = {
        "type": "heatmap",
        "x": [str(prefix) for prefix in prefixes],
        "y": [str(batch) for batch in batches],
        "z": z,
        "text": [["" if v is None else f"{v:.2f}" for v in line] for line in z],
        "texttemplate": "%{text}",
        "textfont": {"size": 14},
        "hovertemplate": f"batch %{{y}}, prefix %{{x}}: %{{z:.3f}} {name}<extra></extra>",
        "colorscale": "Cividis",
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
    }
    return {"data": [trace], "layout": {
        "xaxis": {"title": {"text": "prefix, tokens"}, "type": "category", "showgrid": False},
        "yaxis": {"title": {"text": "batch"}, "type": "category", "showgrid": False},
    }}  # fmt: skip


def _hydragen_row(cell: _Cell, cells: Sequence[_Cell]) -> list[str]:
    beside = [_neighbour(cell, mode, cells) for mode in ("hydragen_noshared", "noattention")]
    return [
        str(cell.workload.batch),
        str(cell.workload.shared_tokens),
        cell.shown(_DECODE),
        *(other.shown(_DECODE) if other else "" for other in beside),
        cell.shown("speedup/over_noshared"),
        cell.shown("share_of/noattention"),
    ]


def _neighbour(cell: _Cell, mode: str, cells: Sequence[_Cell]) -> _Cell | None:
    """The same sizes in another mode; without attention the prefix makes no difference."""
    for other in cells:
        w = other.workload
        if w.mode == mode and w.kind == "shared" and _grid_of(other) == _grid_of(cell):
            if mode == "noattention" and w.batch == cell.workload.batch:
                return other
            if _place(other) == _place(cell):
                return other
    return None


def _torchao(cells: Sequence[_Cell]) -> Iterator[Picture]:
    groups: dict[str, list[_Cell]] = {}
    for cell in cells:
        w = cell.workload
        if w.document == "torchao" and w.scale == "full" and _peak(cell) is not None:
            groups.setdefault(cell.result.machine, []).append(cell)
    for machine, group in groups.items():
        group.sort(key=lambda cell: (cell.workload.cache_tokens, cell.workload.mode))
        lines: dict[tuple[str, str], list[_Cell]] = {}
        for cell in group:
            lines.setdefault((cell.workload.mode, cell.result.engine), []).append(cell)
        yield Picture(
            title="torchao: peak memory over the context",
            caption=(
                "Llama 3.1 8B. Full lines: this run's peak. Open marks on dotted lines: what the"
                " document prints for an A100. Dashed: an engine without the document's techniques."
                f" {machine}."
            ),
            panels=[("peak memory", {
                "data": [trace for names, line in lines.items() for trace in _lines(names, line)],
                "layout": {
                    "xaxis": {"title": {"text": "context, tokens"}, "type": "category"},
                    "yaxis": {"title": {"text": "peak memory"}, "rangemode": "tozero",
                              "tickformat": "~s", "ticksuffix": "B"},
                    "height": 460, "margin": {"l": 60, "r": 12, "t": 12, "b": 150},
                    "showlegend": True,
                    "legend": {"orientation": "h", "y": -0.22, "yanchor": "top"},
                },
            })],
            header=("context", "technique", "engine", "peak", "published", "ratio"),
            rows=[_torchao_row(cell) for cell in group],
        )  # fmt: skip


def _peak(cell: _Cell) -> float | None:
    return next((v for metric in _PEAKS if (v := cell.value(metric)) is not None), None)


def _lines(names: tuple[str, str], line: Sequence[_Cell]) -> Iterator[dict[str, Any]]:
    mode, engine = _MODES.get(names[0], names[0]), names[1]
    own = engine != "torch_llama"  # the document's own technique is the other engine's
    yield {
        "type": "scatter", "mode": "lines+markers", "name": plain(f"{mode}, {engine}"),
        "x": [str(cell.workload.cache_tokens) for cell in line],
        "y": [_peak(cell) for cell in line],
        "line": {"dash": "solid" if own else "dash"}, "meta": {"series": names[0]},
    }  # fmt: skip
    printed = [(str(c.workload.cache_tokens), v) for c in line if (v := _published(c)) is not None]
    if printed and own:
        yield {
            "type": "scatter", "mode": "lines+markers", "name": plain(f"{mode}, published"),
            "x": [x for x, _ in printed], "y": [y for _, y in printed],
            "line": {"dash": "dot"}, "marker": {"symbol": "circle-open", "size": 10},
            "meta": {"series": names[0]},
        }  # fmt: skip


def _torchao_row(cell: _Cell) -> list[str]:
    peak, printed = _peak(cell), _published(cell)
    assert peak is not None
    return [
        str(cell.workload.cache_tokens),
        _MODES.get(cell.workload.mode, cell.workload.mode),
        cell.result.engine,
        in_unit("bytes", peak),
        "" if printed is None else in_unit("bytes", printed),
        "" if printed is None else f"{peak / printed:.3f}",
    ]


def _jetstream(cells: Sequence[_Cell]) -> Iterator[Picture]:
    groups: dict[str, list[_Cell]] = {}
    for cell in cells:
        if cell.workload.document == "jetstream" and cell.row(_BOUND):
            groups.setdefault(cell.result.machine, []).append(cell)
    for machine, group in groups.items():
        group.sort(key=lambda cell: cell.value(_BOUND) or 0.0)
        yield Picture(
            title="JetStream: every row against the ceiling of its slice",
            caption=(
                "Bars: tokens/s that the compiled decode step allows at most, by the slice's"
                " bandwidth and matrix peak, all slots filled. Diamonds: the document's output"
                " throughput, prefill and insertion included. Circles, where there are any:"
                f" measured. {machine}."
            ),
            panels=[("tokens per second", _bars(group, cells))],
            header=("row", "at most", "published", "of at most", "measured"),
            rows=[_jetstream_row(cell, cells) for cell in reversed(group)],
        )


def _bars(group: Sequence[_Cell], cells: Sequence[_Cell]) -> dict[str, Any]:
    names = [plain(_short(cell)) for cell in group]
    traces: list[dict[str, Any]] = [
        {"type": "bar", "orientation": "h", "name": "at most", "y": names,
         "x": [cell.value(_BOUND) for cell in group], "meta": {"series": "ceiling"}},
        _marks("published", names, [_published(cell) for cell in group], "diamond"),
        _marks("measured", names, [_measured(cell, cells) for cell in group], "circle"),
    ]  # fmt: skip
    return {"data": [t for t in traces if any(v is not None for v in t["x"])], "layout": {
        "xaxis": {"title": {"text": "output tokens/s"}, "rangemode": "tozero",
                  "tickformat": "~s"},
        "yaxis": {"automargin": True, "showgrid": False},
        "height": 120 + 34 * len(group),
        "showlegend": True, "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    }}  # fmt: skip


def _marks(
    name: str, names: Sequence[str], values: Sequence[float | None], symbol: str
) -> dict[str, Any]:
    return {"type": "scatter", "mode": "markers", "name": name, "y": names, "x": values,
            "marker": {"symbol": symbol, "size": 11}, "meta": {"series": name}}  # fmt: skip


def _short(cell: _Cell) -> str:
    return cell.workload.id.removeprefix("jetstream-")


def _jetstream_row(cell: _Cell, cells: Sequence[_Cell]) -> list[str]:
    bound, printed, measured = cell.value(_BOUND), _published(cell), _measured(cell, cells)
    assert bound is not None
    return [
        _short(cell),
        in_unit("tokens/s", bound),
        "" if printed is None else in_unit("tokens/s", printed),
        "" if printed is None else f"{printed / bound:.0%}",
        "" if measured is None else in_unit("tokens/s", measured),
    ]


def _measured(cell: _Cell, cells: Sequence[_Cell]) -> float | None:
    """What the same row gave where it was run, not compiled."""
    same = [c for c in cells if c.workload.id == cell.workload.id and c.result.tier == "measured"]
    values = [c.value(metric_id) for c in same for metric_id in _SERVED]
    return next((value for value in values if value is not None), None)


_PRINTED = re.compile(r"(?:peak_memory|output_throughput) ([\d.]+) (\S+)")
_SIZES = {"GB": 1e9, "MB": 1e6, "tok/s": 1.0, "ktok/s": 1e3, "Mtok/s": 1e6}


def _published(cell: _Cell) -> float | None:
    """What a document prints for the cell, from a result's words: `peak_memory 59.27 GB on ...`."""
    for text in cell.result.published:
        found = _PRINTED.match(text)
        if found and found[2] in _SIZES:
            return float(found[1]) * _SIZES[found[2]]
    return None
