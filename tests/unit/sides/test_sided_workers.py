"""Worker processes of both sides, from their start to the origins that they answer with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from perfsuite import boot
from perfsuite.crew import ItemRun, Order, Worker
from perfsuite.origins import complaint
from perfsuite.trees import Side, base_side

_TEST = """
import product

def test_it(perf):
    perf(lambda: None)
    assert product.STATE == "of no side"
"""


@pytest.fixture
def run(repository: Any) -> Iterator[Callable[[Side | None], ItemRun]]:
    """Run `test_it` in a worker of one side, in the repository's folder."""
    workers = []

    def ask(side: Side | None) -> ItemRun:
        arguments = ["--perf", "--perf-device=cpu", "-p", "no:cacheprovider", "test_it.py"]
        worker = Worker(arguments, repository.path, side)
        workers.append(worker)
        worker.wait_until_ready(60)
        return worker.run(Order("test_it.py::test_it", None, True, budget_s=0.02, timeout_s=60))

    yield ask
    for worker in workers:
        worker.kill()


@pytest.fixture
def project(two_states: Any) -> Any:
    """One test of head over a product of two states."""
    new = {"product.py": "STATE = 'new'\n", "test_it.py": _TEST, "conftest.py": ""}
    return two_states({"product.py": "STATE = 'old'\n"}, new)


def _state(run: ItemRun) -> str:
    failure = run.failure
    assert failure is not None
    return str(failure["text"].partition("AssertionError: assert '")[2].partition("'")[0])


def test_both_sides_run_their_own(project: Any, side_of: Any, run: Any) -> None:
    """One test, two products; each says which file it was."""
    head = side_of(project.path)
    with base_side("old", head) as base:
        for side, state in ((head, "new"), (base, "old")):
            item = run(side)
            assert _state(item) == state
            assert item.measured
            assert item.origins == [["product", str(side.tree / "product.py")]]
            assert complaint(side.name, side.subject, item.origins) is None


def test_a_plain_run_tells_no_origins(project: Any, run: Any) -> None:
    """As ever: the product is the working tree's."""
    item = run(None)
    assert _state(item) == "new"
    assert item.origins == []


def test_without_the_finder_the_worker_is_found_out(
    project: Any, side_of: Any, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted bug: base's worker imports as head does; what it answers is refused."""
    broken = tmp_path / "boot.py"
    source = Path(boot.__file__).read_text()
    broken.write_text(source.replace("SubjectFinder(subject), ", ""))
    monkeypatch.setattr(boot, "__file__", str(broken))
    with base_side("old", side_of(project.path)) as base:
        item = run(base)
        text = complaint(base.name, base.subject, item.origins)
    assert _state(item) == "new"
    assert text is not None
    assert f"product was loaded from {project.path / 'product.py'}" in text


def test_a_test_that_uses_nothing_of_the_project(project: Any, side_of: Any, run: Any) -> None:
    """Head and base would be the same: refused on the side of base, not on head's."""
    project.write({"test_it.py": "def test_it(perf):\n    perf(lambda: None)\n"})
    head = side_of(project.path)
    with base_side("old", head) as base:
        text = complaint(base.name, base.subject, run(base).origins)
        assert complaint(head.name, head.subject, run(head).origins) is None
    assert text is not None
    assert "nothing of the project was loaded from" in text
