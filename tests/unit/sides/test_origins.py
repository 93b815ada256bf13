"""Which loaded modules are the project's, and what is said when they came from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from perfsuite.boot import INSTRUMENT, Subject
from perfsuite.origins import complaint, loaded, project_modules


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    """Two checkouts with a package, a module, tests and what else lies in a root."""
    for tree in ("head", "base"):
        for name in ("product/__init__.py", "product/core.py", "single.py", "native.cpython-311.so",
                     "src/inner/__init__.py", "tests/__init__.py", "test_it.py", "conftest.py",
                     "scripts/run.py", "platform.py", "not-a-module.py"):  # fmt: skip
            (tmp_path / tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / tree / name).touch()
    head, base = str(tmp_path / "head"), str(tmp_path / "base")
    return Subject(head, base, roots=(head, f"{head}/src"))


def _modules(**files: Any) -> dict[str, ModuleType]:
    modules = {}
    for name, file in files.items():
        module = modules[name.replace("__", ".")] = ModuleType(name)
        module.__dict__["__file__"] = file
    return modules


def test_names_of_the_project(subject: Subject) -> None:
    """Packages and modules in the roots; no test, no plain folder, nothing of Python's own."""
    assert set(project_modules(subject)) == {"product", "single", "native", "inner"}
    (Path(subject.head) / "lib").mkdir()
    (Path(subject.head) / "lib/late.py").touch()
    assert "late" in project_modules(subject, [f"{subject.head}/lib", "/elsewhere"])


def test_what_is_told_of_a_process(subject: Subject) -> None:
    """Modules in either checkout, and those of the project's names anywhere."""
    modules = _modules(
        product=f"{subject.tree}/product/__init__.py",
        product__core="/site-packages/product/core.py",
        anything=f"{subject.head}/anything.py",
        conftest=f"{subject.head}/conftest.py",
        test_it=f"{subject.head}/test_it.py",
        platform="/usr/lib/platform.py",
        library="/site-packages/library.py",
        productive="/site-packages/productive.py",
        perfsuite=f"{INSTRUMENT}/__init__.py",
        odd="_relative.py",
        nothing=None,
    )
    modules["broken"] = None  # type: ignore[assignment]
    told = json.loads(json.dumps(loaded(subject, modules, [])))
    assert {name for name, _ in told} == {"product", "product.core", "anything"}


def test_a_side_that_ran_its_own(subject: Subject) -> None:
    """No complaint, also when head has loaded nothing of the project yet."""
    assert complaint("old", subject, [["product", f"{subject.tree}/product/__init__.py"]]) is None
    head = Subject(subject.head, subject.head)
    assert complaint("head", head, [["product", f"{subject.head}/product/__init__.py"]]) is None
    assert complaint("head", head, []) is None


def test_modules_from_elsewhere(subject: Subject) -> None:
    """Each is named with its file, a few of many; the remedy fits the place."""
    file = "/venv/lib/site-packages/product/__init__.py"
    text = complaint("old", subject, [["product", file]] + [["product.core", "/x.py"]] * 4)
    assert text is not None
    assert text.splitlines()[:1] == [f"product was loaded from {file}"]
    assert "and 2 more" in text
    assert f"expected below {subject.tree}, the modules of old" in text
    assert "install it editable" in text
    text = complaint("old", subject, [["product", f"{subject.head}/product/__init__.py"]])
    assert text is not None
    assert "--import-mode=prepend" in text


def test_a_base_without_a_module_of_the_project(subject: Subject) -> None:
    """Nothing was compared; what counts as a test is said, for it may be all there is."""
    text = complaint("old", subject, [])
    assert text is not None
    assert text.startswith(f"nothing of the project was loaded from {subject.tree}")
    assert "head and base ran the same code" in text
    assert "conftest.py, test_*.py, *_test.py, tests/" in text
