"""The surroundings of a measurement: toolchain, commit, and what others used meanwhile."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from perfsuite import environment
from perfsuite.environment import Disturbance, Surroundings, commit, together, toolchain


def watched(
    monkeypatch: pytest.MonkeyPatch, *, busy: float, steal: float, own: float, wall: float = 10.0
) -> Disturbance | None:
    """The disturbance of `wall` seconds on 2 processors with these seconds of use."""
    monkeypatch.setattr(environment, "visible_cpus", lambda: 2)
    monkeypatch.setattr(environment, "_own_seconds", lambda: 0.0)
    monkeypatch.setattr(environment, "_machine_seconds", lambda: (0.0, 0.0))
    monkeypatch.setattr(environment.time, "monotonic", lambda: 100.0)
    surroundings = Surroundings()
    monkeypatch.setattr(environment, "_own_seconds", lambda: own)
    monkeypatch.setattr(environment, "_machine_seconds", lambda: (busy, steal))
    monkeypatch.setattr(environment.time, "monotonic", lambda: 100.0 + wall)
    return surroundings.disturbance()


def test_own_work_is_no_disturbance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both processors busy with this process and its children disturb nothing."""
    assert watched(monkeypatch, busy=20.0, steal=0.0, own=20.0) is None


def test_others_work_is_named_with_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """8 of 20 processor seconds that were not ours are 40 %."""
    found = watched(monkeypatch, busy=18.0, steal=0.0, own=10.0)
    assert found is not None
    assert found.share == pytest.approx(0.4)
    assert found.text == "other processes used 40% of the processors"


def test_stolen_time_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """2 of 20 processor seconds taken by the hypervisor are 10 %."""
    found = watched(monkeypatch, busy=10.0, steal=2.0, own=10.0)
    assert found is not None
    assert found.text == "the hypervisor took 10% of the processors' time"


def test_a_little_of_others_is_tolerated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of the processors may be used by others."""
    assert watched(monkeypatch, busy=15.0, steal=0.0, own=10.0) is None


def test_a_span_of_few_ticks_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counters move in steps of 10 ms."""
    assert watched(monkeypatch, busy=1.0, steal=0.0, own=0.0, wall=0.1) is None


def test_the_share_bounds_what_a_disturbance_explains() -> None:
    """Half of the time taken explains a factor of two, no more."""
    assert Disturbance(0.5, "").slowed(1.9) == pytest.approx(0.95)
    assert Disturbance(0.5, "").slowed(2.4) == pytest.approx(1.2)


def test_two_disturbances_take_from_what_is_left() -> None:
    """Half, and then half of the rest, leave a quarter."""
    both = together([Disturbance(0.5, "one"), Disturbance(0.5, "two")])
    assert both == Disturbance(0.75, "one; two")


def test_the_toolchain_names_python_and_what_is_installed() -> None:
    """Versions of what decides speed, python first."""
    assert toolchain().startswith("python 3.")


def test_a_dirty_checkout_says_so(tmp_path: Path) -> None:
    """The commit carries a mark when tracked files were changed."""
    git = ["git", "-c", "user.name=n", "-c", "user.email=e"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        (tmp_path / "file").write_text("one")
        subprocess.run([*git, *words], cwd=tmp_path, check=True)
    clean = commit(tmp_path)
    (tmp_path / "file").write_text("two")
    assert len(clean) == 12
    assert commit(tmp_path) == clean + "+changes"


def test_a_folder_without_git_has_no_commit(tmp_path: Path) -> None:
    """No commit is an empty text, not an error."""
    assert commit(tmp_path) == ""
