"""The Triton kernels of shared-prefix attention, and the list of what a decode step launches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engines.hydragen import combine as combining
from engines.hydragen import split_k
from engines.hydragen.combine import combine
from engines.hydragen.split_k import decode_attention

__all__ = ["Compiled", "combine", "decode_attention", "kernels"]

NUMBERS = {"bfloat16": ("bf16", 2), "float16": ("fp16", 2), "float32": ("fp32", 4)}


@dataclass(frozen=True)
class Compiled:
    """One kernel as it is compiled for a shape."""

    name: str
    kernel: Any  # what triton.jit made
    signature: dict[str, str]  # every argument in order: "*bf16", "i32", "constexpr"
    constants: dict[str, int]
    num_warps: int
    num_stages: int


def kernels(head_dim: int, group: int, dtype: str) -> list[Compiled]:
    """What attention of one token launches, with `group` query heads for a key/value head.

    dtype: "bfloat16", "float16" or "float32". Integers are never specialised, so that one program
    serves all lengths, strides and numbers of heads.
    """
    short, itemsize = NUMBERS[dtype]
    number, single = f"*{short}", "*fp32"
    attend = split_k.constants_for(head_dim, group, 1, itemsize)
    many = combining.constants_for(head_dim, combining.PARTS_AT_ONCE)
    two = combining.constants_for(head_dim, 2)
    inputs = {"queries": number, "keys": number, "values": number}
    options = split_k.options_for(attend, itemsize)
    return [
        _attend("attend", attend, options, inputs | {"out": number}),
        _attend("attend_splits", attend, options, inputs | {"out": single}),
        _combine("combine_splits", many, {"outs": single, "out": number}),
        _combine("combine_two", two, {"outs": number, "out": number}),
    ]


def _attend(
    name: str, constants: dict[str, int], options: dict[str, int], types: dict[str, str]
) -> Compiled:
    types = types | {"lengths": "*i32", "lse": "*fp32", "scale": "fp32"}
    signature = _signature(split_k.attend_split, constants, types)
    return Compiled(name, split_k.attend_split, signature, constants, **options)


def _combine(name: str, constants: dict[str, int], types: dict[str, str]) -> Compiled:
    types = types | {"lses": "*fp32", "lse": "*fp32"}
    signature = _signature(combining.combine_parts, constants, types)
    options = combining.options_for(constants)
    return Compiled(name, combining.combine_parts, signature, constants, **options)


def _signature(kernel: Any, constants: dict[str, int], types: dict[str, str]) -> dict[str, str]:
    known = types | dict.fromkeys(constants, "constexpr")
    return {argument: known.get(argument, "i32") for argument in kernel.arg_names}
