"""Where in a torch program an operator is called: its module's path, else its own function."""

from __future__ import annotations

import sys
from types import FrameType, TracebackType
from typing import Any

from torch.utils.module_tracker import ModuleTracker

_LIBRARIES = ("torch", "torchao", "perfsuite")  # whose functions say nothing of the program


class Place:
    """Within, `place()` is `Model.layers.0.mlp`, or `engine.decoder.Decoder.scores`, or ""."""

    def __init__(self) -> None:
        self._modules: Any = ModuleTracker()  # its methods have no types
        self._outermost: FrameType | None = None

    def __enter__(self) -> Place:
        self._outermost = sys._getframe(1)
        self._modules.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._outermost = None
        self._modules.__exit__(kind, problem, trace)

    def __call__(self) -> str:
        """The innermost module of torch that runs, else the innermost function of no library."""
        running: set[str] = self._modules.parents
        module = max(running - {"Global"}, key=len, default="")
        return module or self._function()

    def _function(self) -> str:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame is not self._outermost:
            module = str(frame.f_globals.get("__name__", ""))
            if module.partition(".")[0] not in _LIBRARIES:
                return f"{module}.{frame.f_code.co_qualname}".replace(".<locals>", "")
            frame = frame.f_back
        return ""
