"""How a model's matrices are held: quantised by torchao, or as they are.

A scheme has a `name`, says itself in words, and knows `empty(rows, width)`, `fill(held, matrix)`,
`linear(x, weight)` and `numbers(held)`, what a quantised matrix stands for. torchao is imported
only where something is quantised.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

GROUPS = (128, 64, 32)  # of int4, the largest that divides every width; 128 is torchao's own choice
INT8_WIDTH = 16  # what int8 widths, and int4 heights, are multiples of: the operators' blocks
INT4_ROWS = 16


def missing_scheme(model: Any, scheme: str, dtype: str, device: str) -> str | None:
    """Why the library or its operators cannot hold the model so, or None."""
    if not scheme:
        return None
    if find_spec("torchao") is None:
        return f"{scheme}: the package torchao is not installed (perfsuite's extra torchao has it)"
    if scheme == "int4wo" and device.startswith("cuda") and dtype != "bfloat16":
        return f"int4wo in {dtype} on cuda: torchao packs it for bfloat16"
    if scheme == "int8wo":
        return _missing_multiple(scheme, "width", widths(model), INT8_WIDTH)
    narrow = _missing_multiple(scheme, "width", widths(model), GROUPS[-1])
    return narrow or _missing_multiple(scheme, "height", heights(model), INT4_ROWS)


def scheme_for(model: Any, scheme: str, dtype: Any, device: str) -> Any:
    """The scheme of that name for a device, or None where nothing is quantised."""
    if scheme == "int8wo":
        from engines.torchao_llama.int8_weights import Int8Weights

        return Int8Weights(dtype, device)
    if scheme == "int4wo":
        from engines.torchao_llama.int4_weights import CpuInt4Weights, CudaInt4Weights

        group = group_for(model)
        return CpuInt4Weights(dtype, group) if device == "cpu" else CudaInt4Weights(device, group)
    return None


def group_for(model: Any) -> int:
    """Weights that share a scale in int4."""
    return next(size for size in GROUPS if not any(width % size for width in widths(model)))


def widths(model: Any) -> tuple[int, ...]:
    """Inputs of the model's matrices."""
    return model.hidden_size, model.heads * model.head_dim, model.intermediate_size


def heights(model: Any) -> tuple[int, ...]:
    """Outputs of the model's matrices, projections that read the same input being one."""
    joined = (model.heads + 2 * model.kv_heads) * model.head_dim
    return joined, model.hidden_size, 2 * model.intermediate_size, model.vocab_size


def _missing_multiple(scheme: str, what: str, sizes: tuple[int, ...], unit: int) -> str | None:
    odd = [size for size in sizes if size % unit]
    return f"{scheme} of a {what} of {odd[0]}: it takes multiples of {unit}" if odd else None
