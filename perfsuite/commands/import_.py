"""Take results of other tools into a history.

Reads pytest-benchmark's JSON, what `vllm bench serve --save-result` and `vllm bench
latency|throughput --output-json` write, perfsuite's own --perf-json, and runs (.parquet) that could
not be appended when they were measured. Each file becomes one run; what is already in the history
is not taken again, a run that --perf-history appended neither. Figures of other tools keep metric
ids of their own.
"""

from __future__ import annotations

import argparse
from pathlib import Path

_SAID = (
    ("workload", "the workload's name (default: what the file says; vLLM's latency and throughput"
                 " say nothing, there it is the file's name)"),
    ("engine", "the engine's name (default for vLLM: vllm)"),
    ("machine", "the machine's class (vLLM's files do not know it)"),
    ("commit", "the commit that was measured (vLLM's files do not know it)"),
    ("branch", "its branch; of --perf-json this and a commit that it does not know can be said"),
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `python -m perfsuite import`."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument(
        "--history", required=True, metavar="PLACE", help="a folder, or a URL like s3://bucket/perf"
    )
    for name, text in _SAID:
        parser.add_argument(f"--{name}", default="", help=text)


def run(arguments: argparse.Namespace) -> int:
    """Read every file first, so that a bad one leaves the history as it was; then append."""
    from perfsuite.history import require_libraries

    require_libraries()
    from perfsuite.history import importing
    from perfsuite.history.place import Place

    said = importing.Said(**{name: getattr(arguments, name) for name, _ in _SAID})
    runs = [(file, one) for file in arguments.files for one in importing.read(file, said)]
    place = Place(arguments.history)
    place.check_writable()
    there = place.files() if place.exists() else {}
    for file, one in runs:
        if one.is_among(there):
            print(f"{file}: already there, nothing taken")
            continue
        place.put(one.name, one.data)
        there[one.name] = len(one.data)
        print(f"{file}: {one.rows} figures of {one.source} appended: {one.name}")
    return 0
