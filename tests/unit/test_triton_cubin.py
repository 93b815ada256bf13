"""The static tier of Triton kernels: small ones compiled for GPUs that nobody has here.

Needs triton, no GPU and no driver. Figures are compared with arithmetic, with each other and with
NVIDIA's own code; planted regressions with the kernel that has none.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="needs triton")

import triton
import triton.language as tl

from perfsuite.errors import EngineUnavailable, Void
from perfsuite.metrics import METRICS, refusal
from perfsuite.static import compile_all, kept_facts, target_for, triton_cubin
from perfsuite.static.compiled import Compiled

pytestmark = pytest.mark.skipif(triton.knobs.runtime.interpret, reason="kernels are interpreted")
REGISTERS = "static_registers/per_thread"
STORES, LOADS = "static_spill_stores/per_thread", "static_spill_loads/per_thread"
LOCAL, SHARED = "static_local_memory/per_thread", "static_shared_memory/per_block"
INSTRUCTIONS, IDLE = "static_instructions/sass", "static_idle_warps/occupancy_bound"


@triton.jit
def softmax(x, out, columns, BLOCK: tl.constexpr):  # noqa: N803
    """One row, which a block holds whole: BLOCK / threads values a thread."""
    row, at = tl.program_id(0), tl.arange(0, BLOCK)
    values = tl.load(x + row * columns + at, mask=at < columns, other=-float("inf"))
    weights = tl.exp(values - tl.max(values, 0))
    tl.store(out + row * columns + at, weights / tl.sum(weights, 0), mask=at < columns)


@triton.jit
def product(a, b, out, stride, K: tl.constexpr, BLOCK: tl.constexpr):  # noqa: N803
    """A tile of a @ b; its operands pass through shared memory, stage by stage."""
    rows, columns, inner = tl.arange(0, BLOCK), tl.arange(0, BLOCK), tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(0, K, BLOCK):
        left = tl.load(a + rows[:, None] * stride + start + inner[None, :])
        right = tl.load(b + (start + inner[:, None]) * stride + columns[None, :])
        total += tl.dot(left, right)
    tl.store(out + rows[:, None] * stride + columns[None, :], total.to(tl.bfloat16))


@triton.jit
def wrong(x, BLOCK: tl.constexpr):  # noqa: N803
    """Adds tiles of two sizes."""
    tl.store(x + tl.arange(0, BLOCK), tl.zeros((BLOCK,), tl.float32) + tl.arange(0, 2 * BLOCK))


def plain(value: Any) -> Any:
    return value


@triton.jit
def calling(x, BLOCK: tl.constexpr):  # noqa: N803
    """Calls what is no kernel's function."""
    tl.store(x + tl.arange(0, BLOCK), plain(tl.zeros((BLOCK,), tl.float32)))


@dataclass(frozen=True)
class Program:
    name: str = "softmax"
    kernel: Any = softmax
    signature: Mapping[str, str] = field(
        default_factory=lambda: {"x": "*bf16", "out": "*bf16", "columns": "i32:16",
                                 "BLOCK": "constexpr"}
    )  # fmt: skip
    constants: Mapping[str, Any] = field(default_factory=lambda: {"BLOCK": 1024})
    num_warps: int = 4
    num_stages: int = 2


def softmax_of(block: int, **changes: Any) -> Program:
    return Program(constants={"BLOCK": block}, **changes)


def product_of(block: int, stages: int) -> Program:
    types = {"a": "*bf16", "b": "*bf16", "out": "*bf16", "stride": "i32:16"}
    signature = {**types, "K": "constexpr", "BLOCK": "constexpr"}
    return Program("product", product, signature, {"K": 1024, "BLOCK": block}, 4, stages)


@pytest.fixture(autouse=True)
def own_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is kept from one test to the next, and nothing is interpreted."""
    monkeypatch.setattr(kept_facts, "lock_folder", lambda: tmp_path)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


def compiled(*programs: Program) -> dict[str, Compiled]:
    return compile_all(programs, "triton", target_for("triton", "cuda", ""), 1)


def test_every_architecture_is_compiled_and_every_figure_is_a_metric() -> None:
    """No GPU, no driver; nothing is refused, zeros included."""
    found = compiled(softmax_of(1024))
    assert list(found) == ["softmax sm_80", "softmax sm_90", "softmax sm_100"]
    for one in found.values():
        assert set(one.figures) <= set(METRICS)
        assert not [
            refusal(METRICS[f], v) for f, v in one.figures.items() if refusal(METRICS[f], v)
        ]
        assert 8 <= one.figures[REGISTERS] <= 255
        assert one.figures[STORES] == one.figures[LOADS] == one.figures[LOCAL] == 0
        assert one.figures[SHARED] == 4 * 4  # a maximum, or a sum, of each warp
        assert 50 < one.figures[INSTRUCTIONS] < 1000
        assert one.figures[IDLE] == 0
        assert one.words["constants"] == "num_stages 2, num_warps 4, BLOCK 1024"
        assert re.fullmatch(rf"triton {triton.__version__}, ptxas [\d.]+", one.words["compiler"])


def test_one_warp_needs_no_shared_memory() -> None:
    """Then nothing is reserved either; 32 blocks are all that a multiprocessor takes."""
    for one in compiled(softmax_of(128, num_warps=1)).values():
        assert one.figures[SHARED] == 0
        assert one.figures[IDLE] == 32
        assert one.words["occupancy"] == "32 of 64 warps, bound by blocks"


def test_a_block_that_is_too_large_spills() -> None:
    """256 values of a row in each thread, with 255 registers; what is written is read."""
    for one in compiled(softmax_of(32768)).values():
        assert one.figures[REGISTERS] == 255
        assert one.figures[STORES] > 0
        assert one.figures[LOADS] > 0
        assert one.figures[LOCAL] > 0
        assert one.figures[IDLE] == 64 - 8
        assert one.words["occupancy"] == "8 of 64 warps, bound by registers"


def test_spills_are_those_of_the_machine_code(tmp_path: Path) -> None:
    """Each instruction that stores to or loads from the stack, by its width."""
    program, widths = softmax_of(32768), {"": 4, ".64": 8, ".128": 16}
    with triton_cubin._apart():
        target = triton.backends.compiler.GPUTarget("cuda", 90, 32)
        options = {"num_warps": 4, "num_stages": 2}
        made = triton.compile(triton_cubin._source(program), target, options)
    (tmp_path / "kernel.cubin").write_bytes(made.asm["cubin"])
    command = [triton.knobs.nvidia.nvdisasm.path, "-c", str(tmp_path / "kernel.cubin")]
    code = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    figures = compiled(program)["softmax sm_90"].figures
    for opcode, figure in (("STL", STORES), ("LDL", LOADS)):
        found = re.findall(rf"\b{opcode}(?:\.LU)?(\.64|\.128|) ", code)
        assert sum(widths[width] for width in found) == figures[figure] > 0


def test_a_stage_takes_its_operands_of_shared_memory() -> None:
    """Two tiles of 64 x 64 in bfloat16 are 16 KiB for each stage that is under way."""
    two, four = (compiled(product_of(64, stages)) for stages in (2, 4))
    for name, one in two.items():
        more = four[name].figures[SHARED] - one.figures[SHARED]
        assert more == pytest.approx(2 * 2 * 64 * 64 * 2, rel=0.01), name
        assert one.figures[STORES] == 0


def test_what_is_known_of_an_integer_decides_the_loads() -> None:
    """A row length of multiples of 16 lets a thread load eight numbers at once."""
    plain = {"x": "*bf16", "out": "*bf16", "columns": "i32", "BLOCK": "constexpr"}
    wide, narrow = compiled(softmax_of(4096)), compiled(softmax_of(4096, signature=plain))
    for name, one in wide.items():
        assert narrow[name].figures[INSTRUCTIONS] > 1.2 * one.figures[INSTRUCTIONS]


def test_a_second_run_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Facts are found by all that decides them: constants, options, architecture, toolchain."""
    first = compiled(softmax_of(1024))
    asked: list[int] = []

    def refuse(source: Any, target: Any, options: Any) -> Any:
        asked.append(target.arch)
        raise RuntimeError("compiled")

    monkeypatch.setattr(triton, "compile", refuse)
    assert compiled(softmax_of(1024, name="softmax")) == first
    assert not asked
    for other in (
        softmax_of(2048),
        softmax_of(1024, num_warps=8),
        softmax_of(1024, num_stages=3),
        replace(softmax_of(1024), signature={**Program().signature, "x": "*fp16"}),
    ):
        with pytest.raises(Void, match="compiled"):
            compiled(other)
    monkeypatch.setattr(triton_cubin, "toolchain", lambda arch: f"another {arch}")
    with pytest.raises(Void, match="compiled"):
        compiled(softmax_of(1024))


def test_tritons_own_cache_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be on a disk that is full or read-only."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "theirs"))
    compiled(softmax_of(512))
    assert not (tmp_path / "theirs").exists()
    assert os.environ["TRITON_CACHE_DIR"] == str(tmp_path / "theirs")


SIGNATURE = {"x": "*bf16", "out": "*bf16", "columns": "i32", "BLOCK": "constexpr"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"signature": {**SIGNATURE, "y": "i32"}}, "argument y: which the kernel does not take"),
        ({"signature": {"x": "*bf16", "BLOCK": "constexpr"}},
         "argument columns, out: which the signature does not have"),
        ({"constants": {}}, "argument BLOCK: a constexpr without a value"),
        ({"constants": {"BLOCK": 64, "columns": 8}}, "columns: a value that is no constexpr"),
        ({"signature": {**SIGNATURE, "x": "*bf17"}}, "softmax sm_80 does not compile: .*bf17"),
        ({"constants": {"BLOCK": 1000}}, "does not compile: line 3 of the function: .*power of 2"),
        ({"num_warps": 3}, "softmax sm_80 does not compile: num_warps must be a power of 2"),
        ({"kernel": len}, "expected a function of triton.jit, got builtin_function_or_method"),
        ({"kernel": wrong, "signature": {"x": "*fp32", "BLOCK": "constexpr"}},
         "sm_80 does not compile: line 3 of the function: .*64.*128"),
        ({"kernel": calling, "signature": {"x": "*fp32", "BLOCK": "constexpr"}},
         "sm_80 does not compile: .*plain"),
    ],
)  # fmt: skip
def test_what_can_not_be_compiled_is_told_in_one_line(changes: dict[str, Any], words: str) -> None:
    """Which kernel, which architecture, and why."""
    with pytest.raises(Void, match=words) as refused:
        compiled(replace(softmax_of(64), **changes))
    assert str(refused.value).startswith("softmax")
    assert "\n" not in str(refused.value)


def test_a_kernel_that_no_multiprocessor_holds_is_told_with_its_arithmetic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Operands of 64 KiB a stage: four stages are more than 163 KiB."""
    monkeypatch.setattr(triton_cubin, "ARCHITECTURES", (80,))
    with pytest.raises(Void, match=r"product does not fit sm_80, by its shared memory: .* 166912"):
        compiled(product_of(128, 4))


def test_two_kernels_of_one_name_are_refused() -> None:
    """The figures of one would hide the other's."""
    with pytest.raises(Void, match="two kernels are named softmax sm_100; names must differ"):
        compiled(softmax_of(64), softmax_of(128))


def test_interpreted_kernels_are_refused_before_one_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Triton reads the variable where a kernel is decorated."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(EngineUnavailable, match="remedy: unset TRITON_INTERPRET"):
        target_for("triton", "cuda", "")


def test_without_triton_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line."""
    monkeypatch.setattr(triton_cubin, "find_spec", lambda name: None)
    with pytest.raises(EngineUnavailable, match=r"pip install 'perfsuite\[triton\]'"):
        target_for("triton", "cuda", "")


def test_without_its_assembler_it_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution may leave NVIDIA's tools out."""

    def absent(tool: Any, path: str) -> None:
        raise RuntimeError(f"Cannot find {tool.binary}")

    monkeypatch.setattr(type(triton.knobs.nvidia).__dict__["ptxas"].__class__, "transform", absent)
    with pytest.raises(EngineUnavailable, match="Cannot find ptxas; remedy: pip install"):
        target_for("triton", "cuda", "")
