"""What the gate makes of two looks and of a disturbed machine."""

from __future__ import annotations

from collections.abc import Callable

from perfsuite import gate
from perfsuite.environment import Disturbance
from perfsuite.results import Result, Row
from perfsuite.verdict import Verdict

PACE = "machine_pace/matrix_products"


def test_a_slower_machine_is_a_disturbance(
    make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """The share is what the probe lost against the baseline's."""
    slower = make_row(figure=PACE, verdict=Verdict.SHOWN, value=75e9, baseline=100e9)
    found = gate._slower_machine(make_result(rows=(slower,)))
    assert found == Disturbance(0.25, "the machine ran 25% slower than for the baseline")


def test_an_equal_or_faster_machine_is_none(
    make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """A few per cent are the probe's own noise."""
    for pace in (97e9, 100e9, 130e9):
        row = make_row(figure=PACE, verdict=Verdict.SHOWN, value=pace, baseline=100e9)
        assert gate._slower_machine(make_result(rows=(row,))) is None


def test_a_disturbance_explains_its_share_and_no_more(
    make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """Half of the time lost explains a lower bound of 2.0 against a limit of 1.05, not of 2.2."""
    rows = (make_row(ratio_low=2.0, limit=1.05), make_row(ratio_low=2.2, limit=1.05))
    doubted = gate._doubted(make_result(rows=rows), Disturbance(0.5, "others"), drift=1.0)
    assert [row.verdict for row in doubted.rows] == [Verdict.UNSURE, Verdict.WORSE]
    assert doubted.disturbance == "others"


def test_the_drift_between_sessions_explains_its_factor_and_no_more(
    make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """A factor of 1.4 on a limit of 1.05 covers 1.46; exact figures drift by nothing."""
    rows = (
        make_row(ratio_low=1.46, limit=1.05),
        make_row(ratio_low=1.48, limit=1.05),
        make_row(figure="peak_memory/allocator", ratio_low=1.02, limit=1.01),
    )
    doubted = gate._doubted(make_result(rows=rows), Disturbance(0.0, ""), drift=1.4)
    assert [row.verdict for row in doubted.rows] == [Verdict.UNSURE, Verdict.WORSE, Verdict.WORSE]
    assert doubted.rows[0].note == "may be drift between sessions (x1.40, see --perf-drift)"


def test_a_loss_counts_when_both_looks_saw_it(make_row: Callable[..., Row]) -> None:
    """One look alone is UNSURE, with what each saw."""
    worse, same = make_row(verdict=Verdict.WORSE, ratio=1.3), make_row(verdict=Verdict.SAME)
    assert gate._confirmed(worse, worse).verdict is Verdict.WORSE
    for first, second in ((worse, same), (same, worse)):
        found = gate._confirmed(first, second)
        assert found.verdict is Verdict.UNSURE
        assert f"{first.verdict} at first" in found.note
        assert f"{second.verdict} at a second look" in found.note
    void = make_row(verdict=Verdict.VOID, ratio=None)
    assert gate._confirmed(void, worse).note == "VOID at first, WORSE at a second look"
