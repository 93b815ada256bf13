"""Make the report page from stored results.

The files are what --perf-json wrote, of one machine or of several, of one run or of several; the
page is the one that --perf-html makes. It needs perfsuite[html].
"""

from __future__ import annotations

import argparse
from pathlib import Path

from perfsuite.errors import OptionError, PerfError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Files in, one file out."""
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS.json")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="the page, replaced when it is"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the page and say what is in it."""
    from perfsuite.report import page
    from perfsuite.report.stored import read

    page.require_libraries()
    files: list[Path] = arguments.results
    output: Path = arguments.output
    if output.resolve() in [file.resolve() for file in files]:
        raise OptionError(f"--output {output}: is one of the results, which it would replace")
    runs = [read(file) for file in files]
    try:
        page.write_page(output, runs)
    except OSError as problem:
        raise PerfError(f"{output}: not written: {problem.strerror or problem}") from None
    tests = sum(len(run.results) for run in runs)
    print(f"{output}: {tests} tests of {len(files)} files")
    return 0
