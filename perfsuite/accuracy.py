"""What a technique costs in accuracy: the figures of an offer's own comparison, checked.

The offer runs its engine beside the model without the technique, over a fixed stream of tokens.
"""

from __future__ import annotations

from typing import Any

from perfsuite.errors import Void
from perfsuite.metrics import metric, refusal
from perfsuite.sampling import Block
from perfsuite.workloads import Workload

_FIGURES = {
    "kl_divergence": "kl_divergence/mean_of_unquantised",
    "max_logit_error": "logit_error/maximum",
}


def compared(offer: Any, engine: Any, workload: Workload) -> Block:
    """The figures of `offer.compare(engine, workload)`; none where it compares nothing.

    Raises Void where it raises, gives other names, or what can not be a figure.
    """
    if not hasattr(offer, "compare"):
        return {}
    who = f"{offer.name}: compare"
    try:
        found = {name: float(value) for name, value in offer.compare(engine, workload).items()}
    except Exception as problem:
        raise Void(f"{who} raised {type(problem).__name__}: {problem}") from problem
    if found and found.keys() != _FIGURES.keys():
        raise Void(
            f"{who} gave {', '.join(sorted(found))}; expected {', '.join(_FIGURES)}, or nothing"
        )
    figures = {_FIGURES[name]: value for name, value in found.items()}
    reasons = [reason for m, value in figures.items() if (reason := refusal(metric(m), value))]
    if reasons:
        raise Void(f"{who}: {'; '.join(reasons)}")
    return figures
