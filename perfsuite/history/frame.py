"""A history as a pandas DataFrame."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from perfsuite.history import require_libraries
from perfsuite.history.place import Place

if TYPE_CHECKING:
    import pandas


def load_history(
    place: str,
    *,
    workload: str | None = None,
    metric: str | None = None,
    engine: str | None = None,
    branch: str | None = None,
) -> pandas.DataFrame:
    """The figures of a history, a row per run, test and figure, sorted by the runs' times and ids.

    place is a folder or a URL; the other arguments choose the rows with exactly that value.
    Columns: run, time, commit, commit_time, branch; machine, suite, workload, engine, scale, tier,
    metric, part, source, which tell one series from another; unit; value, low, high in that unit;
    processes (the median of each), samples (their count); verdict, ratio, baseline, ceiling (a
    share); void, whether the test's contract was broken, which makes its figures useless;
    disturbance, toolchain, config (JSON), test. Texts are categories; unknown times are NaT.

    Files that can not be read are named in a warning and in `frame.attrs["skipped"]`.
    Raises PerfError where nothing is, where the storage fails, or without perfsuite[history].
    """
    frame = read(Place(str(place)), workload=workload, metric=metric, engine=engine, branch=branch)
    if frame.attrs["skipped"]:
        warnings.warn(skipped_text(str(place), frame.attrs["skipped"]), stacklevel=2)
    return frame


def read(
    place: Place, columns: Sequence[str] | None = None, **equal: str | None
) -> pandas.DataFrame:
    """As `load_history`, without a warning; of the columns only some where they are named."""
    require_libraries()
    from perfsuite.history import index, store

    rows, skipped = index.read(place, columns or store.SCHEMA.names, **equal)
    frame: pandas.DataFrame = rows.to_pandas()
    frame.attrs["skipped"] = skipped
    return frame


def skipped_text(place: str, skipped: Mapping[str, str]) -> str:
    """How many files could not be read, and the first of them with the reason."""
    named = [f"  {name}: {why}" for name, why in list(skipped.items())[:5]]
    more = [f"  and {len(skipped) - 5} more"] if len(skipped) > 5 else []
    files = "1 file" if len(skipped) == 1 else f"{len(skipped)} files"
    return "\n".join([f"{place}: {files} skipped:", *named, *more])
