"""Reads the TOML files of this folder: shapes become `Model`s, rows become `Workload`s.

A document file holds tables, and each table holds rows; a key of the row wins over the same key of
the table. A length or batch is a number or a sweep (see `sweep`), and a row stands for every
combination of its sweeps and modes. `id` and `place` may name {document}, {model}, {mode}, {kind},
{batch}, {input}, {shared}, {output} and {cache}.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from functools import cache
from importlib.resources import files
from itertools import product
from typing import Any

from perfsuite.errors import PerfError
from perfsuite.workloads.sweep import SweepError, parse_sweep
from perfsuite.workloads.workload import Model, RopeScaling, Workload

DOCUMENTS = ("jetstream", "hydragen", "torchao", "llm")
KINDS = (
    "single_user", "multi_user", "generate", "shared", "attention", "needles", "serving", "kernels",
)  # fmt: skip

_SWEPT = ("batch", "input", "shared", "output", "cache")
_TEXTS = ("id", "place", "kind", "model", "device", "dtype")
_COUNTS = ("iterations", "warmup")
_REQUIRED = ("id", "place", "kind", "mode", "model", "device", "dtype")
_ROW_KEYS = frozenset((*_SWEPT, *_TEXTS, *_COUNTS, "mode", "options"))
_ID = re.compile(r"[a-z0-9_.-]+")


class CatalogueError(PerfError):
    """A TOML file that does not say what it should; the text names file, table and key."""


@cache
def load_models() -> Mapping[str, Model]:
    """The shapes of the documents' models by name, as they are in models.toml."""
    return parse_models(_packaged("models.toml"), "models.toml")


@cache
def load_catalogue() -> tuple[Workload, ...]:
    """Every cell of every document at full size, in the documents' order; ids are unique."""
    models = load_models()
    workloads: list[Workload] = []
    for document in DOCUMENTS:
        file = f"{document}.toml"
        workloads += parse_document(_packaged(file), file, models)
    return tuple(workloads)


def parse_models(text: str, file: str) -> dict[str, Model]:
    """The models of a TOML text; `file` is the name to use in a CatalogueError."""
    return {name: _model(name, table, f"{file}, [{name}]") for name, table in _toml(text, file)}


def parse_document(text: str, file: str, models: Mapping[str, Model]) -> tuple[Workload, ...]:
    """The cells of one document's TOML text; raises CatalogueError, also for an id given twice."""
    tables = dict(_toml(text, file))
    document = tables.pop("document", None)
    if not isinstance(document, str):
        raise CatalogueError(f"{file}: expected the key document with the name, got {document!r}")
    by_id: dict[str, Workload] = {}
    for name, table in tables.items():
        for where, row in _rows(table, f"{file}, [{name}]"):
            for workload in _cells(document, row, models, where):
                if workload.id in by_id:
                    first = by_id[workload.id].place
                    raise CatalogueError(f"{where}: id {workload.id} is already that of {first!r}")
                by_id[workload.id] = workload
    return tuple(by_id.values())


def _packaged(file: str) -> str:
    return (files("perfsuite.workloads") / file).read_text(encoding="utf-8")


def _toml(text: str, file: str) -> Iterator[tuple[str, Any]]:
    try:
        yield from tomllib.loads(text).items()
    except tomllib.TOMLDecodeError as error:
        raise CatalogueError(f"{file}: not valid TOML: {error}") from error


def _model(name: str, table: Any, where: str) -> Model:
    values = _fields_of(Model, table, where, left_out=("name", "checkpoint"))
    if "rope_scaling" in values:
        values["rope_scaling"] = RopeScaling(
            **_fields_of(RopeScaling, values["rope_scaling"], f"{where}, rope_scaling")
        )
    if values["kv_heads"] < 1 or values["heads"] % values["kv_heads"]:
        raise CatalogueError(
            f"{where}: heads {values['heads']} is not a multiple of kv_heads {values['kv_heads']}"
        )
    return Model(name=name, **values)


def _fields_of(
    of: type[Model | RopeScaling], table: Any, where: str, left_out: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The table's values after checking its keys and types against a dataclass."""
    known = {field.name: field for field in fields(of) if field.name not in left_out}
    needed = {name for name, field in known.items() if field.default is MISSING}
    _check_keys(table, frozenset(known), needed, where)
    types = {"int": (int,), "float": (float,), "bool": (bool,), "str": (str,)}
    for key, value in table.items():
        accepted = types.get(str(known[key].type), (dict,))
        # type(), not isinstance(): true would pass for the integer 1.
        if type(value) not in accepted:
            raise CatalogueError(f"{where}, {key}: expected {known[key].type}, got {value!r}")
    return dict(table)


def _check_keys(table: Any, known: frozenset[str], needed: set[str], where: str) -> None:
    if not isinstance(table, dict):
        raise CatalogueError(f"{where}: expected a table, got {table!r}")
    for key in table:
        if key not in known:
            raise CatalogueError(f"{where}: unknown key {key!r}; known: {', '.join(sorted(known))}")
    if missing := sorted(needed - table.keys()):
        raise CatalogueError(f"{where}: missing key {missing[0]!r}")


def _rows(table: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row with its place in the file, the table's own keys filled in."""
    _check_keys(table, _ROW_KEYS | {"rows"}, {"rows"}, where)
    common = {key: value for key, value in table.items() if key != "rows"}
    if not isinstance(table["rows"], list) or not table["rows"]:
        raise CatalogueError(f"{where}, rows: expected a list of tables, got {table['rows']!r}")
    for number, own in enumerate(table["rows"], start=1):
        here = f"{where}, row {number}"
        _check_keys(own, _ROW_KEYS, set(), here)
        row = {**common, **own}
        row["options"] = {**_options(common, where), **_options(own, here)}
        _check_row(row, here)
        yield here, row


def _options(row: Mapping[str, Any], where: str) -> dict[str, str]:
    options = row.get("options", {})
    if not isinstance(options, dict) or not all(isinstance(v, str) for v in options.values()):
        raise CatalogueError(f"{where}, options: expected a table of strings, got {options!r}")
    return options


def _check_row(row: Mapping[str, Any], where: str) -> None:
    _check_keys(row, _ROW_KEYS, set(_REQUIRED), where)
    for key in _TEXTS:
        if not isinstance(row[key], str):
            raise CatalogueError(f"{where}, {key}: expected a string, got {row[key]!r}")
    for key in _COUNTS:
        if type(row.get(key, 0)) is not int or row.get(key, 0) < 0:
            raise CatalogueError(f"{where}, {key}: expected a count, got {row[key]!r}")
    if row["kind"] not in KINDS:
        raise CatalogueError(
            f"{where}, kind: expected one of {', '.join(KINDS)}, got {row['kind']!r}"
        )


def _cells(
    document: str, row: Mapping[str, Any], models: Mapping[str, Model], where: str
) -> Iterator[Workload]:
    if row["model"] not in models:
        raise CatalogueError(f"{where}, model: {row['model']!r} is not in models.toml")
    sweeps = [_sweep(row, key, where) for key in _SWEPT]
    for mode in _modes(row, where):
        for sizes in product(*sweeps):
            yield _cell(document, row, models[row["model"]], mode, sizes, where)


def _cell(
    document: str,
    row: Mapping[str, Any],
    model: Model,
    mode: str,
    sizes: tuple[int, ...],
    where: str,
) -> Workload:
    names = {"document": document, "model": model.name, "mode": mode, "kind": row["kind"]}
    names.update(zip(_SWEPT, map(str, sizes), strict=True))
    batch, prompt, shared, output, length = sizes
    return Workload(
        id=_id(_filled(row, "id", names, where), document, where),
        document=document,
        place=_filled(row, "place", names, where),
        kind=row["kind"],
        mode=mode,
        model=model,
        device=row["device"],
        dtype=row["dtype"],
        batch=batch,
        input_tokens=prompt,
        shared_tokens=shared,
        output_tokens=output,
        cache_tokens=length,
        iterations=row.get("iterations", 0),
        warmup_iterations=row.get("warmup", 0),
        options=tuple(sorted(row["options"].items())),
    )


def _sweep(row: Mapping[str, Any], key: str, where: str) -> tuple[int, ...]:
    value = row.get(key, 1 if key == "batch" else 0)
    if type(value) is int and value >= 0:
        return (value,)
    if not isinstance(value, str):
        raise CatalogueError(f"{where}, {key}: expected a count or a sweep, got {value!r}")
    try:
        return parse_sweep(value)
    except SweepError as error:
        raise CatalogueError(f"{where}, {key}: {error}") from error


def _modes(row: Mapping[str, Any], where: str) -> list[str]:
    modes = row["mode"] if isinstance(row["mode"], list) else [row["mode"]]
    if not modes or not all(isinstance(mode, str) and mode for mode in modes):
        raise CatalogueError(f"{where}, mode: expected a name or a list of names, got {modes!r}")
    return modes


def _filled(row: Mapping[str, Any], key: str, names: Mapping[str, str], where: str) -> str:
    try:
        return str(row[key]).format_map(names)
    except (KeyError, ValueError, IndexError) as error:
        raise CatalogueError(
            f"{where}, {key}: {row[key]!r} names something else than {', '.join(names)}"
        ) from error


def _id(text: str, document: str, where: str) -> str:
    if not _ID.fullmatch(text) or not text.startswith(f"{document}-"):
        raise CatalogueError(
            f"{where}, id: expected {document}- and letters a-z, digits, '_', '.' or '-', "
            f"got {text!r}"
        )
    return text
