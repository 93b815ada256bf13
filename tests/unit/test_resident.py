"""The resident set and its peak, of this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from perfsuite.runtimes import resident

MIB = 2**20
LARGE = 256 * MIB  # what else this process does meanwhile is small beside it

linux = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="needs Linux's clear_refs"
)


@linux
def test_the_peak_is_of_what_ran_since_it_was_reset() -> None:
    """What was given back before does not show; what is given back after does."""
    assert resident.reset_peak()
    before = resident.size_bytes()
    assert before
    bytearray(LARGE)[::4096] = bytes(LARGE // 4096)  # every page is touched, then all given back
    peak = resident.peak_bytes()
    assert peak
    assert LARGE // 2 < peak - before < 2 * LARGE
    assert resident.reset_peak()
    again = resident.peak_bytes()
    assert again
    assert again < peak - LARGE // 2


def test_what_the_kernel_does_not_tell_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file, or no such line in it; a peak that can not be reset says so."""

    def refuse(*given: object) -> str:
        raise PermissionError("planted")

    monkeypatch.setattr(Path, "read_text", lambda path: "VmPeak:\t 12 kB\n")
    assert resident.peak_bytes() is None
    monkeypatch.setattr(Path, "read_text", refuse)
    assert resident.size_bytes() is None
    monkeypatch.setattr(Path, "write_text", refuse)
    assert not resident.reset_peak()


def test_kilobytes_are_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's kB are 1024."""
    monkeypatch.setattr(Path, "read_text", lambda path: "VmHWM:\t    12 kB\nVmRSS:\t     7 kB\n")
    assert (resident.peak_bytes(), resident.size_bytes()) == (12 * 1024, 7 * 1024)
