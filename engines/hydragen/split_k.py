# ruff: noqa: N803  (Triton writes constants in capitals)
"""Attention of a few queries on a long cache, with the keys split over programs, in Triton.

Letters of the shapes: B sequences, H query heads, K key/value heads, G = H / K, T queries of a
sequence, D head_dim, C places of the cache, S splits.

A program takes the G * T queries of one key/value head as one tile, so a key is read once for all
of them (tiles of more queries than a tensor core's 16 are neighbours, and the cache has the key),
and walks over its split of the live keys with a running maximum (Milakov and Gimelshein, arXiv
1805.02867). Lengths are on the device and are divided there, so that a captured graph stays
valid and every split has its share while sequences grow; the number of splits follows from shapes.

Which key and which column exist is decided for each row, never by the end of a buffer: behind a row
lies the next one. Tensors are counted in rows of D numbers without gaps; so the alignment of a row
is known when the kernel is compiled, whatever the strides.
"""

from __future__ import annotations

from math import ceil, e, log2, sqrt

import torch
import triton
import triton.language as tl
from torch import Tensor

from engines.hydragen.combine import NUMBERS, combined, require_device

LN2 = tl.constexpr(0.6931471805599453)
TILE_BYTES = 16_384  # of keys in one step; as much of values
DOT_SIDE = 16  # the least that a tensor core takes; tiles of more queries are short of registers
SPLIT_KEYS = 256  # fewer are not worth a part's way through memory
MOST_SPLITS = 128
RESIDENT = 2  # programs of a multiprocessor that hide each other's waiting
STRIDES = [f"{name}_{axis}" for name in ("query", "key", "value") for axis in ("b", "h", "t")]


@triton.jit(do_not_specialize=["kv_heads", *STRIDES])
def attend_split(
    queries,
    keys,
    values,
    lengths,
    out,
    lse,
    scale,
    kv_heads,
    query_b,
    query_h,
    query_t,
    key_b,
    key_h,
    key_t,
    value_b,
    value_h,
    value_t,
    HEAD_DIM: tl.constexpr,
    GROUP: tl.constexpr,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Program (tile of rows of a pair (b, k), split): out [S, B, H, T, D] and lse [S, B, H, T].

    scale: log2(e) / sqrt(D), because exponents are of 2. Strides are in rows of D numbers.
    """
    tiles: tl.constexpr = (GROUP * TOKENS + ROWS - 1) // ROWS
    pair = (tl.program_id(0) // tiles).to(tl.int64)
    batch = pair // kv_heads
    kv_head = pair % kv_heads
    split = tl.program_id(1)
    splits = tl.num_programs(1)
    length = tl.load(lengths + batch)
    share = ((length + splits - 1) // splits + KEYS - 1) // KEYS * KEYS
    start = split * share
    stop = tl.minimum(start + share, length)

    row = tl.program_id(0) % tiles * ROWS + tl.arange(0, ROWS)  # head of the group * T + query
    column = tl.arange(0, WIDTH)
    in_row = (column < HEAD_DIM)[None, :]
    in_tile = (row < GROUP * TOKENS)[:, None] & in_row
    place = batch * query_b + (kv_head * GROUP + row // TOKENS) * query_h + row % TOKENS * query_t
    q = tl.load(queries + place[:, None] * HEAD_DIM + column[None, :], mask=in_tile, other=0.0)
    key_rows = keys + (batch * key_b + kv_head * key_h) * HEAD_DIM + column[None, :]
    value_rows = values + (batch * value_b + kv_head * value_h) * HEAD_DIM + column[None, :]

    best = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.full([ROWS], 0.0, tl.float32)
    seen = tl.full([ROWS, WIDTH], 0.0, tl.float32)
    for first in range(start, stop, KEYS):
        key = first + tl.arange(0, KEYS)
        live = key < stop  # one at least
        read = live[:, None] & in_row
        k = tl.load(key_rows + (key * key_t * HEAD_DIM)[:, None], mask=read, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where(live[None, :], scores, float("-inf"))
        higher = tl.maximum(best, tl.max(scores, 1))
        weights = tl.exp2(scores - higher[:, None])
        fade = tl.exp2(best - higher)
        # Dead values are read as 0: a weight of 0 times what lies there may not be a number.
        v = tl.load(value_rows + (key * value_t * HEAD_DIM)[:, None], mask=read, other=0.0)
        total = total * fade + tl.sum(weights, 1)
        seen = tl.dot(weights.to(v.dtype), v, seen * fade[:, None], input_precision="ieee")
        best = higher

    held = tl.where(total == 0.0, 1.0, total)  # no key: 0 / 1, and -inf + log2(1)
    mean = (seen / held[:, None]).to(out.dtype.element_ty)
    place = (split.to(tl.int64) * (tl.num_programs(0) // tiles) + pair) * (GROUP * TOKENS) + row
    tl.store(out + place[:, None] * HEAD_DIM + column[None, :], mean, mask=in_tile)
    tl.store(lse + place, (best + tl.log2(held)) * LN2, mask=row < GROUP * TOKENS)


def constants_for(head_dim: int, group: int, tokens: int, itemsize: int) -> dict[str, int]:
    """The kernel's; the last tile of queries is padded to what a tensor core takes."""
    width = max(DOT_SIDE, triton.next_power_of_2(head_dim))
    return {
        "HEAD_DIM": head_dim,
        "GROUP": group,
        "TOKENS": tokens,
        "ROWS": DOT_SIDE,
        "KEYS": _keys_at_once(head_dim, width * itemsize, itemsize),
        "WIDTH": width,
    }


def _keys_at_once(head_dim: int, row_bytes: int, itemsize: int) -> int:
    """Few where rows are not of 16 bytes: each number then takes an address of its own."""
    if head_dim * itemsize % 16:
        return DOT_SIDE
    return min(64, max(DOT_SIDE, TILE_BYTES // row_bytes))


def options_for(constants: dict[str, int], itemsize: int) -> dict[str, int]:
    """Eight warps where rows are so wide that four would be short of registers."""
    wide = constants["WIDTH"] * itemsize >= 512
    return {"num_warps": 8 if wide else 4, "num_stages": 2}


def decode_attention(
    q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor, *, splits: int | None = None
) -> tuple[Tensor, Tensor]:
    """Queries [B, H, T, D] on the first lengths[b] of keys and values [B, K, C, D].

    Returns out [B, H, T, D] in the queries' type and its log-sum-exp [B, H, T] in float32, natural
    logarithm; 0 and -inf where a length is 0.
    lengths: int32 [B] on the device, each from 0 to C; only the kernel reads them, unchecked.
    splits: parts that the keys are cut into; None: as many as keep the device busy.
    ValueError for shapes, types, strides and devices that the kernel does not take.
    """
    _require_shapes(q, keys, values)
    _require_numbers(q, keys, values, lengths)
    require_device(q, keys, values, lengths)
    strides = [step for tensor in (q, keys, values) for step in row_strides(tensor)]
    kv_heads, places = keys.shape[1:3]
    group, tokens, head_dim = q.shape[1] // kv_heads, *q.shape[2:]
    constants = constants_for(head_dim, group, tokens, q.dtype.itemsize)
    programs = q.shape[0] * kv_heads * ceil(group * tokens / constants["ROWS"])
    if splits is None:
        splits = split_count(programs, places, _processors(q.device))
    stored = q.dtype if splits == 1 else torch.float32
    outs = torch.empty((splits, *q.shape), dtype=stored, device=q.device)
    lses = torch.empty((splits, *q.shape[:3]), dtype=torch.float32, device=q.device)
    tensors, scale = (q, keys, values, lengths, outs, lses), log2(e) / sqrt(head_dim)
    options = options_for(constants, q.dtype.itemsize)
    launch = attend_split[(programs, splits)]
    launch(*tensors, scale, kv_heads, *strides, **constants, **options)
    return (outs[0], lses[0]) if splits == 1 else combined(outs, lses, q.dtype)


def split_count(programs: int, keys: int, processors: int) -> int:
    """Parts for each of `programs` with up to `keys` keys: from shapes alone.

    The fewest that keep the device nearly as busy as any number would, at least 85 % of it: the
    rule of flash-attention's num_splits_heuristic. Busy: how full the rounds of programs are.
    """
    slots = RESIDENT * processors
    most = max(1, min(MOST_SPLITS, keys // SPLIT_KEYS, slots))
    rounds = [programs * splits / slots for splits in range(1, most + 1)]
    busy = [turns / ceil(turns) for turns in rounds]
    return next(splits for splits, part in enumerate(busy, 1) if part >= 0.85 * max(busy))


def row_strides(tensor: Tensor) -> list[int]:
    """Steps of the first three axes [_, _, C, D], in rows of D numbers; 0 along an axis of one.

    ValueError where there are gaps, or 2**31 numbers and more between two places of one head.
    """
    head_dim, strides = tensor.shape[3], tensor.stride()
    steps = [0 if tensor.shape[axis] == 1 else strides[axis] for axis in range(3)]
    gaps = any(step % head_dim for step in steps) or (head_dim > 1 and strides[3] != 1)
    if gaps or steps[2] * tensor.shape[2] >= 2**31:
        raise ValueError(
            f"got a tensor {list(tensor.shape)} with strides {list(strides)}, expected rows of "
            f"{head_dim} numbers without gaps and under 2**31 numbers across the third axis"
        )
    return [step // head_dim for step in steps]


def _require_shapes(q: Tensor, keys: Tensor, values: Tensor) -> None:
    fits = q.dim() == keys.dim() == 4 and keys.shape == values.shape and q.numel() > 0
    fits = fits and (keys.shape[0], keys.shape[3]) == (q.shape[0], q.shape[3])
    if not fits or keys.shape[1] == 0 or q.shape[1] % keys.shape[1]:
        raise ValueError(
            f"got queries {list(q.shape)}, keys {list(keys.shape)}, values {list(values.shape)}, "
            "expected [B, H, T, D] and twice [B, K, C, D], H a multiple of K, none of them 0 but C"
        )


def _require_numbers(q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor) -> None:
    if {keys.dtype, values.dtype} != {q.dtype} or q.dtype not in NUMBERS:
        raise ValueError(
            f"got queries in {q.dtype}, keys in {keys.dtype}, values in {values.dtype}, "
            "expected bfloat16, float16 or float32 for all"
        )
    if lengths.dtype != torch.int32 or tuple(lengths.shape) != (q.shape[0],):
        raise ValueError(
            f"got lengths {list(lengths.shape)} in {lengths.dtype}, "
            f"expected [{q.shape[0]}] in torch.int32"
        )


def _processors(device: torch.device) -> int:
    """Multiprocessors; the interpreter has one."""
    if device.type != "cuda":
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
