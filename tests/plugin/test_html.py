"""--perf-html: one page of a run, and what happens where it can not be written or made."""

from __future__ import annotations

import base64
import json
import re
import sys
import zlib
from typing import Any

import pytest

pytest.importorskip("jinja2", reason="the page is made by jinja2")
pytest.importorskip("plotly", reason="the page's plots are plotly's")


def _data(text: str) -> dict[str, Any]:
    packed = re.search(r'id="data">([^<]*)<', text)
    assert packed
    return json.loads(zlib.decompress(base64.b64decode(packed[1])))


def test_a_regression_stands_in_the_page(two_tests: Any) -> None:
    """With the samples of both sides, through pytest-xdist; equal to the stored results' page."""
    project = two_tests
    page, again = project.path / "deep/perf.html", project.path / "again.html"
    assert project.perf("--perf-save", "--perf-html=deep/perf.html").ret == 0
    assert "Nothing was compared" in page.read_text(encoding="utf-8")

    project.slow_down("one")
    assert project.perf("-n", "2", "--perf-html=deep/perf.html").ret == 1

    text = page.read_text(encoding="utf-8")
    assert "<h1>1 test of 2 failed</h1>" in text
    one, two = _data(text)["tests"]
    assert (one["name"], one["verdict"]) == ("test_one", "WORSE")
    figure = one["figures"][0]
    assert figure["metric"] == "call_time/per_call"
    assert min(v / figure["scale"] for process in figure["head"] for v in process) >= 0.2
    assert len(figure["base"]) == 2
    assert max(figure["base"]) < min(min(process) for process in figure["head"])
    assert two["verdict"] == "SAME"
    base = {name: value for name, value, *_ in one["surroundings"]}
    assert base["python"]
    assert base["recorded"]

    made = project._pytester.run(
        sys.executable, "-m", "perfsuite", "report", "out.json", "--output", "again.html"
    )
    assert made.ret == 0
    assert _data(again.read_text(encoding="utf-8"))["tests"][0] == one


def test_a_page_that_can_not_be_written_is_a_failure(two_tests: Any) -> None:
    """The run says which file and fails; its figures are saved and its other files written."""
    two_tests.write("taken", "a file where a folder is wanted")

    result = two_tests.perf("--perf-processes=1", "--perf-save", "--perf-html=taken/perf.html")

    assert result.ret == 1
    result.stdout.fnmatch_lines(["*taken/perf.html: not written: *"])
    assert len(two_tests.baselines) == 2
    assert len(two_tests.results) == 2


def test_without_the_libraries_nothing_is_measured(two_tests: Any) -> None:
    """The option is refused at the start, with the command that helps."""
    two_tests.conftest("""
import importlib.util
import perfsuite.report.page as page

found = importlib.util.find_spec
page.find_spec = lambda name: None if name in ("jinja2", "plotly") else found(name)
""")

    result = two_tests.perf("--perf-html=perf.html")

    assert result.ret == 4
    result.stderr.fnmatch_lines(["*needs jinja2 and plotly: pip install 'perfsuite[[]html]'*"])
    assert not (two_tests.path / "out.json").exists()


def test_it_has_no_effect_without_perf(two_tests: Any) -> None:
    """As all options of the plugin."""
    result = two_tests.pytest("--perf-html=perf.html")

    assert result.ret == 4
    result.stderr.fnmatch_lines(["*--perf-html has no effect without --perf*"])
