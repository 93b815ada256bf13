"""What is handed over of Hydragen's Triton kernels: to be compiled for GPUs, without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

RUNS = ("hydragen", "kernels", "triton")


@dataclass(frozen=True)
class HydragenKernelsOffer:
    """The kernels for a model's head size and query heads of a group; nothing to open."""

    name: str = "hydragen_kernels"
    default: bool = True
    framework: str = "triton"

    def refuses(self, workload: Any, device: str) -> str | None:
        """Why these kernels are not the workload's, or None."""
        if device.split(":")[0] != "cuda":
            return f"{self.name} has no {device} support"
        asked = workload.document, workload.kind, workload.mode
        return None if asked == RUNS else f"{self.name} has no {workload.kind} {workload.mode}"

    def programs(self, workload: Any, target: str) -> Sequence[Any]:
        """Each kernel with its signature for the model's shapes; Triton must be installed."""
        if target != "cuda":
            raise ValueError(f"{self.name} compiles for cuda, not for {target}")
        from engines.hydragen import kernels

        model = workload.model
        return kernels.kernels(model.head_dim, model.heads // model.kv_heads, workload.dtype)
