"""The shapes that can be served: a checkpoint's, or one of the documents' models by its name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

from engines.weights import tensor_shapes


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3.1's; the fields are those of engines.checkpoint."""

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_context: int


@dataclass(frozen=True)
class Shape:
    """A Llama-family model; the fields are those of engines.checkpoint."""

    name: str
    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_context: int
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-5
    activation: str = "silu"
    tied_embeddings: bool = False
    scaled_embeddings: bool = False
    norm_adds_one: bool = False
    checkpoint: str | None = None

    @property
    def parameters(self) -> int:
        """All weights."""
        return sum(prod(shape) for shape in tensor_shapes(self).values())

    @property
    def kv_values_per_token(self) -> int:
        """Cached numbers that one token of one sequence adds, over all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim


_LLAMA2 = Shape("llama2_7b", 32, 4096, 32, 32, 128, 11008, 32000, 4096)
_GEMMA = Shape(
    "gemma_2b",
    layers=18,
    hidden_size=2048,
    heads=8,
    kv_heads=1,
    head_dim=256,
    intermediate_size=16384,
    vocab_size=256000,
    max_context=8192,
    norm_eps=1e-6,
    activation="gelu_tanh",
    tied_embeddings=True,
    scaled_embeddings=True,
    norm_adds_one=True,
)
# By --model and --param_size; "tiny" is for trying things out, its tokens are the 256 bytes.
SHAPES: dict[tuple[str, str], Shape] = {
    ("llama-2", "tiny"): Shape("llama2_tiny", 3, 128, 8, 4, 16, 256, 256, 4096),
    ("llama-2", "7b"): _LLAMA2,
    ("llama-2", "13b"): replace(
        _LLAMA2, name="llama2_13b", layers=40, hidden_size=5120, heads=40, kv_heads=40,
        intermediate_size=13824,
    ),
    ("llama-3", "8b"): Shape(
        "llama3_8b", 32, 4096, 32, 8, 128, 14336, 128256, 8192, rope_theta=500_000.0
    ),
    ("gemma", "2b"): _GEMMA,
    ("gemma", "7b"): replace(
        _GEMMA, name="gemma_7b", layers=28, hidden_size=3072, heads=16, kv_heads=16,
        intermediate_size=24576,
    ),
}  # fmt: skip


def named(model: str, size: str) -> Shape:
    """ValueError for a pair that is not known, with those that are."""
    if (model, size) not in SHAPES:
        known = ", ".join(f"{model} {size}" for model, size in SHAPES)
        raise ValueError(f"got model {model!r} of size {size!r}, expected one of: {known}")
    return SHAPES[model, size]


def of_checkpoint(fields: dict[str, Any]) -> Shape:
    """From what engines.checkpoint.read_shape says."""
    scaling = fields["rope_scaling"]
    return Shape(**fields | {"rope_scaling": RopeScaling(**scaling) if scaling else None})


def require_same(found: Shape, expected: Shape) -> None:
    """ValueError where a checkpoint is not the model that was named."""
    ours = replace(found, name=expected.name, checkpoint=None, max_context=expected.max_context)
    different = [
        f"{field} {value}, expected {getattr(expected, field)}"
        for field, value in vars(ours).items()
        if value != getattr(expected, field)
    ]
    if different:
        raise ValueError(f"{found.checkpoint} is not {expected.name}: {'; '.join(different)}")
