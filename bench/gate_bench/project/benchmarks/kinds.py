"""The kinds of work as asv measures them.

No `setup`: with one, asv times single calls instead of filling its 10 ms; the first call, which
makes what is worked on, falls into its warm-up.
"""

from subject import KINDS, subject


def _timed(kind):
    def time_kind():
        subject(kind)()

    time_kind.__name__ = f"time_{kind}"
    return time_kind


globals().update({f"time_{kind}": _timed(kind) for kind in KINDS})
