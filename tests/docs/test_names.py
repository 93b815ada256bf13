"""Whatever the docs name is there: options, environments, commands, metrics, engines, files."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("sybil", reason="the blocks of the pages are found by sybil")

from engines.offers import offers
from perfsuite import plugin
from perfsuite.__main__ import COMMANDS
from perfsuite.adapters import named as adapters
from perfsuite.metrics import METRICS
from perfsuite.workloads import catalogue, load_catalogue, load_models
from tests.docs import options_page
from tests.docs.pages import PAGES, ROOT, Block, every_block, name_of

OPTIONS = {flag for flag, _, _ in plugin._FLAGS}
TEXTS = {name_of(page): page.read_text() for page in PAGES}


def named(pattern: str, texts: dict[str, str] | None = None) -> dict[str, str]:
    """What a pattern's one group finds, and the first place of each."""
    found: dict[str, str] = {}
    for page, text in (texts or TEXTS).items():
        for match in re.finditer(pattern, text):
            line = text.count("\n", 0, match.start()) + 1
            found.setdefault(match[1], f"{page}:{line}")
    return found


def unknown_options(texts: dict[str, str]) -> dict[str, str]:
    """Options that a page names and the plugin has not."""
    found = named(r"(?<![\w-])(--perf(?:-[a-z]+)*)(?![\w-])", texts)
    return {option: place for option, place in found.items() if option not in OPTIONS}


def test_options_that_pages_name_exist() -> None:
    """In prose, tables and commands alike."""
    assert unknown_options(TEXTS) == {}


def test_a_renamed_option_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the plugin calls --perf-budget something else."""
    monkeypatch.setattr(sys.modules[__name__], "OPTIONS", OPTIONS - {"--perf-budget"})

    assert set(unknown_options(TEXTS)) == {"--perf-budget"}


def test_every_option_is_on_its_page() -> None:
    """docs/options.md says what `pytest --help` says."""
    missing = options_page.differing()

    assert not missing, "put these rows into docs/options.md:\n" + "\n".join(missing)


def test_the_options_page_names_nothing_else() -> None:
    """A row of an option, key or command that went away is a row too many."""
    there = re.findall(r"^\| (?:<code>|`)[^@]*?\|.*$", options_page.PAGE.read_text(), re.MULTILINE)
    marker = re.compile(r"\| `(?:workloads|limits|budget|processes|timeout|waiver)=")

    assert [r for r in there if r not in options_page.rows() and not marker.match(r)] == []


def test_every_metric_is_on_its_page() -> None:
    """And no other: docs/metrics.md has a row for each id."""
    there = re.findall(r"^\| `(\w+/\w+)` \|", TEXTS["docs/metrics.md"], re.MULTILINE)

    assert set(there) == set(METRICS)


def test_the_row_that_is_added_adds_a_workload() -> None:
    """The catalogue reads the table on docs/workloads.md, and the page has all keys."""
    page = TEXTS["docs/workloads.md"]
    (table,) = (b.text for b in every_block() if b.text.startswith("[generate]"))
    (keys,) = re.findall(r"^Keys: (.*?)\. A key", page, re.MULTILINE | re.DOTALL)

    (added,) = catalogue.parse_document(f'document = "jetstream"\n{table}', "page", load_models())

    assert added.id not in [workload.id for workload in load_catalogue()]
    assert set(re.findall(r"`(\w+)`", keys)) == catalogue._ROW_KEYS


def test_engines_that_commands_name_exist() -> None:
    """Those of this repository, of the adapters, and of the page's own conftest."""
    known = {offer.name for offer in offers()} | {*adapters.NAMES, adapters.VLLM}
    known |= set(named(r'name(?:, framework)? = "(\w+)"'))
    of_the_server = "(?!.*engines.serve)"  # whose --engine is another
    asked = named(rf"(?m)^{of_the_server}.*?--(?:perf-)?engine=([a-z0-9_,]+)")

    assert {names: at for names, at in asked.items() if not set(names.split(",")) <= known} == {}


def test_extras_exist() -> None:
    """`perfsuite[EXTRA]` on a page is one of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    known = set(project["optional-dependencies"])
    found = named(r"perfsuite\[([a-z,]+)\]")

    assert {some: at for some, at in found.items() if not set(some.split(",")) <= known} == {}


def test_environments_of_tox_exist() -> None:
    """`tox run -e ENV` on a page is a section of tox.ini."""
    known = set(re.findall(r"^\[testenv:(\w+)\]", (ROOT / "tox.ini").read_text(), re.MULTILINE))

    assert {e: at for e, at in named(r"tox run -e ([\w-]+)").items() if e not in known} == {}


def test_commands_of_perfsuite_exist() -> None:
    """`python -m perfsuite WORD` on a page is a command."""
    found = named(r"python -m perfsuite ([a-z]+)")

    assert {word: at for word, at in found.items() if word not in COMMANDS} == {}


def test_files_of_the_repository_exist() -> None:
    """A path in backticks that begins with one of its folders is there."""
    found = named(r"`((?:perfsuite|engines|tests|bench|docs|\.ci)/[\w./-]+)`")

    assert {path: at for path, at in found.items() if not (ROOT / path).exists()} == {}


@pytest.mark.parametrize("block", [b for b in every_block() if b.is_python],
                         ids=lambda block: block.place)  # fmt: skip
def test_python_is_python(block: Block) -> None:
    """Whether it is run or not, it parses, and what it imports of this repository is there."""
    tree = ast.parse(block.text)
    imports = [ast.unparse(node) for node in ast.walk(tree) if _is_of_ours(node)]
    if imports:
        script = "\n".join(imports)
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        library = re.search(r"No module named '(?!perfsuite|engines)(\w+)", done.stderr)
        if library:
            pytest.skip(f"{block.place} needs {library[1]}")
        assert done.returncode == 0, f"{block.place}\n{done.stderr}"


def _is_of_ours(node: ast.AST) -> bool:
    names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
    names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    return any(name.partition(".")[0] in ("perfsuite", "engines") for name in names)


def test_there_are_pages() -> None:
    """The scans above look at something."""
    assert {"README.md", "docs/index.md", "docs/options.md"} <= set(TEXTS)
    assert Path(ROOT / "mkdocs.yml").is_file()
