"""The `perf` fixture: what a test calls to have something measured.

    perf(engine, workload)      a workload of the documents, or of one's own
    perf(callable)              the time of a call; tokens=N adds a throughput

In a static item `perf(engine, workload)` compiles the full-size programs instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

from perfsuite.accuracy import compared
from perfsuite.cases import Case
from perfsuite.conversation import Conversation
from perfsuite.devices import Device
from perfsuite.errors import EngineUnavailable, OptionError, Void
from perfsuite.peaks import ALIVE, PEAK
from perfsuite.perplexity import has_perplexity, perplexity
from perfsuite.procedures import MEASURED_KINDS, Call, Procedure, procedure
from perfsuite.protocols import Engine
from perfsuite.runtimes import loaded, resident, runtime, wait_for_all
from perfsuite.sampling import Block
from perfsuite.slowing import SlowedCalls, SlowedEngine, Spinning
from perfsuite.static.compiled import Compiled
from perfsuite.workloads import Workload


class Perf:
    """Measures what it is called with; returns the medians of this process by figure."""

    def __init__(
        self,
        case: Case | None,
        device: Device,
        conversation: Conversation,
        haystack: Path | None = None,
        text: Path | None = None,
        loading: Block | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """haystack: of needles; text: whose perplexity a checkpoint is asked for.

        `loading` gets the figures of an engine's loading; the first call on an engine tells.
        timeout_s: how long a block may take before whoever asked for it gives up.
        """
        self._case, self._device, self._conversation = case, device, conversation
        self._haystack, self._text, self._timeout_s = haystack, text, timeout_s
        self._loading = {} if loading is None else loading
        self._spinning = None if conversation.slow is None else Spinning(conversation.slow)
        self._parts: set[str] = set()

    def __call__(
        self,
        subject: Engine | Callable[[], object],
        workload: Workload | None = None,
        *,
        name: str = "",
        tokens: int | None = None,
        wait: Callable[[object], object] | None = None,
    ) -> dict[str, float]:
        """Measure an engine on a workload, or a callable.

        name    needed from the second call of a test on; part of the figure's name
        tokens  what one call of a callable produces; adds tokens per second
        wait    blocks until the device has finished a call's result; by default the loaded
                framework's own
        Raises Void (failing the test) when what ran was not what was asked.
        """
        self._claim(name)
        try:
            if workload is None:
                return self._call(name, _callable(subject), tokens, wait)
            if self._case is not None and self._case.tier == "static":
                return self._compile(name, workload)
            return self._run(name, subject, workload)  # type: ignore[arg-type]
        except Void as broken:
            self._conversation.void(str(broken))
            raise

    def _claim(self, name: str) -> None:
        if name in self._parts:
            raise OptionError(
                f"perf was called twice with name={name!r} in one test; give each call its own name"
            )
        if "@" in name:
            raise OptionError(f"perf name={name!r} contains '@', which separates figure and name")
        self._parts.add(name)

    def _call(
        self,
        name: str,
        function: Callable[[], object],
        tokens: int | None,
        wait: Callable[[object], object] | None,
    ) -> dict[str, float]:
        if tokens is not None and tokens < 1:
            raise OptionError(f"perf tokens={tokens!r}: expected a count above zero")
        tools = runtime(loaded())
        clock, wait = time.perf_counter, wait or wait_for_all
        if self._spinning is not None:
            slowed = SlowedCalls(wait, self._spinning)
            clock, wait = slowed.clock, slowed.wait
        return self._measure(name, Call(function, clock, wait, tokens), tools, dtype=None)

    def _run(self, name: str, engine: Engine, workload: Workload) -> dict[str, float]:
        if workload.kind not in MEASURED_KINDS:
            raise OptionError(f"{workload.id}: nothing here measures the kind {workload.kind!r}")
        offer = self._case.offer if self._case is not None else None
        tools = runtime(getattr(offer, "framework", loaded()))
        slowed = SlowedEngine(engine, self._spinning) if self._spinning is not None else engine
        subject = procedure(slowed, workload, haystack=self._haystack, timeout_s=self._timeout_s)
        verify = getattr(offer, "verify", None)

        def check() -> None:
            reason = verify(engine, workload) if verify and self._conversation.first else None
            if reason:
                raise Void(f"wrong outputs: {reason}")

        beside = partial(self._beside, offer, engine, workload)
        return self._measure(name, subject, tools, workload.dtype, check, beside)

    def _beside(
        self, offer: Any, engine: Engine, workload: Workload
    ) -> tuple[Block, dict[str, str]]:
        """What is told of an engine beside its blocks: its loading, its technique's errors, its
        perplexity; with words for its configuration.
        """
        figures, words = dict(self._loading), dict[str, str]()
        self._loading.clear()
        if self._conversation.first:
            figures |= compared(offer, engine, workload)
            if self._text is not None and has_perplexity(offer, workload):
                found, words = perplexity(offer, engine, workload, self._text)
                figures |= found
        return figures, words

    def _measure(
        self,
        name: str,
        subject: Procedure,
        tools: ModuleType,
        dtype: str | None,
        check: Callable[[], None] = lambda: None,
        beside: Callable[[], tuple[Block, dict[str, str]]] = lambda: ({}, {}),
    ) -> dict[str, float]:
        check()
        subject.warm_up()
        watched = _Watched(subject)
        before = tools.probes(self._device.name)
        resettable = resident.reset_peak()
        compiled = tools.compilations()
        self._conversation.blocks(name, watched.block)
        _require_compiled(tools, compiled)
        peak = resident.peak_bytes() if resettable else None
        after = tools.probes(self._device.name)
        subject.finish()
        once = {probe: (before[probe] + after[probe]) / 2 for probe in before}
        if peak is not None:
            once["resident_memory/process_peak"] = float(peak)
        facts = subject.facts()
        if self._spinning is not None:
            facts["self_test"] = self._spinning.facts()
        if self._conversation.first:
            taken, words = self._memory(subject, tools)
            once |= taken
            facts |= words | self._ceilings(tools, dtype)
        told, words = beside()
        once |= told
        if words:
            facts["config"] = {**facts.get("config", {}), **words}
        self._conversation.done(name, once, facts)
        return watched.medians() | once

    def _memory(self, subject: Procedure, tools: ModuleType) -> tuple[Block, dict[str, Any]]:
        """The highest level of one generation, and what was alive then."""
        peak = tools.peak(subject.once(), self._device.name)
        if peak is None:
            return {}, {}
        figures = {PEAK: float(peak.allocated)}
        if peak.reserved is not None:
            figures["reserved_memory/allocator"] = float(peak.reserved)
        return figures, {ALIVE: dict(peak.alive)} if peak.alive else {}

    def _ceilings(self, tools: ModuleType, dtype: str | None) -> dict[str, Any]:
        shown = tools.ceilings(self._device.name, dtype) if dtype else None
        if shown is None:
            return {}
        return {"ceilings": {"bandwidth": shown.bandwidth, "peak": shown.peak}}

    def _compile(self, name: str, workload: Workload) -> dict[str, float]:
        assert self._case is not None  # a static item has a case
        try:
            found = self._compiled(self._case, workload)
        except EngineUnavailable as missing:
            raise Void(str(missing)) from None
        except ValueError as problem:  # a mesh larger than the slice, heads that do not divide
            if not self._case.slice:
                raise
            first = str(problem).strip().partition("\n")[0][:300]
            who = f"{self._case.offer.name} has no program for {self._case.slice}"
            raise Void(f"{who}: {first}") from None
        parts = {f"{name}.{part}" if name else part: one for part, one in found.items()}
        self._tell(parts)
        return {f"{m}@{part}": v for part, one in parts.items() for m, v in one.figures.items()}

    def _compiled(self, case: Case, workload: Workload) -> dict[str, Compiled]:
        from perfsuite.static import compile_all, target_for

        framework = case.offer.framework
        target = target_for(framework, self._device.kind, case.slice)
        programs = case.offer.programs(workload, target)
        if not programs:
            raise Void(f"{case.offer.name} offers no program for {workload.id}")
        return compile_all(programs, framework, target, workload.batch)

    def _tell(self, found: dict[str, Compiled]) -> None:
        """Every part's figures; the words of all with the first, as a configuration is told."""
        words = {
            f"{part}: {w}": text for part, one in found.items() for w, text in one.words.items()
        }
        facts = {"config": words} if words else {}
        for part, one in found.items():
            self._conversation.done(part, dict(one.figures), facts)


def _require_compiled(tools: ModuleType, before: int) -> None:
    """Void where programs were compiled after the first `before`; which, where it can be told."""
    count = tools.compilations() - before
    if count:
        told = f": {tools.compiled_since(before)}" if hasattr(tools, "compiled_since") else ""
        raise Void(
            f"{count} programs were compiled inside the timed part{told}; from call to call only"
            " the values of arrays may change"
        )


class _Watched:
    """A procedure that remembers its blocks, so that the test gets the medians back."""

    def __init__(self, subject: Procedure) -> None:
        self._subject, self._taken = subject, list[dict[str, float]]()

    def block(self) -> dict[str, float]:
        figures = self._subject.block()
        self._taken.append(figures)
        return figures

    def medians(self) -> dict[str, float]:
        names = dict.fromkeys(name for figures in self._taken for name in figures)
        return {name: median(f[name] for f in self._taken if name in f) for name in names}


def _callable(subject: object) -> Callable[[], object]:
    if not callable(subject):
        raise OptionError(
            f"perf({type(subject).__name__}): expected a callable, or an engine with a workload"
        )
    return subject
