"""Where an operator is called: the path of a module, or a function of the program's own."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from perfsuite.static.place import Place  # noqa: E402


def test_the_innermost_module_that_runs_is_named_by_its_path() -> None:
    """From the outermost one's class on."""
    found = []

    class Block(torch.nn.Module):
        def forward(self, x: object) -> object:
            found.append(place())
            return x

    with Place() as place:
        torch.nn.Sequential(Block(), torch.nn.Sequential(Block()))(torch.empty(1))
    assert found == ["Sequential.0", "Sequential.1.0"]


def test_without_modules_it_is_the_innermost_function_of_no_library() -> None:
    """Here called by torch, which is a library."""
    found = []

    def attend(_: object) -> None:
        found.append(place())

    with Place() as place:
        torch.utils._pytree.tree_map(lambda x: attend(x), [1])
    (name,) = found
    assert name.endswith("test_without_modules_it_is_the_innermost_function_of_no_library.attend")


def test_what_calls_the_program_is_not_the_program() -> None:
    """An operator that is called directly has no place."""
    with Place() as place:
        assert place() == ""
