"""Facts of a full-size program that need no device, no weights and no clock.

Each framework has a module that compiles its programs: torch under fake tensors for `cpu` and
`cuda`, JAX by XLA for a TPU slice, Triton kernels for the architectures of NVIDIA's GPUs.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from perfsuite.errors import EngineUnavailable
from perfsuite.static.compiled import Compiled


def target_for(framework: str, device: str, slice_name: str) -> Any:
    """What an offer is asked to make its programs for: `cpu`, `cuda`, or the devices of a slice.

    Raises OptionError for an unknown slice, EngineUnavailable where its compiler does not work.
    """
    if framework == "triton":
        from perfsuite.static.triton_cubin import require_compiler

        require_compiler()
    if framework != "jax":
        return device
    from perfsuite.static.topology import target

    return target(slice_name)


def compile_all(
    programs: Sequence[Any], framework: str, target: Any, batch: int
) -> dict[str, Compiled]:
    """Each program by name; `batch` is the tokens that one run of "decode" gives.

    XLA keeps one processor busy with one program, so two are compiled at once. A Triton kernel is
    compiled for every architecture, `NAME sm_80` and so on.
    """
    if framework == "triton":
        from perfsuite.static import triton_cubin

        return triton_cubin.compile_all(programs)
    names = [program.name for program in programs]
    if framework != "jax":
        found = [compiled(program, framework, target) for program in programs]
        return dict(zip(names, found, strict=True))
    from perfsuite.static.xla import with_rate

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda program: compiled(program, framework, target), programs))
    steps = dict(zip(names, found, strict=True))
    return {n: with_rate(one, batch) if n == "decode" else one for n, one in steps.items()}


def compiled(program: Any, framework: str, target: Any) -> Compiled:
    """One program for the target of `target_for`: its figures, and what there is to say of it."""
    if framework == "torch":
        from perfsuite.static import torch_fake

        return torch_fake.facts(program, target)
    if framework == "jax":
        from perfsuite.static import xla

        return xla.facts(program, target)
    raise EngineUnavailable(f"no static tier knows {framework or 'plain host'} programs")


def facts_of(program: Any, framework: str, target: Any) -> dict[str, float]:
    """The static figures of one program."""
    return dict(compiled(program, framework, target).figures)
