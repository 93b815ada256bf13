"""The kinds of work as perfsuite measures them."""

import pytest
from subject import KINDS, subject


@pytest.mark.parametrize("kind", KINDS)
def test_kind(perf, kind):
    """One row each."""
    perf(subject(kind))
