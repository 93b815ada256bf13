"""Imports of base in real runs: the subject's from its own tree, tests and instrument head's."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perfsuite import boot
from perfsuite.boot import Subject
from perfsuite.origins import complaint, loaded
from perfsuite.trees import base_side

INI = "[pytest]\naddopts = {}\npythonpath = {}\n"
OLD, NEW = "STATE = 'old'\n", "STATE = 'new'\n"


@pytest.fixture
def base_run(
    two_states: Any, side_of: Any, session: Any
) -> Callable[..., tuple[Any, Subject, Path]]:
    """Write both states, run base; what was seen, base's subject, and head's root."""

    def run(base: Any, head: Any, *arguments: str, src: tuple[str, ...] = (), **how: Any) -> Any:
        ini = how.pop("ini", {})
        repository = two_states(base, head)
        path = tuple(repository.path / name for name in src)
        with base_side("old", side_of(repository.path, **ini)) as side:
            seen = session(side.subject, repository.path, *arguments, path=path, **how)
        return seen, side.subject, repository.path

    return run


def _below(seen: Any, name: str, folder: str | Path) -> bool:
    return Path(seen.files[name]).is_relative_to(folder)


def _complaint(seen: Any, subject: Subject) -> str | None:
    modules = {name: type(sys)(name) for name in seen.files}
    for name, file in seen.files.items():
        modules[name].__file__ = file
    return complaint("old", subject, loaded(subject, modules, sys.path))


TEST = """
import helper
import product.core

def test_state():
    assert (product.STATE, product.core.STATE, helper.STATE) == ("old", "old", "old")
"""
FLAT = {"product/__init__.py": OLD, "product/core.py": OLD, "helper.py": OLD}
FLAT_NEW = dict.fromkeys(FLAT, NEW)
LAYOUTS = {
    "rootdir on the ini's pythonpath": ("", INI.format("", "."), ()),
    "rootdir on the path by the tests": ("", INI.format("", ""), ()),
    "importlib mode": ("", INI.format("--import-mode=importlib", "."), ()),
    "src on the ini's pythonpath": ("src/", INI.format("", "src"), ()),
    "src by the .pth of an editable install": ("src/", INI.format("", ""), ("src",)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(base_run: Any, layout: str) -> None:
    """Packages and modules of base wherever the path names them, under the test of head."""
    prefix, ini, src = LAYOUTS[layout]
    seen, subject, root = base_run(
        {f"{prefix}{name}": text for name, text in FLAT.items()} | {"test_it.py": "import gone\n"},
        {f"{prefix}{name}": text for name, text in FLAT_NEW.items()}
        | {"test_it.py": TEST, "pytest.ini": ini},
        src=src,
    )
    assert seen.status == 0, seen.output
    assert all(_below(seen, name, subject.tree) for name in ("product", "product.core", "helper"))
    assert _below(seen, "test_it", root)
    assert _below(seen, "conftest", root)
    assert _complaint(seen, subject) is None


def test_without_the_finder_the_check_is_red(base_run: Any, tmp_path: Path) -> None:
    """The planted bug: a worker that imports as head does is told, with module, file and tree."""
    source = Path(boot.__file__).read_text()
    assert "SubjectFinder(subject), " in source
    broken = tmp_path / "boot.py"
    broken.write_text(source.replace("SubjectFinder(subject), ", ""))
    seen, subject, root = base_run(
        FLAT, {**FLAT_NEW, "test_it.py": TEST.replace('"old"', '"new"')}, script=str(broken)
    )
    assert seen.status == 0, seen.output
    text = _complaint(seen, subject)
    assert text is not None
    assert f"helper was loaded from {root / 'helper.py'}" in text
    assert f"expected below {subject.tree}, the modules of old" in text


# What setuptools' finder for editable installs does: it knows files, and looks at no path.
_EDITABLE = """
import sys
from importlib.machinery import PathFinder
from importlib.util import spec_from_file_location

class Editable:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == "product":
            return spec_from_file_location(name, {root!r} + "/product/__init__.py")
        if name.startswith("product."):
            return PathFinder.find_spec(name, [{root!r} + "/product"])

sys.meta_path.append(Editable)
"""


def test_an_editable_finder(base_run: Any, repository: Any, tmp_path: Path) -> None:
    """A finder that answers with head's file is followed to its counterpart, or missed aloud."""
    site = tmp_path / "site"
    site.mkdir()
    root = str(repository.path / "lib")
    (site / "sitecustomize.py").write_text(_EDITABLE.format(root=root))
    test = """
import pytest
import product.core

def test_state():
    assert (product.STATE, product.core.STATE) == ("old", "old")
    with pytest.raises(ModuleNotFoundError, match="in base: .*new.py is head's"):
        from product import new
"""
    seen, subject, _ = base_run(
        {"lib/product/__init__.py": OLD, "lib/product/core.py": OLD},
        {"lib/product/__init__.py": NEW, "lib/product/core.py": NEW, "lib/product/new.py": NEW,
         "tests/test_it.py": test},
        PYTHONPATH=str(site),
    )  # fmt: skip
    assert seen.status == 0, seen.output
    assert _below(seen, "product.core", subject.tree)


def test_namespace_packages(base_run: Any) -> None:
    """Folders without __init__.py, nested, also after sys.path has changed; no folder of head."""
    test = """
import sys
import product.one

def test_state():
    sys.path.insert(0, "/nowhere")  # Python looks for a namespace anew after this
    import product.inner.two
    assert (product.one.STATE, product.inner.two.STATE) == ("old", "old")
    assert [*product.__path__] == [{tree}]
"""
    one, two = "product/one.py", "product/inner/two.py"
    seen, subject, _ = base_run(
        {one: OLD, two: OLD},
        {one: NEW, two: NEW,
         "test_it.py": test.format(tree="product.one.__file__.removesuffix('/one.py')")},
    )  # fmt: skip
    assert seen.status == 0, seen.output
    assert _complaint(seen, subject) is None


def test_a_namespace_shared_with_an_installed_package(base_run: Any, tmp_path: Path) -> None:
    """Its folders outside of the project stay."""
    other = tmp_path / "site-packages"
    (other / "product").mkdir(parents=True)
    (other / "product/addon.py").write_text(NEW)
    test = """
import product.addon
import product.one

def test_state():
    assert (product.one.STATE, product.addon.STATE) == ("old", "new")
"""
    seen, _, _ = base_run(
        {"product/one.py": OLD}, {"product/one.py": NEW, "test_it.py": test}, src=(str(other),)
    )
    assert seen.status == 0, seen.output


def test_a_module_that_only_head_has(base_run: Any) -> None:
    """The error names base, the file and the tree; what only base has is found."""
    test = """
import pytest
import product.core
import relic

def test_missing():
    assert relic.STATE == product.relic.STATE == "old"
    for name in ("fresh", "product.fresh"):
        with pytest.raises(ModuleNotFoundError, match=f"'{name}' in base: .*/fresh.py is head's"):
            __import__(name)
"""
    relics = {"relic.py": OLD, "product/relic.py": OLD}
    seen, _, _ = base_run(
        {**FLAT, "product/core.py": "import product.relic\n", **relics},
        {**FLAT_NEW, **dict.fromkeys(relics), "fresh.py": NEW, "product/fresh.py": NEW,
         "test_it.py": test},
    )  # fmt: skip
    assert seen.status == 0, seen.output


def test_what_comes_from_head_on_both_sides(base_run: Any) -> None:
    """Helpers below testpaths, below tests/, and beside a test; in a package only tests/."""
    test = """
import bench_helper
import product.tests.tools
import product.test_speed
import product.core
import tests.tools
import measuring.tools

def test_state():
    assert {bench_helper.STATE, product.tests.tools.STATE, product.test_speed.STATE,
            tests.tools.STATE, measuring.tools.STATE} == {"new"}
    assert product.core.STATE == product.bench_helper.STATE == "old"
"""
    helpers = ["bench/bench_helper.py", "product/tests/tools.py", "product/tests/__init__.py",
               "product/test_speed.py", "tests/tools.py", "measuring/tools.py",
               "measuring/__init__.py"]  # fmt: skip
    core = {"product/core.py": "import product.bench_helper\nSTATE = {!r}\n"}
    both = [*helpers, "product/__init__.py", "product/bench_helper.py"]
    seen, subject, _ = base_run(
        dict.fromkeys(both, OLD) | {"product/core.py": core["product/core.py"].format("old")},
        dict.fromkeys(both, NEW) | {"product/core.py": core["product/core.py"].format("new")}
        | {"bench/test_it.py": test, "pytest.ini": INI.format("", ".")},
        "bench", ini={"testpaths": ["measuring", "."], "pythonpath": ["."]},
    )  # fmt: skip
    assert seen.status == 0, seen.output
    assert _complaint(seen, subject) is None


def test_tests_inside_the_package(base_run: Any) -> None:
    """The tests are head's, with rewritten assertions, and what they test is base's."""
    test = """
from ..core import STATE
from .tools import NUMBER

def test_state():
    assert (STATE, NUMBER) == ("old", 7), "not as expected"

def test_rewritten():
    assert NUMBER == 8
"""
    inits = {"product/__init__.py": "", "product/tests/__init__.py": ""}
    seen, subject, root = base_run(
        {**inits, "product/core.py": OLD},
        {**inits, "product/core.py": NEW, "product/tests/tools.py": "NUMBER = 7\n",
         "product/conftest.py": "", "product/tests/test_it.py": test},
    )  # fmt: skip
    assert "1 failed, 1 passed" in seen.output
    assert "assert 7 == 8" in seen.output
    assert _below(seen, "product.tests.test_it", root)
    assert _below(seen, "product.conftest", root)
    assert _complaint(seen, subject) is None


def test_tests_inside_the_package_in_importlib_mode(base_run: Any) -> None:
    """Here pytest loads the package by its path, from head: the check says so, and the remedy."""
    inits = {"product/__init__.py": "", "product/tests/__init__.py": ""}
    test = "from ..core import STATE\n\ndef test_state():\n    assert STATE == 'old'\n"
    seen, subject, root = base_run(
        {**inits, "product/core.py": OLD},
        {**inits, "product/core.py": NEW, "product/tests/test_it.py": test},
        "--import-mode=importlib",
    )
    text = _complaint(seen, subject)
    assert text is not None
    assert f"product was loaded from {root / 'product/__init__.py'}" in text
    assert "--import-mode=prepend" in text


def test_a_subject_whose_assertions_are_rewritten(base_run: Any) -> None:
    """The finder of pytest, which looks in sys.path by itself, does not get before base's."""
    test = """
import pytest
import product

def test_rewritten():
    with pytest.raises(AssertionError, match="assert 'old' == 'odd'"):
        product.check()
"""
    product = "STATE = {!r}\n\ndef check():\n    assert STATE == 'odd'\n"
    plug = "import pytest\npytest.register_assert_rewrite('product')\n"
    seen, subject, _ = base_run(
        {"product.py": product.format("old"), "plug.py": plug},
        {"product.py": product.format("new"), "plug.py": plug, "test_it.py": test},
        "-p", "plug", src=(".",),
    )  # fmt: skip
    assert seen.status == 0, seen.output
    assert _below(seen, "product", subject.tree)


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_child_processes_of_multiprocessing(
    base_run: Any, method: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """An engine of several processes runs base's code in all of them."""
    short = tempfile.TemporaryDirectory(dir="/tmp")  # the name of a socket has 107 bytes at most
    request.addfinalizer(short.cleanup)
    monkeypatch.setenv("TMPDIR", short.name)
    test = f"""
import multiprocessing
import product

def test_state():
    with multiprocessing.get_context({method!r}).Pool(1) as pool:
        assert pool.apply(product.state) == ("old", "old")
"""
    product = """
STATE = {!r}

def state():
    import part
    return STATE, part.STATE
"""
    seen, _, _ = base_run(
        {"product.py": product.format("old"), "part.py": OLD},
        {"product.py": product.format("new"), "part.py": NEW, "test_it.py": test},
    )
    assert seen.status == 0, seen.output


def test_a_virtual_environment_inside_the_project(base_run: Any) -> None:
    """Installed packages are no part of the subject, though they lie below the root."""
    name = ".venv/lib/python3/site-packages/library.py"
    test = "import library\nimport helper\n\ndef test_state():\n" + (
        "    assert (library.STATE, helper.STATE) == ('new', 'old')\n"
    )
    seen, subject, _ = base_run(
        FLAT, {**FLAT_NEW, "test_it.py": test, name: NEW}, src=(str(Path(name).parent),)
    )
    assert seen.status == 0, seen.output
    assert _complaint(seen, subject) is None


@pytest.mark.parametrize(("inner", "outer"), [("base", "head"), ("head", "base")])
def test_one_checkout_inside_the_other(
    tmp_path: Path, session: Any, side_of: Any, with_tree: Any, inner: str, outer: str
) -> None:
    """The inner one's files are not the outer one's."""
    places = {outer: tmp_path / "outer", inner: tmp_path / "outer/nested/inner"}
    places["base"].mkdir(parents=True, exist_ok=True)
    places["head"].mkdir(parents=True, exist_ok=True)
    (places["base"] / "product.py").write_text(OLD)
    (places["head"] / "product.py").write_text(NEW)
    test = "import product\n\ndef test_state():\n    assert product.STATE == 'old'\n"
    (places["head"] / "test_it.py").write_text(test)
    (places["head"] / "pytest.ini").write_text("[pytest]\n")
    subject = with_tree(side_of(places["head"]), places["base"])
    seen = session(subject, places["head"], "test_it.py")
    assert seen.status == 0, seen.output


def test_an_installed_copy_is_told(base_run: Any, tmp_path: Path) -> None:
    """What lies in site-packages is the same on both sides: the check is red, with the remedy."""
    installed = tmp_path / "site-packages/product"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("STATE = 'installed'\n")
    test = "import product\n\ndef test_it():\n    assert product.STATE == 'installed'\n"
    seen, subject, _ = base_run(
        {"src/product/__init__.py": OLD},
        {"src/product/__init__.py": NEW, "tests/test_it.py": test},
        src=(str(installed.parent),),
    )  # fmt: skip
    assert seen.status == 0, seen.output
    text = _complaint(seen, subject)
    assert text is not None
    assert f"product was loaded from {installed / '__init__.py'}" in text
    assert "uninstall it or install it editable" in text


def test_bytecode_is_not_mixed_up(
    two_states: Any, side_of: Any, session: Any, tmp_path: Path
) -> None:
    """Sources of one size and one time, all bytecode in one folder, one side after the other."""
    test = "import product\n\ndef test_state():\n    assert product.STATE == 'unknown'\n"
    project = two_states({"product.py": OLD}, {"product.py": NEW, "test_it.py": test})
    head = side_of(project.path)
    with base_side("old", head) as base:
        for side in (head, base):
            os.utime(side.tree / "product.py", (1e9, 1e9))
        for side, state in ((head, "new"), (base, "old"), (head, "new"), (base, "old")):
            prefix = str(tmp_path / "bytecode")
            seen = session(side.subject, project.path, PYTHONPYCACHEPREFIX=prefix)
            assert f"assert '{state}' == 'unknown'" in seen.output


def test_another_interpreter(repository: Any, side_of: Any, session: Any, tmp_path: Path) -> None:
    """It keeps its own packages; the project and perfsuite are head's, whatever it has itself."""
    test = """
import helper, library, perfsuite.metrics, product.core

def test_state():
    assert (product.STATE, product.core.STATE, helper.STATE, library.STATE) == ("new",) * 4
"""
    files = {f"src/{name}": text for name, text in FLAT_NEW.items()}
    repository.commit({**files, "test_it.py": test})
    python = _environment(tmp_path / "other", {
        "library.py": NEW, "product.py": OLD, "perfsuite/__init__.py": "raise ImportError('old')\n",
    })  # fmt: skip
    with base_side(str(python), side_of(repository.path)) as side:
        seen = session(
            side.subject, repository.path, "-p", "perfsuite.plugin",
            path=(repository.path / "src",), python=side.interpreter, PYTHONPATH="",
        )  # fmt: skip
    assert seen.status == 0, seen.output
    assert side.name == f"{python} (Python {platform.python_version()})"


def _environment(folder: Path, files: dict[str, str]) -> Path:
    """The Python of a new virtual environment that has these files, and pytest as here."""
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "here.pth").write_text(str(Path(pytest.__file__).parents[1]))
    for name, text in files.items():
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text(text)
    return folder / "bin/python"


def test_a_plain_run_has_the_path_of_the_pytest_process(session: Any, tmp_path: Path) -> None:
    """Nothing is redirected where nothing is compared."""
    test = "import sys\n\ndef test_it():\n    assert '/planted' in sys.path\n"
    (tmp_path / "test_it.py").write_text(test)
    assert session(None, tmp_path, "test_it.py", path=(Path("/planted"),)).status == 0
