"""Where arrays lie: one axis of devices, over the heads ("model") or over the slots ("batch").

An array's shape is given by letters ("BKNCP"), and a split names the letters that are divided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "shards"
SPLITS = {"none": "", "heads": "HKIV", "head_dim": "DPIV", "batch": "B"}


@dataclass(frozen=True)
class Sharding:
    """`split` is a key of SPLITS; no array has two letters of one split."""

    mesh: Mesh
    split: str

    @property
    def platform(self) -> str:
        """What JAX calls the kind of the devices: "cpu", "gpu", "tpu"."""
        return str(self.mesh.devices.flat[0].platform)

    def divides(self, letter: str) -> bool:
        """Whether an axis of this letter lies on several devices."""
        return letter in SPLITS[self.split]

    def place(self, letters: str) -> NamedSharding:
        """How an array of this shape is divided; one without a letter of the split is whole."""
        parts = [AXIS if self.divides(letter) else None for letter in letters]
        return NamedSharding(self.mesh, PartitionSpec(*parts))


def sharding_over(
    devices: Sequence[Any], model: Any, *, batch: int, on_batch: bool = False
) -> Sharding:
    """The sharding of a model's engine; ValueError where something does not divide."""
    count = len(devices)
    split = "none" if count == 1 else "batch" if on_batch else _model_split(model, count)
    for what, size in _divided(model, batch)[split].items():
        if size % count:
            raise ValueError(
                f"{model.name}: {what} of {size} does not divide over {count} devices: "
                "choose another number of devices or another size"
            )
    return Sharding(Mesh(np.array(devices), (AXIS,)), split)


def _model_split(model: Any, count: int) -> str:
    """Heads where each device gets as many key/value heads, else a part of every head."""
    return "head_dim" if model.kv_heads % count else "heads"


def _divided(model: Any, batch: int) -> dict[str, dict[str, int]]:
    shared = {"intermediate size": model.intermediate_size, "vocabulary": model.vocab_size}
    return {
        "none": {},
        "batch": {"batch": batch},
        "heads": {"key/value heads": model.kv_heads} | shared,
        "head_dim": {"head dimension": model.head_dim} | shared,
    }
