"""Graph breaks and recompiles of a torch program over a range of lengths.

Its functions are traced by torch.compile, one after the other, as far as AOTAutograd: under fake
tensors, on any device, nothing is computed and Inductor is not asked. A length that the graphs of
those before do not take is a recompile; a place where Python has to go on is a graph break.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from perfsuite.protocols import Program
from perfsuite.static.compiled import Compiled
from perfsuite.static.own_errors import result_of

_dynamo: Any = torch._dynamo  # annotated in parts
_WIDEST = 120  # characters of a reason


def facts(program: Program) -> Compiled:
    """Nothing for a program without `lengths`; else both counts, and why the first of each."""
    lengths = getattr(program, "lengths", None)
    if lengths is None:
        return Compiled({})
    calls = result_of(program, "lengths()", lengths)
    with _fresh(len(calls)):
        recompiled = list(_recompiled(program, calls))
        broken = list(dict.fromkeys(map(_break, _dynamo.utils.graph_break_reasons)))
    figures = {
        "static_graph_breaks/aot_eager": float(len(broken)),
        "static_recompiles/aot_eager": float(len(recompiled)),
    }
    words = {"first graph break": broken[:1], "first recompile": recompiled[:1]}
    return Compiled(figures, {name: text[0] for name, text in words.items() if text})


@contextmanager
def _fresh(calls: int) -> Iterator[None]:
    """Dynamo as in a new process, before and after; its limit of recompiles is never met."""
    _dynamo.reset()
    try:
        with _dynamo.config.patch(recompile_limit=calls + 1):
            yield
    finally:
        _dynamo.reset()


def _recompiled(program: Program, calls: Sequence[Callable[[], object]]) -> Iterator[str]:
    """The reason of every recompile."""
    for number, call in enumerate(calls):
        _dynamo.utils.clear_compilation_metrics()
        run = torch.compile(call, backend="aot_eager")
        result_of(program, f"length {number} under torch.compile", run)
        yield from _reasons(_dynamo.utils.get_compilation_metrics())


def _reasons(metrics: Iterable[Any]) -> Iterator[str]:
    for one in metrics:
        if one.recompile_reason:
            reason = re.sub(r"^\d+/\d+: ", "", one.recompile_reason)
            yield f"{one.co_name}: {_short(reason)}"


def _break(reason: Any) -> str:
    """`attend in decoder.py: Call to print()`."""
    where = reason.user_stack[-1] if reason.user_stack else None
    place = f"{where.name} in {Path(where.filename).name}: " if where else ""
    return place + _short(reason.reason)


def _short(text: str) -> str:
    """The first line without a comment, and without what differs from process to process."""
    line = text.strip().partition("\n")[0].partition(" # ")[0].rstrip()
    return re.sub(r"\b\d{9,}\b", "*", line)[:_WIDEST]
