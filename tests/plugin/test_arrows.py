"""Who imports whom: read from the sources, without importing anything."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Modules that turn values into values: no clock of their own, no process, no pytest.
PURE = (
    "attention", "baselines", "calibration", "devices", "errors", "generation", "haystack",
    "accepted", "intervals", "judging", "limits", "metrics", "needles", "neighbours", "options",
    "origins", "peaks", "procedures", "prompts", "protocols", "ranks", "results", "roofline",
    "sampling", "self_test", "shares", "slots", "slowing", "statistics", "tokenization", "verdict",
    "waivers", "history/trend", "history/noise", "history/drift", "history/change_points",
)  # fmt: skip
FRAMEWORKS = {"torch", "jax", "triton", "libtpu", "vllm", "transformers"}


def _imports(path: Path, *, at_import: bool = False) -> set[str]:
    """The top-level packages that a file imports, or those that importing it imports."""
    tree = ast.parse(path.read_text())
    nodes = list(_at_import(tree) if at_import else ast.walk(tree))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.partition(".")[0] for name in names}


def _at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when a module is imported: no function bodies, nothing for types alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _at_import(child)


def _files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def test_engines_know_neither_pytest_nor_perfsuite() -> None:
    """No file of engines/ imports pytest or perfsuite, not even inside a function."""
    assert _files("engines")
    for path in _files("engines"):
        assert not _imports(path) & {"pytest", "_pytest", "perfsuite"}, path


def test_perfsuite_knows_no_engine() -> None:
    """No file of perfsuite/ imports engines, tests or bench."""
    for path in _files("perfsuite"):
        assert not _imports(path) & {"engines", "tests", "bench"}, path


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_know_no_pytest(name: str) -> None:
    """What is pure runs without pytest."""
    assert not _imports(ROOT / "perfsuite" / f"{name}.py") & {"pytest", "_pytest"}


def test_frameworks_are_imported_by_runtimes_and_the_static_tier_only() -> None:
    """No other file of perfsuite imports a framework when it is imported."""
    for path in _files("perfsuite"):
        if path.parent.name not in ("runtimes", "static", "adapters"):
            assert not _imports(path, at_import=True) & FRAMEWORKS, path
