# ruff: noqa: N803  (Triton writes constants in capitals)
"""The sum of any number of parts of an attention by their log-sum-exps, in Triton.

A softmax over all keys is the mean of the softmaxes over its parts, weighted by the exponents of
their log-sum-exps (Hydragen, arXiv 2402.05099, section 3). P parts, rows of D numbers. Which column
exists is decided for each row, never by the end of the buffer: behind a row lies the next one.
"""

from __future__ import annotations

from math import prod

import torch
import triton
import triton.language as tl
from torch import Tensor

PARTS_AT_ONCE = 16
NUMBERS = (torch.bfloat16, torch.float16, torch.float32)


@triton.jit(do_not_specialize=["parts", "rows"])
def combine_parts(
    outs,
    lses,
    out,
    lse,
    parts,
    rows,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    PARTS: tl.constexpr,
):
    """Program (row): one of `rows` from outs [P, rows, D] and lses [P, rows], PARTS at a time."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, WIDTH)
    best = tl.full([], float("-inf"), tl.float32)
    total = tl.full([], 0.0, tl.float32)
    seen = tl.full([WIDTH], 0.0, tl.float32)
    for first in range(0, parts, PARTS):
        part = first + tl.arange(0, PARTS)
        place = part * rows + row
        found = tl.load(lses + place, mask=part < parts, other=float("-inf"))
        higher = tl.maximum(best, tl.max(found, 0))
        anchor = tl.where(higher == float("-inf"), 0.0, higher)  # no key yet: exp(-inf - 0) is 0
        weights = tl.exp(found - anchor)
        fade = tl.exp(best - anchor)
        read = (weights != 0.0)[:, None] & (column < HEAD_DIM)[None, :]  # nothing of empty parts
        some = tl.load(outs + place[:, None] * HEAD_DIM + column[None, :], mask=read, other=0.0)
        total = total * fade + tl.sum(weights, 0)
        seen = seen * fade + tl.sum(weights[:, None] * some.to(tl.float32), 0)
        best = higher
    held = tl.where(total == 0.0, 1.0, total)  # no key: 0 / 1, and -inf + log(1)
    mean = (seen / held).to(out.dtype.element_ty)
    tl.store(out + row * HEAD_DIM + column, mean, mask=column < HEAD_DIM)
    tl.store(lse + row, best + tl.log(held))


def constants_for(head_dim: int, parts: int) -> dict[str, int]:
    """The kernel's, for so many parts."""
    return {
        "HEAD_DIM": head_dim,
        "WIDTH": triton.next_power_of_2(head_dim),
        "PARTS": min(PARTS_AT_ONCE, triton.next_power_of_2(parts)),
    }


def options_for(constants: dict[str, int]) -> dict[str, int]:
    """A warp for 1024 numbers."""
    warps = max(1, constants["WIDTH"] * constants["PARTS"] // 1024)
    return {"num_warps": warps, "num_stages": 1}


def combine(outs: Tensor, lses: Tensor) -> tuple[Tensor, Tensor]:
    """Parts [P, B, H, T, D] with log-sum-exps [P, B, H, T] as one part, in the parts' type.

    A part that has no key has log-sum-exp -inf; where no part has one, the result is 0 and -inf.
    Summed in float32. ValueError for shapes, types and devices that the kernel does not take.
    """
    if outs.dim() < 2 or outs.shape[:-1] != lses.shape or outs.numel() == 0:
        raise ValueError(
            f"got parts {list(outs.shape)} with log-sum-exps {list(lses.shape)}, "
            "expected [P, B, H, T, D] and [P, B, H, T], none of them 0"
        )
    if lses.dtype != torch.float32 or outs.dtype not in NUMBERS:
        raise ValueError(
            f"got parts in {outs.dtype} with log-sum-exps in {lses.dtype}, "
            "expected bfloat16, float16 or float32, and float32"
        )
    require_device(outs, lses)
    return combined(outs.contiguous(), lses.contiguous(), outs.dtype)


def combined(outs: Tensor, lses: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """As combine, of contiguous parts, unchecked; the result in `dtype`."""
    out = torch.empty(outs.shape[1:], dtype=dtype, device=outs.device)
    lse = torch.empty(lses.shape[1:], dtype=torch.float32, device=outs.device)
    parts, rows = outs.shape[0], prod(lse.shape)
    constants = constants_for(outs.shape[-1], parts)
    options = options_for(constants)
    combine_parts[(rows,)](outs, lses, out, lse, parts, rows, **constants, **options)
    return out, lse


def require_device(*tensors: Tensor) -> None:
    """ValueError unless all are on one CUDA device; Triton's interpreter takes any."""
    found = {str(tensor.device) for tensor in tensors}
    if len(found) > 1 or not (tensors[0].is_cuda or triton.knobs.runtime.interpret):
        raise ValueError(
            f"got tensors on {', '.join(sorted(found))}, expected all on one cuda device: "
            "choose torch's own attention elsewhere"
        )
