"""Facts of a full-size program that need no device, no weights and no clock.

Each framework has a module with `facts(program, target) -> {metric id: value}`.
"""

from __future__ import annotations

import importlib

from perfsuite.errors import EngineUnavailable
from perfsuite.protocols import Program

_MODULES = {"torch": "perfsuite.static.torch_fake"}


def facts_of(program: Program, framework: str, target: str) -> dict[str, float]:
    """The static figures of one program for `cpu` or `cuda`."""
    if framework not in _MODULES:
        raise EngineUnavailable(f"no static tier knows {framework or 'plain host'} programs")
    module = importlib.import_module(_MODULES[framework])
    figures: dict[str, float] = module.facts(program, target)
    return figures
