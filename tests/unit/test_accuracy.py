"""What a technique costs by its offer's own comparison: the figures, or why there are none."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from perfsuite.accuracy import compared
from perfsuite.errors import Void
from perfsuite.workloads import Workload


def offer(**given: Any) -> Any:
    """One whose compare gives these; `kl` and `error` for short."""
    names = {"kl": "kl_divergence", "error": "max_logit_error"}
    found = {names.get(name, name): value for name, value in given.items()}
    return SimpleNamespace(name="mine", compare=lambda engine, workload: found)


def test_the_figures_by_their_ids(make_workload: Callable[..., Workload]) -> None:
    """Zero is a figure: a technique may change nothing."""
    assert compared(offer(kl=0.002, error=1), None, make_workload()) == {
        "kl_divergence/mean_of_unquantised": 0.002,
        "logit_error/maximum": 1.0,
    }
    assert compared(offer(kl=0.0, error=0.0), None, make_workload()).keys()


def test_nothing_is_compared(make_workload: Callable[..., Workload]) -> None:
    """By an offer that can not, or that says there is nothing to compare with."""
    assert compared(SimpleNamespace(name="mine"), None, make_workload()) == {}
    assert compared(None, None, make_workload()) == {}
    assert compared(offer(), None, make_workload()) == {}


def test_engine_and_workload_are_handed_over(make_workload: Callable[..., Workload]) -> None:
    """As they are."""
    seen: list[object] = []
    asked = SimpleNamespace(name="mine", compare=lambda *given: [seen.extend(given), {}][1])
    engine, workload = object(), make_workload()
    compared(asked, engine, workload)
    assert seen == [engine, workload]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"kl": math.nan, "error": 1.0}, "kl_divergence/mean_of_unquantised is nan"),
        ({"kl": -0.1, "error": 1.0}, "kl_divergence/mean_of_unquantised is -0.1 nats"),
        ({"kl": 0.1, "error": math.inf}, "logit_error/maximum is inf"),
        ({"kl": 0.1}, "gave kl_divergence; expected kl_divergence, max_logit_error, or nothing"),
        ({"perplexity": 3.0}, "gave perplexity; expected"),
        ({"kl": "much", "error": 1.0}, "compare raised ValueError"),
    ],
)
def test_what_is_no_figure_is_void(
    make_workload: Callable[..., Workload], given: dict[str, Any], reason: str
) -> None:
    """The engine is named, what was found and what was expected."""
    with pytest.raises(Void) as void:
        compared(offer(**given), None, make_workload())
    assert str(void.value).startswith("mine: compare")
    assert reason in str(void.value)


def test_a_comparison_that_raises_is_void(make_workload: Callable[..., Workload]) -> None:
    """With the kind of its error and what it says."""

    def compare(engine: object, workload: object) -> dict[str, float]:
        raise IndexError("planted")

    with pytest.raises(Void, match="mine: compare raised IndexError: planted"):
        compared(SimpleNamespace(name="mine", compare=compare), None, make_workload())
