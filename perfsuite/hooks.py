"""The hooks that a project may implement."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.hookspec
def pytest_perf_engines(config: pytest.Config) -> list[Any]:  # type: ignore[empty-body]
    """Return a list of offers (see perfsuite.protocols.Offer).

    Implement it as `@pytest.hookimpl(optionalhook=True)`, so that a project still runs where
    perfsuite is not installed. Called once, when tests are generated.
    """
