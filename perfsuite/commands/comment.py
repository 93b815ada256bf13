"""A run's results as a comment for a pull request.

Reads a file that --perf-json wrote and writes Markdown that fits GitHub's limit. With --post it
becomes the one comment on the pull request of this job of GitHub Actions, updated if it is there
already; where that can not be, the comment stands in the job summary with the reason.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from perfsuite.errors import OptionError, PerfError
from perfsuite.report.comment import About, marker, render
from perfsuite.report.foreign_text import code
from perfsuite.report.stored import Run, read


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is read, what is written, and what the results do not say."""
    for flag, metavar, text in _TEXTS:
        parser.add_argument(flag, metavar=metavar, default="", help=text)
    parser.set_defaults(name="perf")
    parser.add_argument("results", metavar="RESULTS.json", type=Path, help="of --perf-json")
    parser.add_argument("--output", metavar="FILE", type=Path, required=True,
                        help="the comment; it replaces what is there")  # fmt: skip
    parser.add_argument("--status", metavar="N", type=int,
                        help="exit status of the run: what the figures do not explain is told,"
                             " and a run that left no results gets a comment too")  # fmt: skip
    parser.add_argument("--post", action="store_true",
                        help="put it on the pull request: reads GITHUB_EVENT_PATH,"
                             " GITHUB_REPOSITORY, GITHUB_TOKEN and GITHUB_API_URL")  # fmt: skip


_TEXTS = (
    ("--base-name", "NAME", "what the base is called (default: as the results call it)"),
    ("--page-url", "URL", "of the report page"),
    ("--job-url", "URL", "of the job with the log"),
    ("--name", "NAME", "tells comments of several jobs apart (default: perf)"),
)


def run(arguments: argparse.Namespace) -> int:
    """Write the comment; post it where that was asked for."""
    about = About(
        base=arguments.base_name,
        page=_url("--page-url", arguments.page_url),
        job=_url("--job-url", arguments.job_url),
        status=arguments.status,
        name=_name(arguments.name),
    )
    found = _read(arguments.results, arguments.status)
    text = render(found.results, found.gone, about)
    _write(arguments.output, text)
    if arguments.post:
        print(_posted(text, about, os.environ))
    return 0


def _posted(text: str, about: About, environ: Mapping[str, str]) -> str:
    """The comment's URL; where it could not be written, the job summary has it and the reason."""
    from perfsuite.pull_request import of_job, put

    try:
        return put(of_job(environ), marker(about.name), text)
    except PerfError as problem:
        summary = environ.get("GITHUB_STEP_SUMMARY")
        if summary:
            reason = f"No comment was written: {code(str(problem))}"
            _write(Path(summary), f"{text}\n{reason}\n", mode="a")
        raise PerfError(f"no comment was written: {problem}") from None


def _read(path: Path, status: int | None) -> Run:
    """The run; an empty one where its exit status says that it failed and it left no file."""
    return Run(results=[]) if status and not path.exists() else read(path)


def _write(path: Path, text: str, mode: str = "w") -> None:
    try:
        with path.open(mode, encoding="utf-8") as stream:
            stream.write(text)
    except OSError as problem:
        raise PerfError(f"{path}: not written: {problem.strerror}") from None


def _url(option: str, text: str) -> str:
    """A URL that ends where it ends in a link of Markdown."""
    if not text:
        return ""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or re.search(r"[\s()<>\\`]", text):
        raise OptionError(f"{option} {text!r}: expected like https://example.org/page.html")
    return text


def _name(text: str) -> str:
    if not re.fullmatch(r"\w[\w.-]{0,59}", text, re.ASCII) or "--" in text:
        raise OptionError(f"--name {text!r}: expected letters, digits, dots, _ and single -")
    return text
