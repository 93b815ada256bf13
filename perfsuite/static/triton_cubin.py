"""Facts of Triton kernels, compiled for NVIDIA's architectures without a GPU or its driver.

Triton ships ptxas (and ptxas-blackwell, for sm_100), cuobjdump and nvdisasm, so a wheel is all
that is needed. A kernel's facts are looked up under the hash of its source and the functions that
it calls, its signature, constants, options, architecture and toolchain, and compiled only where
nobody has done so before. One is compiled at a time: Triton reads a kernel by `ast.parse`, which in
CPython 3.11 fails when two threads are in it.

Pointers are taken as 16-byte aligned, as Triton's launcher finds those of every framework's
tensors. An integer is only known to be a multiple of 16 where its type says so: "i32:16", the
notation of Triton's own ahead-of-time compiler.
"""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from perfsuite.errors import EngineUnavailable, Void
from perfsuite.protocols import TritonProgram
from perfsuite.static import kept_facts
from perfsuite.static.compiled import Compiled
from perfsuite.static.cubin import Assembled, Taken, UnreadableCubin, assemble, read
from perfsuite.static.occupancy import MULTIPROCESSORS, RESERVED, Demand, blocks

ARCHITECTURES = tuple(MULTIPROCESSORS)
_TOOLS = ("ptxas", "ptxas_blackwell", "cuobjdump", "nvdisasm")
_ALIGNED = ":16"


def require_compiler() -> None:
    """EngineUnavailable where Triton or one of its tools is absent, or kernels are interpreted."""
    if find_spec("triton") is None:
        raise EngineUnavailable(
            "triton not installed, which compiles kernels without a GPU:"
            " pip install 'perfsuite[triton]'"
        )
    from triton import knobs

    if knobs.runtime.interpret:
        raise EngineUnavailable(
            "TRITON_INTERPRET is set, and is read where a kernel is decorated: there is nothing to"
            " compile; remedy: unset TRITON_INTERPRET, and interpret kernels in a run of its own"
        )
    for tool in _TOOLS:
        try:
            getattr(knobs.nvidia, tool)
        except RuntimeError as problem:
            raise EngineUnavailable(
                f"triton {_version()}: {problem}; remedy: pip install --force-reinstall triton"
            ) from None


def toolchain(arch: int) -> str:
    """`triton 3.6.0, ptxas 12.8.93`: what compiles for an architecture."""
    return f"triton {_version()}, ptxas {_ptxas_version(arch)}"


def _version() -> str:
    import triton

    return str(triton.__version__)


@cache
def _ptxas_version(arch: int) -> str:
    from triton.backends.nvidia.compiler import get_ptxas_version

    said = str(get_ptxas_version(arch))
    found = re.search(r"\bV(\d[\d.]*)", said)
    return found[1] if found else said.strip()


def compile_all(programs: Sequence[TritonProgram]) -> dict[str, Compiled]:
    """The facts of every kernel for every architecture, as `NAME sm_ARCH`.

    Raises Void for a kernel that does not compile or that no SM could hold.
    """
    wanted = [(program, arch) for program in programs for arch in ARCHITECTURES]
    names = [f"{program.name} sm_{arch}" for program, arch in wanted]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Void(f"two kernels are named {twice[0]}; names must differ")
    with _apart():
        return {name: facts(*pair) for name, pair in zip(names, wanted, strict=True)}


@contextmanager
def _apart() -> Iterator[None]:
    """Triton's own cache stays as it is, so that what is not kept here is compiled, on any disk.

    What it prints are whole programs, on a kernel that ptxas refuses; the error has the reason.
    """
    from triton import knobs

    with (
        tempfile.TemporaryDirectory(prefix="perfsuite-") as folder,
        knobs.cache.scope(),
        redirect_stdout(io.StringIO()),
    ):
        knobs.cache.dir = folder
        yield


def facts(program: TritonProgram, arch: int) -> Compiled:
    """The figures of one kernel for one architecture, and what there is to say of it."""
    source = _source(program)
    with _telling(program, arch):  # the functions that a kernel calls are looked at already here
        parts = [source.hash(), repr(_options(program)), *_surroundings(arch)]
    key = kept_facts.key(parts)
    kept = kept_facts.read(key)
    if not kept:
        fresh = _facts(program, source, arch)
        kept = {"figures": fresh.figures, "words": fresh.words}
        kept_facts.write(key, kept)
    return Compiled(dict(kept["figures"]), dict(kept["words"]))


def _source(program: TritonProgram) -> Any:
    """The kernel with its signature, as Triton compiles it; Void where they do not fit."""
    from triton.compiler import ASTSource
    from triton.runtime import JITFunction

    kernel, constants = program.kernel, dict(program.constants)
    if not isinstance(kernel, JITFunction):
        raise Void(
            f"{program.name}: expected a function of triton.jit, got {type(kernel).__name__}"
            " (of an autotuned one: its .fn, with the constants of one configuration)"
        )
    _require_match(program)
    types = {name: program.signature[name] for name in kernel.arg_names}
    aligned = [n for n, text in enumerate(types.values()) if text[:1] == "*" or _ALIGNED in text]
    attributes = {(n,): [["tt.divisibility", 16]] for n in aligned}
    plain = {name: text.removesuffix(_ALIGNED) for name, text in types.items()}
    return ASTSource(kernel, plain, constants, attributes)


def _require_match(program: TritonProgram) -> None:
    """Void unless the signature names every argument once, and each constant has a value."""
    arguments, named = set(program.kernel.arg_names), set(program.signature)
    constants = {name for name, text in program.signature.items() if text == "constexpr"}
    for found, words in (
        (named - arguments, "which the kernel does not take"),
        (arguments - named, "which the signature does not have"),
        (constants - set(program.constants), "a constexpr without a value"),
        (set(program.constants) - constants, "a value that is no constexpr in the signature"),
    ):
        if found:
            raise Void(
                f"{program.name}: argument {', '.join(sorted(found))}: {words};"
                f" {program.kernel.__name__} takes {', '.join(program.kernel.arg_names)}"
            )


def _options(program: TritonProgram) -> dict[str, Any]:
    return {"num_stages": program.num_stages, "num_warps": program.num_warps}


def _surroundings(arch: int) -> list[str]:
    """What else decides the code: the compiler, and the environment that it listens to."""
    from triton._C.libtriton import get_cache_invalidating_env_vars

    heard = sorted(get_cache_invalidating_env_vars().items())
    return [str(arch), toolchain(arch), repr(heard)]


def _facts(program: TritonProgram, source: Any, arch: int) -> Compiled:
    compiled = _compile(program, source, arch)
    try:
        taken, assembled = _taken(compiled, arch)
    except UnreadableCubin as problem:
        raise Void(f"{program.name} sm_{arch}: {problem}; {toolchain(arch)}") from None
    demand = _demand(compiled.metadata, taken, arch)
    resident, words = _occupancy(program, demand, arch)
    figures = {
        "static_registers/per_thread": taken.registers,
        "static_spill_stores/per_thread": assembled.spill_stores,
        "static_spill_loads/per_thread": assembled.spill_loads,
        "static_local_memory/per_thread": taken.stack,
        "static_shared_memory/per_block": demand.shared,
        "static_instructions/sass": taken.instructions,
        "static_idle_warps/occupancy_bound": MULTIPROCESSORS[arch].warps - resident,
    }
    told = {"constants": _constants(program), "occupancy": words, "compiler": toolchain(arch)}
    return Compiled({name: float(value) for name, value in figures.items()}, told)


def _compile(program: TritonProgram, source: Any, arch: int) -> Any:
    import triton
    from triton.backends.compiler import GPUTarget

    with _telling(program, arch):
        return triton.compile(source, GPUTarget("cuda", arch, 32), _options(program))


@contextmanager
def _telling(program: TritonProgram, arch: int) -> Iterator[None]:
    """Whatever a compiler raises becomes Void, told in one line."""
    try:
        yield
    except Exception as problem:  # noqa: BLE001
        told = f"{program.name} sm_{arch} does not compile: {_short(problem)}"
        raise Void(f"{told}; {toolchain(arch)}") from None


def _short(problem: BaseException) -> str:
    """The innermost reason, and the innermost line of source that is known."""
    chain = [problem]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    nodes: list[Any] = [getattr(one, "node", None) for one in reversed(chain)]
    line = next((node.lineno for node in nodes if hasattr(node, "lineno")), None)
    said = [text.strip() for text in str(chain[-1]).splitlines() if text.strip()]
    reason = (said or [type(chain[-1]).__name__])[-1][:300]
    return reason if line is None else f"line {line} of the function: {reason}"


def _taken(compiled: Any, arch: int) -> tuple[Taken, Assembled]:
    from triton import knobs

    with tempfile.TemporaryDirectory(prefix="perfsuite-") as name:
        cubin, ptx = Path(name, "kernel.cubin"), Path(name, "kernel.ptx")
        cubin.write_bytes(compiled.asm["cubin"])
        taken = read(cubin, knobs.nvidia.cuobjdump.path, knobs.nvidia.nvdisasm.path)
        if not taken.stack:
            return taken, Assembled(taken.registers, 0, 0)
        ptx.write_text(compiled.asm["ptx"])
        assembled = assemble(ptx, _ptxas(compiled.metadata, arch))
    if assembled.registers != taken.registers:
        raise UnreadableCubin(
            f"asked again, ptxas takes {assembled.registers} registers a thread and not"
            f" {taken.registers}: which of its options did the environment set?"
        )
    return taken, assembled


def _ptxas(metadata: Any, arch: int) -> list[str]:
    """Triton's own command, without the line numbers."""
    from triton.backends.nvidia.compiler import get_ptxas, sm_arch_from_capability

    fused = [] if metadata.enable_fp_fusion else ["--fmad=false"]
    extra = metadata.ptx_options.split() if metadata.ptx_options else []
    return [get_ptxas(arch).path, *fused, *extra, f"--gpu-name={sm_arch_from_capability(arch)}"]


def _demand(metadata: Any, taken: Taken, arch: int) -> Demand:
    """What a block asks for; Triton's shared memory is dynamic, and in no cubin."""
    # from sm_90 on, where any is used, the static part has what the driver reserves in it
    static = max(taken.shared - (RESERVED if arch >= 90 else 0), 0)
    return Demand(
        warps=metadata.num_warps,  # those of specialised warps included
        registers=taken.registers,
        shared=static + int(metadata.shared),
        tensor_columns=getattr(metadata, "tmem_size", None) or 0,
    )


def _occupancy(program: TritonProgram, demand: Demand, arch: int) -> tuple[int, str]:
    """Warps on an SM at a time, and what they are bound by; Void where no block fits."""
    sm = MULTIPROCESSORS[arch]
    limits = blocks(demand, sm)
    fewest = min(limits.values())
    by = " and ".join(name for name, count in limits.items() if count == fewest)
    if fewest == 0:
        raise Void(
            f"{program.name} does not fit sm_{arch}, by its {by}: a block has {demand.warps} warps"
            f" of {demand.registers} registers a thread, {demand.shared} bytes of shared memory (at"
            f" most {sm.shared_of_block}), {demand.tensor_columns} columns of tensor memory"
        )
    resident = fewest * demand.warps
    return resident, f"{resident} of {sm.warps} warps, bound by {by}"


def _constants(program: TritonProgram) -> str:
    """`num_stages 2, num_warps 4, BLOCK 64`: what is turned when a kernel is tuned."""
    turned = _options(program) | dict(sorted(program.constants.items()))
    return ", ".join(f"{name} {value}" for name, value in turned.items())
