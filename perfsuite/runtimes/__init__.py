"""What the measuring process needs to know of a framework; imported in worker processes only.

A runtime is a module with six functions:

    wait(result)                        block until the device has finished this result
    peak(call, device)                  the highest level while `call` runs, a peaks.Peak or None
    opened(opening, device)             what `opening()` returns, and the bytes by which the sum of
                                        its framework's allocations rose at most, None if unknown
    ceilings(device, dtype)             what the machine showed, a roofline.Ceilings or None
    compilations()                      how many programs have been compiled so far
    probes(device)                      {metric id: operations/s or bytes/s} of short probes, some
                                        25 ms together: what the machine can do at this moment

and, where the framework tells, a seventh:

    compiled_since(count)               one line: the programs after the first `count`, and why
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

_MODULES = {
    "torch": "perfsuite.runtimes.torch_runtime",
    "jax": "perfsuite.runtimes.jax_runtime",
    "": "perfsuite.runtimes.host_runtime",
}


def runtime(framework: str) -> ModuleType:
    """The runtime of a framework; one that is not known is measured as plain host code."""
    return importlib.import_module(_MODULES.get(framework, _MODULES[""]))


def loaded() -> str:
    """The framework that this process has already imported, for callables that name none."""
    return next((name for name in _MODULES if name and name in sys.modules), "")


def wait_for_all(result: object) -> None:
    """Wait with every framework that this process has imported: a callable names none."""
    for name in _MODULES:
        if name and name in sys.modules:
            runtime(name).wait(result)
