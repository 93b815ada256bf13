"""What torchrun's variables say, and what the figures of several ranks are together."""

from __future__ import annotations

import pytest

from perfsuite.devices import Device
from perfsuite.errors import OptionError
from perfsuite.gang import on_device
from perfsuite.ranks import COUNT_VARIABLE, is_follower, rank_count, together, worst

_TWO = {"TORCHELASTIC_RUN_ID": "none", "RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}


def test_without_torchrun_there_is_one() -> None:
    """A WORLD_SIZE of somebody else, as a cluster's scheduler sets, means nothing."""
    assert rank_count({"WORLD_SIZE": "8", "RANK": "3"}) == 1
    assert not is_follower({"WORLD_SIZE": "8", "RANK": "3"})


def test_torchrun_tells_count_and_rank() -> None:
    assert rank_count(_TWO) == 2
    assert is_follower(_TWO)
    assert not is_follower(_TWO | {"RANK": "0"})


def test_a_worker_of_a_gang_is_no_follower() -> None:
    """It inherits torchrun's variables, but perfsuite started it."""
    told = _TWO | {COUNT_VARIABLE: "2"}
    assert rank_count(told) == 2
    assert not is_follower(told)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"WORLD_SIZE": "16"}, "16 processes, 2 of them on this machine"),
        ({"TORCHELASTIC_MAX_RESTARTS": "3"}, "--max-restarts=3 would run a red run again"),
    ],
)
def test_what_can_not_be_gated_is_refused(change: dict[str, str], reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        rank_count(_TWO | change)


def test_the_slowest_rank_is_told() -> None:
    """The largest time and memory, the smallest throughput; what one rank lacks is no figure."""
    ttft, rate = "time_to_first_token/prefill_until_first_token", "decode_throughput/decode_steps"
    paper, peak = "decode_throughput/all_less_first_token", "peak_memory/allocator"
    first = {ttft: 1.0, rate: 30.0, peak: 100.0, paper: 7.0}
    second = {ttft: 1.5, rate: 20.0, peak: 90.0}
    assert worst([first, second]) == {ttft: 1.5, rate: 20.0, peak: 100.0}
    assert worst([second, first]) == {ttft: 1.5, rate: 20.0, peak: 100.0}


def test_ceilings_are_those_of_all_devices() -> None:
    first = {"config": {"rank": 0}, "ceilings": {"bandwidth": 30.0, "peak": 100.0}}
    second = {"config": {"rank": 1}, "ceilings": {"bandwidth": 20.0, "peak": 90.0}}
    assert together([first, second]) == {
        "config": {"rank": 0},
        "ceilings": {"bandwidth": 50.0, "peak": 190.0},
    }


def test_each_rank_has_a_gpu_of_its_own() -> None:
    """Counted from the one that was asked for, said last but before what is no option."""
    asked = ["--perf", "--device=cuda:2", "--", "tests"]
    told = ["--perf", "--device=cuda:2", "--perf-device=cuda:3", "--", "tests"]
    assert on_device(asked, Device("cuda", 2), 1) == told
    assert on_device(["--perf"], Device("cpu"), 1) == ["--perf"]
