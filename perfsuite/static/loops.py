"""How often a compiled loop turns, found by running its counter: scalar integers only."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from perfsuite.static.hlo import Computation, Instruction, Module

_MOST = 1_000_000  # turns; whoever loops longer is not counted by turning
_SAME = ("copy", "convert", "bitcast", "reshape", "copy-start", "copy-done", "optimization-barrier")
_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "minimum": min,
    "maximum": max,
    "and": operator.and_,
    "or": operator.or_,
}
_DIRECTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "LT": operator.lt,
    "LE": operator.le,
    "GT": operator.gt,
    "GE": operator.ge,
    "EQ": operator.eq,
    "NE": operator.ne,
}


def turns(module: Module, caller: Computation, loop: Instruction) -> int | None:
    """How often the body of a `while` runs, None where its counter can not be followed."""
    condition = module.computations[loop.attribute("condition")]
    body = module.computations[loop.attribute("body")]
    state = _Values(module, caller, ()).of(loop.operands[0])
    for count in range(_MOST):
        goes_on = _Values(module, condition, (state,)).of(condition.root.name)
        if goes_on is None or state is None:
            return None
        if not goes_on:
            return count
        state = _Values(module, body, (state,)).of(body.root.name)
    return None


class _Values:
    """The known scalars of a computation, given those of its parameters; None is not known."""

    def __init__(self, module: Module, of: Computation, given: tuple[Any, ...]) -> None:
        self._module, self._computation, self._given = module, of, given
        self._known: dict[str, Any] = {}

    def of(self, name: str) -> Any:
        if name not in self._known:
            self._known[name] = None  # what reads itself is not known
            self._known[name] = self._evaluate(self._computation[name])
        return self._known[name]

    def _evaluate(self, instruction: Instruction) -> Any:
        code, operands = instruction.opcode, instruction.operands
        if code == "parameter":
            given = self._given
            return given[instruction.number] if instruction.number < len(given) else None
        if code == "tuple":
            return [self.of(name) for name in operands]
        if code == "get-tuple-element":
            inner = self.of(operands[0])
            return inner[instruction.number] if isinstance(inner, list) else None
        if instruction.array.elements != 1:
            return None
        return self._scalar(instruction, [self.of(name) for name in operands])

    def _scalar(self, instruction: Instruction, given: list[Any]) -> Any:
        code = instruction.opcode
        if code == "constant":
            return _literal(instruction.literal)
        if code == "fusion":
            called = self._module.computations[instruction.attribute("calls")]
            return _Values(self._module, called, tuple(given)).of(called.root.name)
        if None in given or not given:
            return None
        if code in _SAME:
            return given[0]
        if code == "compare":
            return _DIRECTIONS[instruction.attribute("direction")](given[0], given[1])
        if code == "select":
            return given[1] if given[0] else given[2]
        function = _ARITHMETIC.get(code)
        return function(given[0], given[1]) if function else None


def _literal(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    try:
        return int(text)
    except ValueError:
        return None
