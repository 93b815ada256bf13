"""Runs of the Triton kernels in Triton's interpreter, against numpy in float64.

A process of its own, with TRITON_INTERPRET=1: it is read when a kernel is decorated. Prints one
JSON object a case: {"case", "wrong": what was wrong, "worst": the largest error over its bound,
if not planted}.
`python hydragen_kernel_runs.py attention|combine|planted`.

How far right results may be off, to first order; 1.01 covers the second. v = 2**-24 is the unit of
float32 and u that of the inputs' type. For n keys and a query, A is the largest
sum(|q k|) / sqrt(D), p are the exact weights, o = sum(p value) and S = sum(p |value|). A weight is
off by, relative to itself:
  (D + 2) v A             the score: D products summed in float32, the scale, its own rounding
  2 v A + 4 v             the distance from the maximum (at most 2 A), and exp2 (CUDA: 2 ulp)
  2 v A + 5 v a block     a block later rescaled with every new maximum; blocks have 16 keys or more
  3 v (A + ln n) + 8 v    the log-sum-exp of a part, its logarithm included
  2 v (2 A + ln n) + 4 v  the weight of that part
  n v                     a sum of n terms; the parts' own sum has fewer
Together at most E = v ((D + 13) (A + 1) + 3 n), for D >= 63. The numerator is off by E S, the
denominator by E, the quotient is rounded to the type (u o), and so is each weight before it
multiplies a value (u S; not in float32). Below the normal numbers of float16 rounding is off by
2**-25, absolutely:
  |out - o| <= 1.01 (u |o| + (u + 2 E) S) + 2**-25 (1 + sum |value|),      |lse - exact| <= 2 E
For P parts whose log-sum-exps lie within R of each other, a weight is off by
E = v (4 R + 2 P + 16): its argument, also times log2(e), exp, a rescaling, and the sum:
  |out - o| <= 1.01 (u |o| + 2 E S) + 2**-25,      |lse - exact| <= 2 E + 2 v |exact|
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import triton.language as tl
from torch import Tensor
from triton.runtime import interpreter
from triton.runtime.interpreter import InterpretedFunction, InterpreterBuilder, TensorHandle

from engines.hydragen import combine, split_k

HEADS = 8
SIZES = [63, 64, 65, 80, 128, 129, 256]
TYPES = {"float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}
SINGLE = 2.0**-24
BELOW_NORMAL = {"float16": 2.0**-25}
PARTS = [1, 2, 3, 5, 17]


# The interpreter, made to compute as a device does


def bfloat16_as_a_device() -> None:
    """The interpreter keeps bfloat16 as integers: it multiplies those, and chops when it rounds."""
    cast, dot = InterpreterBuilder.cast_impl, InterpreterBuilder.create_dot

    def rounded(builder: Any, source: Any, kind: Any) -> Any:
        if (source.dtype.scalar, kind.scalar) != (tl.float32, tl.bfloat16):
            return cast(builder, source, kind)
        numbers = torch.from_numpy(np.array(source.data)).to(torch.bfloat16)
        return TensorHandle(numbers.view(torch.uint16).numpy(), tl.bfloat16)

    def widened(handle: Any) -> Any:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        numbers = (handle.data.astype(np.uint32) << 16).view(np.float32)
        return TensorHandle(numbers, tl.float32)

    def multiplied(builder: Any, left: Any, right: Any, *rest: Any) -> Any:
        return dot(builder, widened(left), widened(right), *rest)

    InterpreterBuilder.cast_impl = rounded
    InterpreterBuilder.create_dot = multiplied


def quicker() -> None:
    """The interpreter looks for overflow in every sum, and prepares each call of tl.max anew."""
    builder = interpreter.interpreter_builder
    builder.options = replace(builder.options, sanitize_overflow=False)
    prepared = cache(interpreter._patch_lang)

    def called(function: Any, *given: Any, **named: Any) -> Any:
        prepared(function.fn)
        return function.rewrite()(*given, **named)

    InterpretedFunction.__call__ = called


def scalars_as_numbers() -> None:
    """Bounds of a loop are arrays of one in the interpreter; numpy 2.4 takes none for a number."""
    patch = interpreter._patch_lang_tensor

    def patched(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = patched


@contextmanager
def stores() -> Iterator[list[Any]]:
    """Within, the addresses that kernels write to."""
    store, places = InterpreterBuilder.create_masked_store, []

    def noted(builder: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        places.append(pointers.data[np.broadcast_to(mask.data, pointers.data.shape)])
        return store(builder, pointers, value, mask, *rest)

    InterpreterBuilder.create_masked_store = noted
    try:
        yield places
    finally:
        InterpreterBuilder.create_masked_store = store


# Inputs, and what is right for them


@dataclass(frozen=True)
class Exact:
    """The right results in float64 and how far others may be off."""

    out: Any
    lse: Any
    out_bound: Any
    lse_bound: Any


@dataclass(frozen=True)
class Inputs:
    """Of decode_attention. Where no key lives there is not a number, or infinity."""

    q: Tensor  # [B, H, T, D]
    keys: Tensor  # [B, K, C, D]
    values: Tensor  # [B, K, C, D]
    lengths: Tensor  # [B]

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.q, self.keys, self.values, self.lengths))


def edges(block: int) -> list[int]:
    """Lengths around the edges of blocks and of three splits, from the whole cache down to none.

    Three splits of up to 3 blocks have one block each, of one key more two.
    """
    ends = [3 * block + 2, 3 * block + 1, 3 * block, 3 * block - 1, 2 * block + 1, 2 * block]
    return [*ends, block + 1, block, block - 1, 1, 0]


def few_edges(block: int) -> list[int]:
    """As edges, where there are many programs for a sequence."""
    return [2 * block + 1, block + 1, block, 1, 0]


def inputs_for(
    dtype: str,
    head_dim: int,
    kv_heads: int,
    *,
    at: Callable[[int], list[int]] = edges,
    tokens: int = 1,
    by_place: bool = False,
) -> Inputs:
    """Standard normal; by_place: heads of one token lie side by side, [B, C, K, D] in memory."""
    number, group = getattr(torch, dtype), HEADS // kv_heads
    lengths = at(split_k.constants_for(head_dim, group, tokens, number.itemsize)["KEYS"])
    draw = torch.Generator().manual_seed(head_dim)

    def normal(heads: int, places: int) -> Tensor:
        shape = (len(lengths), places, heads, head_dim)
        if not by_place:
            shape = (len(lengths), heads, places, head_dim)
        numbers = torch.randn(shape, generator=draw).to(number)
        return numbers.transpose(1, 2) if by_place else numbers

    q, keys, values = (normal(HEADS, tokens), *(normal(kv_heads, max(lengths)) for _ in "kv"))
    for row, length in enumerate(lengths):
        keys[row, :, length::2], keys[row, :, length + 1 :: 2] = torch.nan, torch.inf
        values[row, :, length::2], values[row, :, length + 1 :: 2] = torch.inf, torch.nan
    return Inputs(q, keys, values, torch.tensor(lengths, dtype=torch.int32))


def exact_attention(given: Inputs, dtype: str) -> Exact:
    """Plain attention in float64."""
    lengths = given.lengths.numpy()
    dead = np.arange(given.keys.shape[2]) >= lengths[:, None]  # [B, C]
    group = HEADS // given.keys.shape[1]

    def repeated(cache: Tensor) -> Any:
        alive = np.where(dead[:, None, :, None], 0.0, cache.double().numpy())
        return np.repeat(alive, group, axis=1)

    q, keys, values = given.q.double().numpy(), repeated(given.keys), repeated(given.values)
    head_dim = q.shape[-1]
    scores = np.where(dead[:, None, None], -np.inf, q @ keys.swapaxes(2, 3) / np.sqrt(head_dim))
    largest = np.abs(q) @ np.abs(keys).swapaxes(2, 3) / np.sqrt(head_dim)
    out, lse, spread = weighted(scores, values)
    n = lengths[:, None, None]
    error = SINGLE * ((head_dim + 13) * (largest.max(-1) + 1.0) + 3 * n)
    unit, weight_unit = TYPES[dtype], 0.0 if dtype == "float32" else TYPES[dtype]
    bound = 1.01 * (unit * np.abs(out) + (weight_unit + 2 * error[..., None]) * spread)
    bound += BELOW_NORMAL.get(dtype, 0.0) * (1.0 + np.abs(values).sum(2, keepdims=True))
    return Exact(out, lse, bound, 2 * error)


def weighted(scores: Any, values: Any) -> tuple[Any, Any, Any]:
    """The mean of values [..., n, D] under scores [..., T, n], its lse, the mean of their sizes."""
    highest = scores.max(-1, keepdims=True)
    weights = np.exp(scores - np.where(highest == -np.inf, 0.0, highest))
    total = weights.sum(-1, keepdims=True)
    weights = weights / np.where(total == 0.0, 1.0, total)
    with np.errstate(divide="ignore"):
        lse = (highest + np.log(total)).squeeze(-1)
    return weights @ values, lse, weights @ np.abs(values)


def parts_for(dtype: str, head_dim: int, parts: int) -> tuple[Tensor, Tensor]:
    """Parts [P, 2, 3, 1, D] of which some are empty, in one place all; what they hold is no number.

    The empty ones come first in one place and last in another.
    """
    draw = torch.Generator().manual_seed(parts)
    outs = torch.randn((parts, 2, 3, 1, head_dim), generator=draw).to(getattr(torch, dtype))
    lses = 5.0 * torch.randn((parts, 2, 3, 1), generator=draw)
    lses[:, 0, 0] = -torch.inf
    lses[: parts - 1, 0, 1] = -torch.inf
    lses[1:, 0, 2] = -torch.inf
    outs[lses == -torch.inf] = torch.nan
    return outs, lses


def exact_sum(outs: Tensor, lses: Tensor, dtype: str) -> Exact:
    """The parts as one, in float64."""
    scores = lses.double().numpy().transpose(1, 2, 3, 0)[..., None, :]  # [B, H, T, 1, P]
    values = outs.double().nan_to_num(0.0).numpy().transpose(1, 2, 3, 0, 4)
    out, lse, spread = (part.squeeze(3) for part in weighted(scores, values))
    finite = lses[lses.isfinite()].double().numpy()
    error = SINGLE * (4 * np.ptp(finite) + 2 * len(outs) + 16)
    bound = 1.01 * (TYPES[dtype] * np.abs(out) + 2 * error * spread) + BELOW_NORMAL.get(dtype, 0.0)
    held = np.where(lse == -np.inf, 0.0, np.abs(lse))
    return Exact(out, lse, bound, 2 * error + 2 * SINGLE * held)


# Judging


def excess(found: Tensor, exact: Any, bound: Any) -> float:
    """The largest error over its bound; infinite where a number is missing."""
    numbers = found.double().numpy()
    with np.errstate(all="ignore"):
        shares = np.abs(numbers - exact) / bound
    shares = np.where(numbers == exact, 0.0, np.where(np.isnan(shares), np.inf, shares))
    return float(shares.max())


def judged(found: tuple[Tensor, Tensor], exact: Exact) -> tuple[list[str], float]:
    """What is wrong with out and lse, and the largest error over its bound."""
    out = excess(found[0], exact.out, exact.out_bound)
    lse = excess(found[1], exact.lse, exact.lse_bound)
    named = {"out": out, "lse": lse}
    return [f"{name}: {over:.3g}" for name, over in named.items() if over > 1.0], max(out, lse)


def watched(call: Any, given: list[Tensor], expected: int) -> tuple[Any, list[str]]:
    """The call's result, and whether it stored `expected` numbers once each and kept its inputs."""
    before = [tensor.clone().view(torch.uint8) for tensor in given]
    with stores() as places:
        found = call()
    written = np.concatenate(places)
    once = len(np.unique(written)) == len(written) == expected
    kept = all(map(torch.equal, before, [tensor.clone().view(torch.uint8) for tensor in given]))
    wrong = [] if once else [f"stores: {len(np.unique(written))} of {len(written)}, {expected}"]
    return found, wrong if kept else [*wrong, "inputs changed"]


def attended(attend: Any, given: Inputs, dtype: str, splits: int) -> dict[str, Any]:
    """One attention: what is wrong and how far it is off."""
    rows, numbers = given.q.shape[:3].numel(), given.q.numel()
    parts = 1 if splits == 1 else splits + 1  # and their sum
    call = lambda: attend(*given, splits=splits)  # noqa: E731
    found, wrong = watched(call, list(given), parts * (rows + numbers))
    if found[0].dtype != given.q.dtype:
        wrong.append(f"type: {found[0].dtype}")
    off, worst = judged(found, exact_attention(given, dtype))
    return {"wrong": wrong + off, "worst": worst}


def summed(combine_all: Any, outs: Tensor, lses: Tensor, dtype: str) -> dict[str, Any]:
    """One sum of parts: what is wrong and how far it is off."""
    expected = outs[0].numel() + lses[0].numel()
    found, wrong = watched(lambda: combine_all(outs, lses), [outs, lses], expected)
    off, worst = judged(found, exact_sum(outs, lses, dtype))
    return {"wrong": wrong + off, "worst": worst}


# The cases


def attention_cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every size and type; one key/value head for all queries, and one for each."""
    runs = ((1, 1, edges), (1, 3, edges), (8, 1, few_edges))
    for dtype, size, (kv_heads, splits, at) in product(TYPES, SIZES, runs):
        given = inputs_for(dtype, size, kv_heads, at=at)
        row = attended(split_k.decode_attention, given, dtype, splits)
        yield f"{dtype} d{size} kv{kv_heads} s{splits}", row
    for kv_heads, tokens, by_place in ((2, 3, False), (1, 9, False), (2, 2, True)):
        given = inputs_for("float32", 80, kv_heads, at=few_edges, tokens=tokens, by_place=by_place)
        row = attended(split_k.decode_attention, given, "float32", 2)
        yield f"kv{kv_heads} t{tokens}{' by place' if by_place else ''}", row
    given = inputs_for("float32", 64, 1, at=lambda _: [515])
    yield "splits from shapes", attended(splits_from_shapes, given, "float32", 2)


def splits_from_shapes(*given: Tensor, splits: int) -> tuple[Tensor, Tensor]:
    """As many as decode_attention chooses; how many those are is seen from its stores."""
    del splits
    return split_k.decode_attention(*given)


def combine_cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every size and type, and numbers of parts to beyond what is taken at once."""
    for dtype, size, parts in product(TYPES, SIZES, PARTS):
        outs, lses = parts_for(dtype, size, parts)
        yield f"{dtype} d{size} p{parts}", summed(combine.combine, outs, lses, dtype)


# Planted: by name the file, what it says, and what it says instead.
BUGS = {
    "none in split_k": (split_k, "", ""),
    "none in combine": (combine, "", ""),
    "last key not seen": (split_k, "live = key < stop ", "live = key < stop - 1 "),
    "one key too many": (split_k, "live = key < stop ", "live = key <= stop "),
    "a head scaled by 1.01": (
        split_k,
        "mean = (seen / held[:, None])",
        "mean = (seen / held[:, None] * tl.where(row == 1, 1.01, 1.0)[:, None])",
    ),
    "global mask of what is read": (
        split_k,
        "read = live[:, None] & in_row",
        "read = live[:, None]",
    ),
    "global mask in split_k": (
        split_k,
        "mean, mask=in_tile)",
        "mean, mask=(row < GROUP * TOKENS)[:, None] & (place[:, None] * HEAD_DIM + column[None, :]"
        " < splits * tl.num_programs(0) // tiles * GROUP * TOKENS * HEAD_DIM))",
    ),
    "global mask in combine": (
        combine,
        "mean, mask=column < HEAD_DIM)",
        "mean, mask=row * HEAD_DIM + column < rows * HEAD_DIM)",
    ),
    "combine in half precision": (combine, "some.to(tl.float32)", "some.to(tl.float16)"),
    "weights in half precision": (
        combine,
        "weights = tl.exp(found - anchor)",
        "weights = tl.exp(found - anchor).to(tl.float16).to(tl.float32)",
    ),
    "no guard of -inf in split_k": (split_k, "tl.where(total == 0.0, 1.0, total)", "total"),
    "no guard of -inf in combine": (combine, "tl.where(total == 0.0, 1.0, total)", "total"),
    "no anchor in combine": (
        combine,
        'tl.where(higher == float("-inf"), 0.0, higher)',
        "higher",
    ),
    "dead values not zeroed": (
        split_k,
        "(key * value_t * HEAD_DIM)[:, None], mask=read, other=0.0",
        "(key * value_t * HEAD_DIM)[:, None], mask=read, other=float('nan')",
    ),
    "empty parts read": (combine, "(weights != 0.0)[:, None]", "(part < parts)[:, None]"),
}


def planted_cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each bug in float32, 80 numbers a head: a width of its own, so that columns are masked."""
    for name, (module, healthy, broken) in BUGS.items():
        with tempfile.TemporaryDirectory() as folder:
            variant = planted(module, healthy, broken, Path(folder) / "planted.py")
            if module is combine:
                yield name, summed(variant.combine, *parts_for("float32", 80, 3), "float32")
                continue
            given = inputs_for("float32", 80, 1, at=few_edges)
            rows = [attended(variant.decode_attention, given, "float32", n) for n in (1, 3)]
            yield name, {"wrong": rows[0]["wrong"] + rows[1]["wrong"]}


def planted(module: Any, healthy: str, broken: str, path: Path) -> Any:
    """The module as it would be with other words in one place."""
    source = Path(module.__file__).read_text()
    assert not healthy or source.count(healthy) == 1, f"found {source.count(healthy)}: {healthy}"
    path.write_text(source.replace(healthy, broken) if healthy else source)
    spec = spec_from_file_location("planted", path)
    assert spec is not None
    assert spec.loader is not None
    variant = module_from_spec(spec)
    spec.loader.exec_module(variant)
    return variant


def main() -> None:
    """One line a case."""
    bfloat16_as_a_device()
    quicker()
    scalars_as_numbers()
    torch.use_deterministic_algorithms(True)  # torch.empty then holds no numbers
    cases = {"attention": attention_cases, "combine": combine_cases, "planted": planted_cases}
    for case, row in cases[sys.argv[1]]():
        print(json.dumps({"case": case, **row}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
