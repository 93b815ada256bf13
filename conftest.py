"""The staircase: hands this repository's engines to the plugin, lazily."""

from __future__ import annotations

from typing import Any

import pytest

pytest_plugins = ["pytester"]


@pytest.hookimpl(optionalhook=True)
def pytest_perf_engines() -> list[Any]:
    """The engines of this repository; nothing is imported but their names."""
    from engines.offers import offers

    return offers()
