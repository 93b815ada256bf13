"""The best that was ever accepted: ten small losses are seen against it, one alone is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from perfsuite.accepted import KEPT, Best, better, longer, remembered
from perfsuite.baselines import Baselines, Key, save
from perfsuite.results import Result, Row
from perfsuite.verdict import Verdict

TTFT = "time_to_first_token/prefill_until_first_token"
DECODE = "decode_throughput/decode_steps"
BEST = Best(0.010, "2026-01-01", "1a2b")


def drifted(result: Result, best: Best, *, accepting: bool = False) -> Row:
    """The only row, beside that best."""
    return remembered(result, {result.rows[0].figure: best}, accepting=accepting).rows[0]


@pytest.fixture
def own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.mark.usefixtures("own_locks")
def test_ten_saves_of_two_per_cent_are_seen(
    make_result: Callable[..., Result], make_row: Callable[..., Row], tmp_path: Path
) -> None:
    """Each step is SAME; from the third on the file's best is more than 5 % away."""
    seen, level = [], 0.010
    for day in range(1, 12):
        figures = {TTFT: {"unit": "s", "processes": [level] * 5}}
        entry = {"date": f"2026-01-{day:02}", "commit": f"c{day}", "figures": figures}
        save(tmp_path, "machine", "suite", {Key("test_a").text: entry}, "all")
        level *= 1.02
        stored = Baselines([tmp_path]).find("machine", "suite", Key("test_a"))
        assert stored is not None
        row = make_row(value=level, baseline=level / 1.02, ratio=1.02, verdict=Verdict.SAME)
        seen.append(drifted(make_result(rows=(row,)), stored.best[TTFT]))
    assert [row.drift is not None for row in seen] == [False] * 2 + [True] * 9
    assert seen[9].drift == pytest.approx(1.02**10, rel=1e-4)
    assert (seen[9].best, seen[9].best_date, seen[9].best_commit) == (0.01, "2026-01-01", "c1")


def test_a_throughput_drifts_downwards(
    make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """From 100 to 80 is 1.25 times worse; from 100 to 120 is no drift."""
    rows = [make_row(figure=DECODE, value=v, verdict=Verdict.SAME) for v in (80.0, 120.0)]
    found = [drifted(make_result(rows=(row,)), Best(100.0, "", "")).drift for row in rows]
    assert found == [1.25, None]


@pytest.mark.parametrize(
    ("verdict", "value", "baseline", "accepting", "drift"),
    [
        (Verdict.SAME, 0.0104, 0.012, False, None),  # measured where it passed
        (Verdict.SAME, 0.011, 0.0104, False, 1.1),
        (Verdict.BETTER, 0.011, 0.02, False, 1.1),
        (Verdict.WORSE, 0.02, 0.0104, False, None),  # the accepted level where it did not
        (Verdict.UNSURE, 0.02, 0.012, False, 1.2),
        (Verdict.WORSE, 0.02, 0.0104, True, 2.0),  # what is accepted now
    ],
)
def test_what_counts_is_the_level_that_is_or_becomes_accepted(
    make_result: Callable[..., Result],
    make_row: Callable[..., Row],
    verdict: Verdict,
    value: float,
    baseline: float,
    accepting: bool,
    drift: float | None,
) -> None:
    """A loss that is judged already is no drift."""
    row = make_row(verdict=verdict, value=value, baseline=baseline, limit=1.05)
    found = drifted(make_result(rows=(row,)), BEST, accepting=accepting).drift
    assert found == (None if drift is None else pytest.approx(drift))


def test_what_was_not_compared_has_no_best(
    make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """NEW and FOREIGN figures have no limit; a broken contract has no value."""
    rows = (
        make_row(verdict=Verdict.NEW, limit=None, baseline=None),
        make_row(verdict=Verdict.VOID, value=None),
    )
    result = make_result(rows=rows, samples={})
    assert remembered(result, {TTFT: BEST}, accepting=True) == result
    other = make_result()
    assert remembered(other, {}, accepting=True) == other


def test_the_oldest_saves_go_first() -> None:
    """The newest is always there."""
    saves = [{"date": str(day)} for day in range(KEPT)]
    assert longer(saves, {"date": "new"}) == [*saves[1:], {"date": "new"}]
    assert longer([], {"date": "new"}) == [{"date": "new"}]


def test_a_best_changes_only_for_a_better_level() -> None:
    """Equal or worse keep the first one; another figure's best stays; nothing given is changed."""
    known = {TTFT: {"value": 0.01, "date": "1", "commit": "a"}}
    for level, date in ((0.01, "1"), (0.011, "1"), (0.009, "2")):
        found = better(known, {"date": "2", "commit": "b", "figures": {TTFT: level, DECODE: 5.0}})
        assert found[TTFT]["date"] == date
        assert found[DECODE] == {"value": 5.0, "date": "2", "commit": "b"}
    assert list(known) == [TTFT]
