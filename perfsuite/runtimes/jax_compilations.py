"""Every program that JAX compiles in this process, and JAX's own reason for it.

XLA's compiler tells its work to `jax.monitoring`: a program that is loaded from JAX's persistent
cache counts too, for loading takes time as well. The reason is logged before the program is traced,
under the same name.
"""

from __future__ import annotations

import logging
from typing import Any

import jax
from jax import monitoring

from perfsuite.runtimes.cache_misses import Miss, read_miss

COMPILED = "/jax/core/compile/backend_compile_duration"  # one event for each program
_EXPLAINER = "jax._src.interpreters.partial_eval"
_UNEXPLAINED = "JAX gives no reason: another sharding, layout or device, or a program of its own"
_MOST_CAUSES = 3


class Compilations:
    """The programs compiled since `listen`, in their order."""

    def __init__(self) -> None:
        self._programs: list[Miss] = []
        self._traced: dict[str, Miss] = {}  # by function: traced, and not compiled yet

    def __len__(self) -> int:
        return len(self._programs)

    def listen(self) -> None:
        """Hear of every compilation from now on; JAX keeps a listener for the process's life."""
        monitoring.register_event_duration_secs_listener(self.compiled)
        config: Any = jax.config  # its annotations know no option
        if not config.jax_explain_cache_misses:
            config.update("jax_explain_cache_misses", True)
            logging.getLogger(_EXPLAINER).addFilter(self.explained)

    def compiled(self, event: str, duration_secs: float, **kwargs: str | int) -> None:  # noqa: ARG002
        """An event of jax.monitoring; `fun_name` is `jit(name)`."""
        if event != COMPILED:
            return
        name = str(kwargs.get("fun_name", "a program"))
        name = name.removeprefix("jit(").removesuffix(")") if name.startswith("jit(") else name
        self._programs.append(self._traced.pop(name, Miss(name, note=_UNEXPLAINED)))
        self._traced.clear()  # what it calls was traced for it alone

    def explained(self, record: logging.LogRecord) -> bool:
        """Keep an explanation, and keep it from the log, where nobody asked for it."""
        text = record.getMessage()
        if not text.startswith("TRACING CACHE MISS"):
            return True
        miss = read_miss(text)
        if miss is not None:
            self._traced[miss.function] = miss
        return False

    def reasons(self, since: int) -> str:
        """One line: the functions compiled after the first `since` programs, and what changed."""
        causes: dict[tuple[str, ...], list[Miss]] = {}
        for miss in self._programs[since:]:
            causes.setdefault(miss.cause, []).append(miss)
        told = [_told(misses) for misses in list(causes.values())[:_MOST_CAUSES]]
        more = len(causes) - len(told)
        return " | ".join(told) + (f" | and {more} more" if more > 0 else "")


def _told(misses: list[Miss]) -> str:
    times = f", {len(misses)} times" if len(misses) > 1 else ""
    return f"{misses[0]}{times}"
