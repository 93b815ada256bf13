"""The occupancy bound: by hand, and against cuda_occupancy.h as NVIDIA publishes it."""

from __future__ import annotations

import random
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from perfsuite.static.occupancy import MULTIPROCESSORS, Demand, blocks

HEADER = "backends/nvidia/include/cuda_occupancy.h"
_PROGRAM = r"""
#include <cstdio>
#include "cuda_occupancy.h"

int main() {
    int major, registers, warps;
    size_t shared_sm, shared_block, shared;
    while (scanf("%d %zu %zu %d %d %zu", &major, &shared_sm, &shared_block, &warps, &registers,
                 &shared) == 6) {
        cudaOccDeviceProp sm;
        sm.computeMajor = major, sm.computeMinor = 0, sm.maxThreadsPerBlock = 1024;
        sm.maxThreadsPerMultiprocessor = 2048, sm.regsPerBlock = sm.regsPerMultiprocessor = 65536;
        sm.warpSize = 32, sm.sharedMemPerBlock = 49152, sm.sharedMemPerMultiprocessor = shared_sm;
        sm.numSms = 1, sm.sharedMemPerBlockOptin = shared_block;
        sm.reservedSharedMemPerBlock = 1024;
        cudaOccFuncAttributes kernel;
        kernel.maxThreadsPerBlock = 1024, kernel.numRegs = registers, kernel.sharedSizeBytes = 0;
        kernel.partitionedGCConfig = PARTITIONED_GC_OFF;
        kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
        kernel.maxDynamicSharedSizeBytes = shared, kernel.numBlockBarriers = 1;
        cudaOccDeviceState state;
        cudaOccResult found;
        if (cudaOccMaxActiveBlocksPerMultiprocessor(&found, &sm, &kernel, &state, 32 * warps,
                                                    shared) != CUDA_OCC_SUCCESS)
            return 1;
        printf("%d\n", found.activeBlocksPerMultiprocessor);
    }
}
"""


@pytest.mark.parametrize(
    ("kernel", "arch", "expected"),
    [
        (Demand(warps=4, registers=32, shared=0), 80, {"warps": 16, "registers": 16}),
        # 128 registers are 16 warps; 129 are given out as 136, of which 3 warps fit a partition
        (Demand(warps=4, registers=128, shared=0), 80, {"registers": 4}),
        (Demand(warps=4, registers=129, shared=0), 90, {"registers": 3}),
        (Demand(warps=4, registers=255, shared=0), 100, {"registers": 2}),
        (Demand(warps=16, registers=255, shared=0), 90, {"registers": 0}),
        (Demand(warps=1, registers=16, shared=0), 90, {"warps": 64, "blocks": 32}),
        # of 228 KiB, each with 1 KiB for the driver
        (Demand(warps=4, registers=16, shared=75 * 1024), 90, {"shared memory": 3}),
        (Demand(warps=4, registers=16, shared=75 * 1024 + 1), 90, {"shared memory": 2}),
        (Demand(warps=4, registers=16, shared=163 * 1024), 80, {"shared memory": 1}),
        (Demand(warps=4, registers=16, shared=163 * 1024 + 1), 80, {"shared memory": 0}),
        (Demand(warps=4, registers=16, shared=0, tensor_columns=256), 100, {"tensor memory": 2}),
        (Demand(warps=64, registers=16, shared=0), 90, {"warps": 0}),
    ],
)
def test_blocks_are_counted_by_hand(kernel: Demand, arch: int, expected: dict[str, int]) -> None:
    """Each limit by itself."""
    found = blocks(kernel, MULTIPROCESSORS[arch])
    assert {name: found[name] for name in expected} == expected


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.skipif(find_spec("triton") is None, reason="needs triton, which ships the header")
def test_the_bound_is_that_of_nvidias_own_header(tmp_path: Path) -> None:
    """Five thousand kernels of any size, on every architecture."""
    spec = find_spec("triton")
    assert spec is not None
    assert spec.origin is not None
    header = Path(spec.origin).with_name("backends") / HEADER.partition("/")[2]
    if not header.exists():
        pytest.skip("this triton ships no cuda_occupancy.h")
    cases = _cases(5000)
    asked = "\n".join(
        f"{arch // 10} {sm.shared} {sm.shared_of_block} {k.warps} {k.registers} {k.shared}"
        for arch, k in cases
        for sm in [MULTIPROCESSORS[arch]]
    )
    (tmp_path / "occupancy.cpp").write_text(_PROGRAM)
    build = ["g++", "-w", f"-I{header.parent}", "occupancy.cpp", "-o", "occupancy"]
    subprocess.run(build, cwd=tmp_path, check=True, timeout=120)
    told = subprocess.run(
        [str(tmp_path / "occupancy")],
        input=asked, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    expected = list(map(int, told.stdout.split()))
    assert [min(blocks(k, MULTIPROCESSORS[arch]).values()) for arch, k in cases] == expected
    assert len(set(expected)) > 10


def _cases(count: int) -> list[tuple[int, Demand]]:
    source = random.Random(1)
    return [
        (
            source.choice(list(MULTIPROCESSORS)),
            Demand(
                warps=source.choice([1, 2, 3, 4, 8, 12, 16, 32]),
                registers=source.randint(16, 255),
                shared=source.choice([0, source.randint(0, 230 * 1024)]),
            ),
        )
        for _ in range(count)
    ]
