"""Results as a run would give them, with room for a text wherever one can stand."""

from __future__ import annotations

from typing import Any

from perfsuite.results import Result, Row
from perfsuite.verdict import Verdict

FIGURES = ("time_to_first_token/prefill_until_first_token",
           "time_per_output_token/excluding_first_token", "peak_memory/allocator")  # fmt: skip


def result(name: str, *, ratio: float = 1.0, words: str = "", **changes: Any) -> Result:
    """A test of three figures, the first of this ratio; `words` stand wherever text can."""
    verdict = Verdict.WORSE if ratio > 1.05 else Verdict.SAME
    rows = tuple(
        _row(figure, verdict if place == 0 else Verdict.SAME, ratio if place == 0 else 1.0, words)
        for place, figure in enumerate(FIGURES)
    )
    fields: dict[str, Any] = {
        "nodeid": f"test_it.py::{name}{words}",
        "test": "test_it.py",
        "machine": f"cpu-planted{words}",
        "suite": f"llm{words}",
        "key": name,
        "workload": f"{name}{words}",
        "engine": f"torch_llama{words}",
        "tier": "measured",
        "scale": "smoke",
        "date": "2026-02-01T12:00:00+00:00",
        "toolchain": f"python 3.11.7, torch 2.13.0{words}",
        "rows": rows,
        "samples": {row.figure: [[v * 0.99, v, v * 1.01] for v in row.processes] for row in rows},
        "config": {f"threads{words}": f"2{words}"},
        "baseline": {"file": f"b.json{words}", "date": "2026-01-01", "commit": words,
                     "toolchain": "python 3.11.7, torch 2.12.0", "config": {"threads": 2}},
        "published": (f"decode 14 ktok/s{words}",),
        "stands_for": (f"cell{words}",),
        "disturbance": words,
    }  # fmt: skip
    return Result(**{**fields, **changes})


def _row(figure: str, verdict: Verdict, ratio: float, words: str) -> Row:
    return Row(
        figure=f"{figure}@{words}" if words else figure,
        verdict=verdict,
        value=0.01 * ratio, low=0.0098 * ratio, high=0.0102 * ratio,
        processes=(0.0099 * ratio, 0.01 * ratio, 0.0101 * ratio), samples=9,
        ratio=ratio, ratio_low=ratio * 0.98, ratio_high=ratio * 1.02, limit=1.05,
        baseline=0.01, baseline_processes=(0.0099, 0.01, 0.0101), ceiling=0.4, note=words,
    )  # fmt: skip
