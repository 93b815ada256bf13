"""The surroundings of a measurement: toolchain, commit, and what others used meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from perfsuite import environment
from perfsuite.devices import Device
from perfsuite.environment import Disturbance, Surroundings, commit, together, toolchain

CPU, GPU = Device("cpu"), Device("cuda", 0)


def watched(
    monkeypatch: pytest.MonkeyPatch, *, busy: float, steal: float, own: float, wall: float = 10.0
) -> Disturbance | None:
    """The disturbance of `wall` seconds on 2 processors with these seconds of use."""
    monkeypatch.setattr(environment, "visible_cpus", lambda: 2)
    monkeypatch.setattr(environment, "_own_seconds", lambda: 0.0)
    monkeypatch.setattr(environment, "_machine_seconds", lambda: (0.0, 0.0))
    monkeypatch.setattr(environment.time, "monotonic", lambda: 100.0)
    surroundings = Surroundings(CPU)
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


class Ends:
    """The readings of the start, and then those of the end."""

    def __init__(self) -> None:
        self.start: dict[str, Any] = {"load_average": 0.5, "cpu_mhz_highest": 3400}
        self.end = dict(self.start)
        self.gpu_start: dict[str, Any] = {"other_processes": []}
        self.gpu_end = dict(self.gpu_start)
        self.asleep = [5.0, 5.0]

    def surroundings(self, device: Device = CPU) -> Surroundings:
        machine, gpu, asleep = (
            iter(pair)
            for pair in ((self.start, self.end), (self.gpu_start, self.gpu_end), self.asleep)
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(environment.machine_state, "look", lambda: next(machine))
            patch.setattr(environment.machine_state, "asleep_s", lambda: next(asleep))
            patch.setattr(environment.gpu_state, "look", lambda device, ours: next(gpu))
            surroundings = Surroundings(device)
            surroundings.disturbance()  # the end is read once, when it is first asked for
        return surroundings


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Ends:
    """A quiet machine, whatever this one does."""
    monkeypatch.setattr(environment, "_own_seconds", lambda: 0.0)
    monkeypatch.setattr(environment, "_machine_seconds", lambda: (0.0, 0.0))
    return Ends()


def test_a_quiet_machine_is_not_disturbed(ends: Ends) -> None:
    """A frequency that moves by a tenth is its own."""
    ends.end["cpu_mhz_highest"] = 3100
    assert ends.surroundings().disturbance() is None
    assert ends.surroundings(GPU).disturbance() is None


def test_a_lower_frequency_is_named_with_its_share(ends: Ends) -> None:
    """From 3400 to 2550 MHz is a quarter."""
    ends.end["cpu_mhz_highest"] = 2550
    found = ends.surroundings().disturbance()
    text = "the processors' frequency fell by 25%, from 3400 to 2550 MHz"
    assert found == Disturbance(pytest.approx(0.25), text)  # type: ignore[arg-type]


@pytest.mark.parametrize(("start", "end"), [(None, None), (None, 800), (3400, None), (800, 3400)])
def test_an_unknown_or_a_higher_frequency_is_no_disturbance(
    ends: Ends, start: int | None, end: int | None
) -> None:
    """As on a virtual machine."""
    ends.start["cpu_mhz_highest"], ends.end["cpu_mhz_highest"] = start, end
    assert ends.surroundings().disturbance() is None


def test_a_suspended_machine_explains_every_loss(ends: Ends) -> None:
    """Nothing can be called WORSE after that; what the clocks differ by anyway is nothing."""
    ends.asleep = [5.0, 65.0]
    found = ends.surroundings().disturbance()
    assert found == Disturbance(1.0, "the machine was suspended for 60.0 s")
    assert found.slowed(1000.0) == 0
    ends.asleep = [5.0, 5.05]
    assert ends.surroundings().disturbance() is None


def test_what_disturbs_a_gpu_counts_where_one_is_measured(ends: Ends) -> None:
    """And a processor's run does not look at it."""
    ends.gpu_end["other_processes"] = [42]
    found = ends.surroundings(GPU).disturbance()
    assert found == Disturbance(1.0, "other processes use the GPU: pid 42")
    assert ends.surroundings(CPU).disturbance() is None


def test_several_disturbances_are_all_named(ends: Ends) -> None:
    """In one sentence."""
    ends.end["cpu_mhz_highest"] = 1700
    ends.asleep = [0.0, 2.0]
    found = ends.surroundings().disturbance()
    assert found is not None
    assert found.text.startswith("the processors' frequency fell by 50%")
    assert found.text.endswith("; the machine was suspended for 2.0 s")
    assert found.share == 1.0


def test_the_state_holds_both_ends_and_what_was_between(ends: Ends) -> None:
    """In built-in types; the GPU's only where one is measured."""
    ends.end["load_average"] = 1.5
    ends.asleep = [5.0, 6.5]
    found = ends.surroundings(GPU).state()
    assert json.loads(json.dumps(found)) == found
    assert found["start"] == {**ends.start, "gpu": ends.gpu_start}
    assert found["end"] == {**ends.end, "gpu": ends.gpu_end}
    assert found["meanwhile"] == {
        "seconds": pytest.approx(0, abs=60),
        "others_share": 0.0,
        "steal_share": 0.0,
        "suspended_s": 1.5,
    }
    assert "gpu" not in ends.surroundings(CPU).state()["start"]


def test_the_state_of_this_machine_is_read() -> None:
    """The real sensors, whatever they show."""
    found = Surroundings(CPU).state()
    assert json.loads(json.dumps(found)) == found
    assert found["meanwhile"]["suspended_s"] == 0


@pytest.mark.parametrize("under_xdist", [False, True])
def test_the_processes_of_this_run(monkeypatch: pytest.MonkeyPatch, under_xdist: bool) -> None:
    """Its own and its children; under pytest-xdist the controller and its other processes too."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    if under_xdist:
        monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        found = environment._pids_of_this_run()
    finally:
        child.communicate(b"\n")
    assert {os.getpid(), child.pid} <= found
    assert (os.getppid() in found) == under_xdist


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
