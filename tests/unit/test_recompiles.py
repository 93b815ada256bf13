"""Graph breaks and recompiles over lengths, on tensors without data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from perfsuite.errors import Void  # noqa: E402
from perfsuite.static import compiled  # noqa: E402

BREAKS = "static_graph_breaks/aot_eager"
RECOMPILES = "static_recompiles/aot_eager"


class Program:
    """A product, traced with the inputs that `lengths` makes of each length."""

    name = "prefill"

    def __init__(self, target: str, traced: Callable[[Any, Any], Any], lengths: Sequence[int]):
        self._target, self._traced, self._lengths = target, traced, lengths

    def make(self) -> Callable[[], object]:
        self._w = torch.empty(8, 4, device=self._target)
        return lambda: torch.empty(2, 8, device=self._target) @ self._w

    def lengths(self) -> list[Callable[[], object]]:
        return [self._of(length) for length in self._lengths]

    def _of(self, length: int) -> Callable[[], object]:
        x = torch.empty(length, 8, device=self._target)
        return lambda: self._traced(x, self._w)


TARGETS = pytest.mark.parametrize("target", ["cpu", "cuda"])


@TARGETS
def test_one_shape_is_one_graph(target: str) -> None:
    """Nothing to say of it."""
    found = compiled(Program(target, lambda x, w: x @ w, [4, 4, 4]), "torch", target)
    assert (found.figures[BREAKS], found.figures[RECOMPILES]) == (0, 0)
    assert not {"first graph break", "first recompile"} & set(found.words)


@TARGETS
def test_other_lengths_are_made_dynamic_once(target: str) -> None:
    """The second length is a recompile, those after it fit; its reason names the dimension."""
    found = compiled(Program(target, lambda x, w: x @ w, [4, 5, 6, 7]), "torch", target)
    assert (found.figures[BREAKS], found.figures[RECOMPILES]) == (0, 1)
    assert "size mismatch at index 0. expected 4, actual 5" in found.words["first recompile"]


@TARGETS
def test_a_program_that_depends_on_its_length_recompiles_for_each(target: str) -> None:
    """A table of lengths ties the graph to one."""

    def planted(x: Any, w: Any) -> Any:
        return x @ w * [1.0, 2.0, 3.0, 4.0, 5.0][x.shape[0] - 3]

    found = compiled(Program(target, planted, range(3, 8)), "torch", target)
    assert found.figures[RECOMPILES] == 4


@TARGETS
def test_a_graph_break_is_counted_once_and_named(target: str) -> None:
    """However many lengths meet it; in words the function and the reason."""

    def planted(x: Any, w: Any) -> Any:
        y = x @ w
        torch._dynamo.graph_break()
        return y + 1

    found = compiled(Program(target, planted, [4, 5]), "torch", target)
    assert found.figures[BREAKS] == 1
    assert found.words["first graph break"].startswith("planted in test_recompiles.py: Call to ")


def test_a_program_without_lengths_has_neither_figure() -> None:
    """Tracing costs seconds, so it is asked for."""
    program = Program("cpu", lambda x, w: x @ w, [])
    program.lengths = None  # type: ignore[method-assign, assignment]
    assert not {BREAKS, RECOMPILES} & set(compiled(program, "torch", "cpu").figures)


def test_what_a_length_raises_names_the_program() -> None:
    """And which length it was."""

    def wrong(x: Any, w: Any) -> Any:
        return x @ w if x.shape[0] == 4 else x @ x

    with pytest.raises(Void, match=r"^prefill: length 1 under torch\.compile raised "):
        compiled(Program("cpu", wrong, [4, 5]), "torch", "cpu")


def test_dynamo_is_left_as_in_a_new_process() -> None:
    """Nothing that was traced is counted as compiled later."""
    compiled(Program("cpu", lambda x, w: x @ w, [4, 5]), "torch", "cpu")
    assert not torch._dynamo.utils.guard_failures
    assert not torch._dynamo.utils.graph_break_reasons
