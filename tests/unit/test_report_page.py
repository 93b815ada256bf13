"""The report page as text: what stands in it, that nothing in it runs, that it holds its size."""

from __future__ import annotations

import base64
import html
import json
import math
import re
import zlib
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from perfsuite.__main__ import main
from perfsuite.baselines import Baselines, Key
from perfsuite.errors import OptionError, PerfError
from perfsuite.judging import Bench, Pairs, pair_rows, void
from perfsuite.report import json_file, page_data, stored
from perfsuite.report.stored import Run
from perfsuite.results import Result, Row
from perfsuite.verdict import Verdict

pytest.importorskip("jinja2", reason="the page is made by jinja2")
pytest.importorskip("plotly", reason="the page's plots are plotly's")

from perfsuite.report import page

PLANTED = (
    '"><img src=x onerror=hit()>\n</script><script>hit()</script>\u202egnp\u2028&amp;\'{{7*7}}'
)
TTFT = "time_to_first_token/prefill_until_first_token"
TPOT = "time_per_output_token/excluding_first_token"
PEAK = "peak_memory/allocator"


class _Read(HTMLParser):
    """Elements and attributes as a browser would see them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _data(text: str) -> dict[str, Any]:
    """What the page's script unpacks."""
    packed = re.search(r'id="data">([^<]*)<', text)
    assert packed
    return json.loads(zlib.decompress(base64.b64decode(packed[1])))


def _without_data(text: str) -> str:
    """The page's own markup: without scripts and style."""
    return re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.DOTALL)


@pytest.fixture
def make_page(make_result: Callable[..., Result]) -> Callable[..., str]:
    """The page of results, by default of one that got worse."""

    def make(*results: Result, gone: tuple[tuple[str, str], ...] = ()) -> str:
        return page.render([Run(results or (make_result(),), gone, "1a2b3c")])

    return make


def test_the_failure_stands_at_the_top(make_page: Callable[..., str]) -> None:
    """Who failed, by how much, and the count of each verdict."""
    text = _without_data(make_page())

    assert "<h1>1 test of 1 failed</h1>" in text
    words = " ".join(_Read(text).text).split()
    assert "11 ms, was 10 ms: 1.100 times, limit 1.050" in " ".join(words)
    assert re.search(r'data-verdict="WORSE".*?<b>1</b>', text, re.DOTALL)


def test_nothing_is_loaded_and_only_its_own_scripts_run(make_page: Callable[..., str]) -> None:
    """No address in any attribute; the policy names the hashes of exactly the scripts it has."""
    text = make_page()
    tags = _Read(text).tags

    for tag, attributes in tags:
        assert tag not in ("link", "iframe", "object", "base", "img"), tag
        assert not {"src", "href", "action"} & attributes.keys() or attributes["href"][0] == "#"
        assert not [name for name in attributes if name.startswith("on")], attributes
    (policy,) = [a["content"] for t, a in tags if a.get("http-equiv")]
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 2
    allowed = " ".join(page._hash(script) for script in scripts)
    assert policy.startswith(f"default-src 'none'; script-src {allowed};")


def test_planted_text_stays_text(
    make_page: Callable[..., str], make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """Names, notes, environments and files with HTML, quotes, line breaks and direction marks."""
    row = make_row(note=PLANTED, waiver=PLANTED, baseline_file=PLANTED)
    result = make_result(
        rows=(row,), workload=PLANTED, nodeid=PLANTED, engine=PLANTED, suite=PLANTED,
        machine=PLANTED, toolchain=PLANTED, config={PLANTED: PLANTED}, disturbance=PLANTED,
        published=(PLANTED,), stands_for=(PLANTED,), baseline={"file": PLANTED, "commit": PLANTED},
    )  # fmt: skip
    plain = make_page()
    text = make_page(result, gone=((PLANTED, PLANTED),))

    expected = {tag for tag, _ in _Read(plain).tags} | {"li", "ul"}  # of what is gone
    assert {tag for tag, _ in _Read(text).tags} <= expected
    assert text.count("<script") == plain.count("<script")
    assert "onerror=hit()>" not in _without_data(text).replace(html.escape(PLANTED), "")
    assert "<img" not in text.replace("<image", "").split("<script>")[0]
    assert "\u2028" not in _without_data(text)
    (test,) = _data(text)["tests"]
    assert test["figures"][0]["note"] == PLANTED


def test_without_autoescape_the_planted_text_runs(
    make_page: Callable[..., str],
    make_result: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The planted bug: the tests above see it."""
    made = page.environment()
    made.autoescape = False
    monkeypatch.setattr(page, "environment", lambda: made)

    text = make_page(make_result(workload=PLANTED))

    assert "img" in {tag for tag, _ in _Read(text).tags}


def test_a_waiver_that_is_over_is_a_failure(
    make_page: Callable[..., str], make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """Though every figure is as it was; the button opens that test and no other."""
    same = make_row(verdict=Verdict.SAME, ratio=1.0)
    results = [make_result(key=key, rows=(same,)) for key in ("a", "b")]
    text = make_page(*results, make_result(key="c", rows=(same,), expired=("over since May",)))

    assert "<h1>1 test of 3 failed</h1>" in text
    failed = re.search(r'<ul class="failures">.*?</ul>', text, re.DOTALL)
    assert failed
    assert "over since May" in failed[0]
    place = int(re.findall(r'data-open="(\d+)"', failed[0])[0])
    assert _data(text)["tests"][place]["key"] == "c"


def test_a_loss_from_zero_is_sorted_as_the_largest(
    make_page: Callable[..., str], make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """In the browser's own word for it: `inf` would be no number there."""
    text = make_page(make_result(rows=(make_row(figure=PEAK, ratio=math.inf, limit=1.01),)))
    values = [a["data-v"] for _, a in _Read(text).tags if "data-v" in a]
    assert "Infinity" in values
    assert "inf" not in values


def test_a_metric_of_another_version_is_shown(
    make_page: Callable[..., str], make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    words = " ".join(_Read(make_page(make_result(rows=(make_row(figure="old/kind"),)))).text)
    assert "old/kind" in words


def test_equal_results_make_equal_pages(make_page: Callable[..., str]) -> None:
    """So that a page can be kept where changes are looked at."""
    assert make_page() == make_page()


def test_ratios_stand_the_worst_first(
    make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """By how far they exceed their own limit, not by their size."""
    near = make_row(ratio=1.2, limit=1.19)
    far = make_row(figure=TPOT, ratio=1.1, limit=1.0)
    none = make_row(figure=PEAK, ratio=math.inf, limit=1.01)
    shown = page_data.tests([Run([make_result(rows=(near, far, none))])])

    assert page_data.ratios(shown) == [(0, 1), (0, 0)]
    assert shown[0].worst == none


def test_tests_stand_the_worst_first(
    make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """By their worst figure; one without any comes last."""
    same = make_row(verdict=Verdict.SAME, ratio=1.0)
    results = [
        make_result(key="none", rows=(), samples={}),
        make_result(key="same", rows=(same,)),
        make_result(key="worse", rows=(same, make_row(figure=TPOT))),
        make_result(key="void", rows=(void("the tokens differ"),), samples={}),
        make_result(key="worst", rows=(make_row(ratio=3.0),)),
    ]

    shown = page_data.tests([Run(results)])

    assert [test.result.key for test in shown] == ["worst", "worse", "void", "same", "none"]
    assert page.render([Run(results)])


def test_samples_survive_as_whole_numbers(
    make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """Head's samples and base's medians, five digits of each."""
    row = make_row(baseline_processes=(0.0099, 0.010, 0.0101))
    (test,) = page_data.tests([Run([make_result(rows=(row,))])])

    (figure,) = page_data.as_data(test)["figures"]

    values = [[value / figure["scale"] for value in process] for process in figure["head"]]
    assert values == [pytest.approx([v, v], rel=1e-5) for v in (0.0109, 0.011, 0.0111)]
    assert [v / figure["scale"] for v in figure["base"]] == pytest.approx([0.0099, 0.010, 0.0101])


def test_many_samples_are_thinned_evenly(
    make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """A thousand of a process are one blot; the page says how many there were."""
    row = make_row(samples=1000)
    result = make_result(rows=(row,), samples={row.figure: [[0.001 * n for n in range(1, 1001)]]})
    (test,) = page_data.tests([Run([result])])

    (figure,) = page_data.as_data(test)["figures"]

    values = [value / figure["scale"] for value in figure["head"][0]]
    assert 32 <= len(values) <= 64
    assert values[0] == pytest.approx(0.001)
    assert values[-1] > 0.95
    assert figure["count"] == 1000


def test_surroundings_mark_what_differs(make_result: Callable[..., Result]) -> None:
    """Packages and configuration of both sides; what only one has is absent on the other."""
    base = {"file": "b.json", "commit": "old", "date": "2026-01-01", "config": {"a": {"b": 1}},
            "toolchain": "python 3.11.7, torch 2.12.0"}  # fmt: skip
    result = make_result(config={"a": {"b": 1}, "graph": True}, baseline=base)
    (test,) = page_data.tests([Run([result], commit="new")])

    found = {name: tuple(rest) for name, *rest in page_data.surroundings(test)}

    assert found["python"] == ("3.11.7", "3.11.7", False)
    assert found["torch"] == ("2.12.0", "2.13.0", True)
    assert found["a.b"] == ("1", "1", False)
    assert found["graph"] == ("absent", "true", True)
    assert found["commit"] == ("old", "new", False)


def test_without_a_base_nothing_differs(make_result: Callable[..., Result]) -> None:
    """A side that is not known is empty, not different."""
    (test,) = page_data.tests([Run([make_result(config={"threads": 2})])])

    found = list(page_data.surroundings(test))

    assert not any(differs for *_, differs in found)
    assert ("threads", "", "2", False) in found


def test_evidence_says_why(
    make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> None:
    """Notes of what is no plain SAME, drifts, disturbances, and what was alive at the peak."""
    row = make_row(figure=PEAK, alarm=1.07, drift=1.21, waiver="w",
                   note="alive at the peak: made mask bool")  # fmt: skip
    quiet = make_row(verdict=Verdict.SAME, note="corrected by loop pace")
    facts = {"alive_at_peak": {"held": [], "made": ["mask bool 17 GB"]}}
    base = {"toolchain": "python 3.11.7, torch 2.12.0", "config": {}}
    result = make_result(
        rows=(row, quiet), disturbance="others", facts=facts, baseline=base, config={}
    )
    (test,) = page_data.tests([Run([result])])

    text = "\n".join(page_data.evidence(test))

    for part in ("WORSE: peak memory: 1.1 times worse, limit 1.050, noise reaches 1.070",
                 "; alive at the peak: made mask bool", "1.21 times", "disturbed: others",
                 "alive at the peak, made: mask bool 17 GB", "peak memory: w",
                 "changed since the baseline: torch 2.12.0 -> 2.13.0"):  # fmt: skip
        assert part in text
    assert "corrected" not in text


def test_without_baselines_it_says_so(
    make_page: Callable[..., str],
    make_result: Callable[..., Result],
    make_row: Callable[..., Row],
) -> None:
    """Every figure is NEW: there is nothing to plot, and the table stands."""
    new = make_row(verdict=Verdict.NEW, ratio=None, ratio_low=None, ratio_high=None, limit=None,
                   baseline=None)  # fmt: skip
    text = make_page(make_result(rows=(new,)))

    assert "<h1>Nothing was compared: no figure has a baseline</h1>" in text
    assert "there was no baseline to compare with" in text
    assert 'id="ratios"' not in text
    assert "torch_llama" in text


def test_no_results_at_all() -> None:
    """A run that measured nothing has a page too."""
    text = page.render([Run([])])

    assert "<h1>Nothing was measured</h1>" in text
    assert "There are no results." in text


def test_what_is_gone_is_named(make_page: Callable[..., str]) -> None:
    """Keys and files, counted among the verdicts."""
    text = _without_data(make_page(gone=(("old | measured", "baselines/m/llm.json"),)))

    assert "old | measured" in text
    assert re.search(r'data-verdict="GONE".*?<b>1</b>', text, re.DOTALL)


def test_several_machines_have_a_column(make_result: Callable[..., Result]) -> None:
    """And a file that was given twice adds nothing."""
    one, other = make_result(), make_result(machine="gpu-h100")
    again = replace(one, date="2026-02-02T12:00:00+00:00")

    both = _without_data(page.render([Run([one]), Run([other]), Run([one])]))
    twice = _without_data(page.render([Run([one]), Run([again])]))

    assert ">machine</button>" in both
    assert ">measured</button>" not in both
    assert "of 2 failed" in both
    assert ">measured</button>" in twice
    assert ">machine</button>" not in twice


def test_half_a_character_is_no_obstacle(
    make_result: Callable[..., Result], tmp_path: Path
) -> None:
    """What pytest makes of a file's name that is not UTF-8."""
    output = tmp_path / "page.html"

    page.write(output, [make_result(workload="test_\udcff", nodeid="\udcff")], [], tmp_path)

    assert "test_?" in output.read_text(encoding="utf-8")


def test_the_command_makes_the_page(
    make_result: Callable[..., Result], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From stored results, into a folder that is made, replacing what was there."""
    results, output = tmp_path / "r.json", tmp_path / "deep" / "page.html"
    json_file.write(results, [make_result()], [("key", "file")], tmp_path)

    assert main(["report", str(results), str(results), "--output", str(output)]) == 0
    assert main(["report", str(results), "--output", str(output)]) == 0

    assert "1 test of 1 failed" in output.read_text(encoding="utf-8")
    assert "page.html" in capsys.readouterr().out
    assert [file.name for file in output.parent.iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"perfsuite_format": 2, "results": []}', r"format 2 is newer .*\(1\)"),
        ('{"perfsuite_format": 1, "results": [{}]}', "not a file that --perf-json wrote"),
        ('{"perfsuite_format": 1, "results": 3}', "not a file that --perf-json wrote"),
        ('{"perfsuite_format": 1, "results": [], "gone": 3}', "not a file that --perf-json wrote"),
        ("[]", "not a file that --perf-json wrote"),
        ("", "not a file that --perf-json wrote"),
        ("[" * 100_000, "not a file that --perf-json wrote"),
    ],
)
def test_another_file_is_refused_by_name(tmp_path: Path, text: str, words: str) -> None:
    """The file and what is wrong with it."""
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(PerfError, match=words) as refused:
        stored.read(path)
    assert str(path) in str(refused.value)


def test_bad_input_leaves_the_old_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make_result: Callable[..., Result]
) -> None:
    """A missing file, results that would be replaced, a place that can not be written."""
    output, results = tmp_path / "page.html", tmp_path / "r.json"
    output.write_text("before")
    json_file.write(results, [make_result()], [], tmp_path)

    assert main(["report", str(tmp_path / "none.json"), "--output", str(output)]) == 2
    assert "none.json: cannot be read: No such file" in capsys.readouterr().err
    assert main(["report", str(results), "--output", str(results)]) == 2
    assert "is one of the results" in capsys.readouterr().err
    assert main(["report", str(results), "--output", str(output / "x.html")]) == 2
    assert "x.html: not written" in capsys.readouterr().err
    assert output.read_text() == "before"
    assert stored.read(results).results


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that brings it."""
    monkeypatch.setattr(page, "find_spec", lambda name: None if name == "plotly" else name)
    with pytest.raises(OptionError, match=r"needs plotly: pip install 'perfsuite\[html\]'"):
        page.require_libraries()


def test_bases_processes_ride_on_the_row(make_result: Callable[..., Result]) -> None:
    """Of a comparison in turn the pairs' levels; results of before have none."""
    bench = Bench(Baselines([]), "m", "s", Key("w"), [], "python 3.11.7")
    pairs = Pairs("main", {TTFT: [0.1, 0.11, 0.12]}, {TTFT: [0.01, 0.011, 0.012]})

    (row,) = pair_rows(bench, {TTFT: [[0.02], [0.021], [0.022]]}, pairs)
    assert row.baseline_processes == (0.01, 0.011, 0.012)
    values = json.loads(json.dumps(make_result(rows=(row,)).as_dict()))
    assert Result.from_dict(values).rows == (row,)

    del values["rows"][0]["baseline_processes"]
    del values["baseline"]
    old = Result.from_dict(values)
    assert old.rows[0].baseline_processes == ()
    assert page.render([Run([old])])
