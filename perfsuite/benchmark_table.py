"""Fills pytest-benchmark's own table with rounds that were measured in the worker processes.

pytest-benchmark has no public way to hand it rounds, so this uses two private names of its
fixture; where they are gone, a warning says that its table stays empty. The gate does not depend
on it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import pytest


def replay(fixture: Any, results: Sequence[dict[str, Any]]) -> None:
    """Give the rounds of all processes to the fixture of the test in this process."""
    rounds = [seconds for result in results for seconds in result["data"]]
    if not rounds:
        return
    if not hasattr(fixture, "_make_stats") or not hasattr(fixture, "_mode"):
        warnings.warn(
            pytest.PytestWarning(
                "this pytest-benchmark's own table can not be filled; perfsuite's is"
            ),
            stacklevel=2,
        )
        return
    fixture._mode = "benchmark(...)"
    fixture.extra_info.update(results[0].get("extra_info", {}))
    stats = fixture._make_stats(results[0]["iterations"])
    for seconds in rounds:  # of one iteration each, and update() divides by the iterations
        stats.update(seconds * results[0]["iterations"])


def silence_xdist(config: pytest.Config) -> None:
    """Keep pytest-benchmark from saying that it measures nothing under pytest-xdist.

    Under --perf its tests are measured in processes of their own, so the words would be wrong.
    """
    session = getattr(config, "_benchmarksession", None)
    if session is not None:
        session.xdist_warning = False
