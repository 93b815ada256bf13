"""What a static module hands back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Compiled:
    """Figures by metric id, and in words what a reader would ask when one of them moves."""

    figures: Mapping[str, float]
    words: Mapping[str, str] = field(default_factory=dict)
