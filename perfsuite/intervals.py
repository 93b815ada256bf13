"""The time between two readings of a clock, which must go forward while work is done."""

from __future__ import annotations

from perfsuite.errors import Void


def elapsed(start: float, end: float) -> float:
    """Seconds from `start` to `end` of timed work.

    Raises Void where the clock did not go forward: a virtual machine's may be set back when it is
    moved to another host, and a figure made of such an interval means nothing.
    """
    if end > start:
        return end - start
    what = "stood still" if end == start else f"went back by {start - end:g} s"
    raise Void(
        f"the clock {what} during timed work: no interval of this process can be trusted\n"
        "see /sys/devices/system/clocksource/clocksource0/current_clocksource, or run elsewhere"
    )
