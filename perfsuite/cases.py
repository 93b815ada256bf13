"""Which tests there are: workload x engine x tier, and why some of them can't run here."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from perfsuite.devices import Device
from perfsuite.errors import EngineUnavailable, OptionError
from perfsuite.neighbours import comes_last
from perfsuite.options import Options
from perfsuite.procedures import MEASURED_KINDS
from perfsuite.roofline import working_set_bytes
from perfsuite.static.slices import slice_named, slice_of
from perfsuite.static.topology import require_compiler
from perfsuite.workloads import (
    Model,
    RopeScaling,
    Workload,
    catalogue_with_checkpoint,
    load_catalogue,
    smoke_catalogue,
)

ENTRY_POINTS = "perfsuite.engines"
_NO_KERNELS = "kernels are compiled with --perf-device=cuda, of an engine that offers them"
_ONE_RANK = "compiled facts are one process's: run without torchrun"
# A search over batches is no single program, nor is a server; attention alone and needles run what
# "shared" does.
_STATIC_KINDS = MEASURED_KINDS - {"multi_user", "attention", "needles", "serving"} | {"kernels"}


@dataclass(frozen=True)
class Case:
    """One item: a workload on an engine in a tier; `offer` is None where nobody offers it."""

    workload: Workload
    offer: Any
    tier: str  # "measured" or "static"
    obstacle: str = ""  # why it is skipped
    slice: str = ""  # of TPU chips, for which a static case is compiled

    @property
    def id(self) -> str:
        """`torchao-8192-normal-torch_llama-static`, with a slice that is not the document's own."""
        if self.offer is None:
            return f"{self.workload.id}-none"
        other = f"-{self.slice}" if self.slice != slice_of(self.workload.device) else ""
        return f"{self.name}{other if self.slice else ''}"

    @property
    def name(self) -> str:
        """The id without the slice, which a baseline's folder tells."""
        return f"{self.workload.id}-{self.offer.name}-{self.tier}"


def entry_point_offers() -> list[Any]:
    """The offers of installed packages."""
    points = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return [offer for point in points for offer in point.load()()]


def chosen_offers(offers: Sequence[Any], names: Sequence[str]) -> list[Any]:
    """The offers that --engine names, or all that are on by default.

    Raises EngineUnavailable for a name that nobody offers, OptionError for two of one name.
    """
    known = {offer.name: offer for offer in offers}
    if len(known) < len(offers):
        twice = sorted({o.name for o in offers if known[o.name] is not o})
        raise OptionError(f"two engines are named {', '.join(twice)}; names must differ")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise EngineUnavailable(
            f"unknown engine {', '.join(unknown)};"
            f" offered here: {', '.join(sorted(known)) or 'none'}"
        )
    if names:
        return [known[name] for name in names]
    return [offer for offer in offers if getattr(offer, "default", True)]


def catalogue(scale: str, model: Model | None = None) -> tuple[Workload, ...]:
    """The documents' workloads at a scale, on the documents' models or on a checkpoint's."""
    workloads = load_catalogue()
    if model:
        workloads = catalogue_with_checkpoint(workloads, model)
    return smoke_catalogue(workloads) if scale == "smoke" else workloads


def checkpoint_model(folder: Path, offers: Sequence[Any]) -> Model:
    """The shape of a checkpoint folder, read by the first engine that can.

    Raises EngineUnavailable when none of them reads checkpoints or this one is none of theirs.
    """
    readers = [offer for offer in offers if hasattr(offer, "model_shape")]
    if not readers:
        raise EngineUnavailable("--perf-model: no chosen engine reads a checkpoint folder")
    try:
        shape = dict(readers[0].model_shape(folder))
    except (ValueError, KeyError, OSError) as problem:
        raise EngineUnavailable(f"--perf-model {folder}: {problem}") from None
    scaling = shape.pop("rope_scaling", None)
    rope_scaling = RopeScaling(**scaling) if scaling else None
    return Model(**{**shape, "rope_scaling": rope_scaling, "checkpoint": str(folder)})


def cases(options: Options, offers: Sequence[Any], pattern: str | None) -> list[Case]:
    """Every case of this run whose workload's id matches the marker's pattern.

    The static tier is always at full size.
    """
    chosen = chosen_offers(offers, options.engines)
    model = checkpoint_model(options.model, chosen) if options.model else None
    measured = _matching(map(options.load.of, catalogue(options.scale, model)), pattern)
    full = _matching(catalogue("full", model), pattern)
    found = [c for w in measured for c in _measured_cases(w, chosen, options)]
    found.sort(key=lambda case: comes_last(case.workload))
    static = [c for w in full for c in _static_cases(w, chosen, options)]
    if any(case.slice and not case.obstacle for case in static):
        require_compiler()
    return found + static or [Case(w, None, "static", _NO_KERNELS) for w in full]


def _matching(workloads: Iterable[Workload], pattern: str | None) -> list[Workload]:
    return [w for w in workloads if pattern is None or fnmatchcase(w.id, pattern)]


def _measured_cases(workload: Workload, offers: Sequence[Any], options: Options) -> Iterator[Case]:
    """On every engine that runs it; what is only compiled is neither measured nor an engine."""
    if workload.is_compiled_only:
        return
    offers = [offer for offer in offers if hasattr(offer, "open")]
    refusals = {offer.name: _refusal(offer, workload, options) for offer in offers}
    taken = [offer for offer in offers if not refusals[offer.name]]
    for offer in taken:
        yield Case(workload, offer, "measured")
    if not taken:
        yield Case(workload, None, "measured", _nobody(workload, refusals))


def _static_cases(workload: Workload, offers: Sequence[Any], options: Options) -> Iterator[Case]:
    """XLA compiles for TPU slices, which JAX's offers have programs for; torch for the others.

    Kernels are Triton's, and compiled for GPUs.
    """
    device, on_tpu = options.device, options.device.kind == "tpu"
    named = slice_of(workload.device)
    if workload.kind not in _STATIC_KINDS or (on_tpu and not named):
        return
    for offer in offers:
        has = hasattr(offer, "programs") and getattr(offer, "has_programs", True)
        fits = has and _compiles(offer.framework, workload, device)
        if fits and not offer.refuses(workload, device.kind):
            name = (options.slice or named) if on_tpu else ""
            obstacle = _ONE_RANK if options.ranks > 1 else _impossible(workload, name)
            yield Case(workload, offer, "static", obstacle, slice=name)


def _compiles(framework: str, workload: Workload, device: Device) -> bool:
    """Whether programs of a framework are this workload's, and can be compiled for the device."""
    if workload.is_compiled_only or framework == "triton":
        return (workload.kind, framework, device.kind) == ("kernels", "triton", "cuda")
    return (framework == "jax") == (device.kind == "tpu")


def _impossible(workload: Workload, name: str) -> str:
    """A word where weights and cache alone are more than the slice has: no program could fit."""
    if not name:
        return ""
    of = slice_named(name)
    needed = working_set_bytes(workload, workload.batch)
    if needed <= of.devices * of.chip.hbm:
        return ""
    return (
        f"impossible as printed: weights and cache of {workload.id} need {needed / 1e9:.1f} GB,"
        f" {name} has {of.devices} x {of.chip.hbm / 1e9:.1f} GB"
    )


def _refusal(offer: Any, workload: Workload, options: Options) -> str:
    if workload.kind not in MEASURED_KINDS:
        return f"no procedure measures {workload.kind}"
    if options.ranks > 1 and not getattr(offer, "distributed", False):
        return f"{offer.name} is one process's, torchrun started {options.ranks}"
    if options.ranks > 1 and workload.kind == "multi_user":
        return "each rank would search for a batch of its own"
    return offer.refuses(workload, options.device.name) or ""


def _nobody(workload: Workload, refusals: dict[str, str]) -> str:
    what = f"{workload.document} {workload.mode}".strip()
    reasons = "; ".join(f"{name}: {reason}" for name, reason in refusals.items())
    return f"no engine offers {what}" + (f" ({reasons})" if reasons else "")
