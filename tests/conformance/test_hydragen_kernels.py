"""The Triton kernels agree with float64 within a derived bound on the largest error.

They run in Triton's interpreter, in a process of its own (hydragen_kernel_runs.py, which derives
the bound). What is refused, and the number of splits, need no kernel.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import pytest

if not (find_spec("torch") and find_spec("triton")):
    pytest.skip("needs torch and triton", allow_module_level=True)

import torch

from engines.hydragen import split_k
from engines.hydragen.kernels import combine, decode_attention, kernels

ROOT = Path(__file__).parents[2]
TYPES = ["float32", "bfloat16", "float16"]
SIZES = [63, 64, 65, 80, 128, 129, 256]
BUGS = {
    "last key not seen": "out",
    "one key too many": "out",
    "a head scaled by 1.01": "out",
    "global mask of what is read": "out",
    "global mask in split_k": "stores",
    "global mask in combine": "stores",
    "combine in half precision": "out",
    "weights in half precision": "out",
    "no guard of -inf in split_k": "out",
    "no guard of -inf in combine": "out",
    "no anchor in combine": "out",
    "dead values not zeroed": "out",
    "empty parts read": "out",
}


@cache
def results(group: str) -> dict[str, dict[str, Any]]:
    """All cases of a group from one process, by name."""
    script = ROOT / "tests/conformance/hydragen_kernel_runs.py"
    done = subprocess.run(
        [sys.executable, str(script), group],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {row["case"]: row for row in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize(("kv_heads", "splits"), [(1, 1), (1, 3), (8, 1)])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", TYPES)
def test_attention_at_every_edge(dtype: str, size: int, kv_heads: int, splits: int) -> None:
    row = results("attention")[f"{dtype} d{size} kv{kv_heads} s{splits}"]
    assert row["wrong"] == []
    assert row["worst"] > 0.0


@pytest.mark.parametrize("case", ["kv2 t3", "kv1 t9", "kv2 t2 by place", "splits from shapes"])
def test_several_queries_other_strides_and_splits_left_open(case: str) -> None:
    assert results("attention")[case]["wrong"] == []


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 17])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", TYPES)
def test_any_number_of_parts(dtype: str, size: int, parts: int) -> None:
    assert results("combine")[f"{dtype} d{size} p{parts}"]["wrong"] == []


@pytest.mark.parametrize(("bug", "where"), BUGS.items(), ids=list(BUGS))
def test_planted_bugs_are_found(bug: str, where: str) -> None:
    wrong = results("planted")[bug]["wrong"]
    assert [line for line in wrong if line.startswith(where)]


@pytest.mark.parametrize("file", ["split_k", "combine"])
def test_the_same_files_without_a_bug_are_right(file: str) -> None:
    assert results("planted")[f"none in {file}"]["wrong"] == []


# The number of splits


@pytest.mark.parametrize(
    ("programs", "keys", "splits"),
    [
        (1, 0, 1),
        (1, 511, 1),
        (1, 512, 2),
        (1, 1 << 20, 109),  # 85 % of what 128 would occupy
        (8, 16_384, 29),  # 232 of 264 places
        (264, 16_384, 1),  # full
        (300, 16_384, 3),  # 900 of 1056, where one split would leave 228 of 528 idle
        (4096, 8704, 1),
    ],
)
def test_splits_keep_a_device_of_132_processors_busy(programs: int, keys: int, splits: int) -> None:
    assert split_k.split_count(programs, keys, 132) == splits


def test_splits_leave_no_device_idle_that_they_could_fill() -> None:
    for programs, keys, processors in product((1, 7, 100, 265, 3000), (1024, 65_536), (1, 78, 148)):
        splits = split_k.split_count(programs, keys, processors)
        assert 1 <= splits <= max(1, keys // split_k.SPLIT_KEYS)


# What a static tier compiles


@pytest.mark.parametrize("dtype", TYPES)
def test_every_argument_of_a_kernel_is_named_in_order(dtype: str) -> None:
    names = [one.name for one in kernels(129, 8, dtype)]
    assert len(set(names)) == len(names)
    for one in kernels(129, 8, dtype):
        assert list(one.signature) == one.kernel.arg_names
        assert {name for name, kind in one.signature.items() if kind == "constexpr"} == set(
            one.constants
        )


# What is refused


def arguments(**changes: Any) -> list[Any]:
    """Of decode_attention: 2 sequences, 4 heads, 2 of keys, 8 places, 16 numbers."""
    keys = torch.zeros(2, 2, 8, 16)
    given = {"q": torch.zeros(2, 4, 1, 16), "keys": keys, "values": keys.clone()}
    given["lengths"] = torch.zeros(2, dtype=torch.int32)
    return list((given | changes).values())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "on cpu, expected all on one cuda device"),
        ({"lengths": torch.zeros(2, dtype=torch.int32, device="meta")}, "on cpu, meta"),
        ({"keys": torch.zeros(2, 2, 9, 16)}, "H a multiple of K"),
        ({"q": torch.zeros(2, 5, 1, 16)}, "H a multiple of K"),
        ({"q": torch.zeros(3, 4, 1, 16)}, "twice"),
        ({"q": torch.zeros(2, 4, 0, 16)}, "none of them 0 but C"),
        ({"q": torch.zeros(2, 4, 1, 16).half()}, "queries in torch.float16, keys in torch.float32"),
        ({"lengths": torch.zeros(2)}, r"expected \[2\] in torch.int32"),
        ({"lengths": torch.zeros(1, dtype=torch.int32)}, r"lengths \[1\]"),
    ],
)
def test_what_the_kernel_does_not_take_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        decode_attention(*arguments(**changes))


@pytest.mark.parametrize(
    ("outs", "lses", "words"),
    [
        (torch.zeros(2, 3, 16), torch.zeros(2, 3), "on cpu"),
        (torch.zeros(2, 3, 16), torch.zeros(3, 2), r"log-sum-exps \[3, 2\]"),
        (torch.zeros(0, 3, 16), torch.zeros(0, 3), "none of them 0"),
        (torch.zeros(2, 3, 16), torch.zeros(2, 3).half(), "log-sum-exps in torch.float16"),
        (torch.zeros(2, 3, 16).double(), torch.zeros(2, 3), "parts in torch.float64"),
    ],
)
def test_parts_that_do_not_fit_are_refused(outs: Any, lses: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        combine(outs, lses)


def test_rows_are_counted_without_gaps() -> None:
    whole = torch.zeros(2, 8, 3, 16)  # [B, C, K, D]
    assert split_k.row_strides(whole.transpose(1, 2)) == [24, 1, 3]
    assert split_k.row_strides(whole.narrow(1, 2, 1).transpose(1, 2)) == [24, 1, 0]
    assert split_k.row_strides(whole[:1].expand(5, 8, 3, 16)) == [0, 3, 1]


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(2, 3, 8, 16)[..., :15],
        torch.zeros(2, 3, 16, 8).transpose(2, 3),
        torch.empty_strided((1, 1, 2, 16), (16, 16, 1 << 30, 1), device="meta"),
    ],
    ids=["cut", "turned", "far apart"],
)
def test_gaps_are_refused(tensor: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="without gaps"):
        split_k.row_strides(tensor)
