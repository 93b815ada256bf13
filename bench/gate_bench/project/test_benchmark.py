"""The kinds of work as pytest-benchmark measures them."""

import pytest
from subject import KINDS, subject


@pytest.mark.parametrize("kind", KINDS)
def test_kind(benchmark, kind):
    """One row each."""
    benchmark(subject(kind))
