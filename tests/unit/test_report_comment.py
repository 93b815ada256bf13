"""The comment on a pull request: read in ten seconds, of any size, and no name is markup."""

from __future__ import annotations

import html
import json
import re
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from perfsuite.__main__ import main
from perfsuite.report import json_file
from perfsuite.report.comment import LARGEST, About, marker, render
from perfsuite.results import Result, Row
from perfsuite.verdict import Verdict

DOCS = Path(__file__).parents[2] / "docs/pull-request.md"
PAGE = "https://github.com/owner/project/actions/runs/7/artifacts/9"
TTFT = "time_to_first_token/prefill_until_first_token"
ITL = "inter_token_latency/median_step"
BASE = "7f3a1c9d2e4b"


@pytest.fixture
def suite(
    make_result: Callable[..., Result], make_row: Callable[..., Row]
) -> Callable[..., list[Result]]:
    """Tests compared with another tree, all of which are as they were but for the first ones."""

    def make(tests: int, *, worse: int = 0, verdict: Verdict = Verdict.WORSE) -> list[Result]:
        found = []
        for number in range(tests):
            name = f"llm-smoke-llama3_8b-single_user-plain-b1-i{16 * number + 16}-u16"
            ratio = 1.1 + number / 1000 if number < worse else 1.002
            shown = Row("resident_memory/high_water_mark", Verdict.SHOWN, value=5e8)
            row = make_row(
                verdict=verdict if number < worse else Verdict.SAME,
                ratio=ratio, ratio_low=ratio - 0.03, ratio_high=ratio + 0.03,
                baseline_file=BASE, baseline_date="",
            )  # fmt: skip
            result = make_result(
                nodeid=f"tests/test_llm.py::test_llm[{name}-torch_llama-measured]",
                workload=name, rows=(row, shown), facts={"against": BASE, "by_turns": True},
            )  # fmt: skip
            found.append(result)
        return found

    return make


def as_github_splits(text: str) -> list[list[str]]:
    """The cells of each row of a table, entities read back."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [[c.strip() for c in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def plain(cell: str) -> str:
    """What a reader sees of a cell of code."""
    return html.unescape(re.sub(r"</?code>", "", cell))


def outside_of_code(text: str) -> str:
    """All that GitHub searches for mentions, links and markup, entities read back."""
    unfenced = re.sub(r"^(`{3,}).*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    return html.unescape(re.sub(r"<code>[^<]*</code>", "", unfenced))


def test_one_regression_in_300_tests_is_read_at_once(suite: Callable[..., list[Result]]) -> None:
    """First the verdict with counts, then one row with all that has to be known; then links."""
    text = render(suite(300, worse=1), [], About(base="main", page=PAGE))
    hidden, headline, *_ = text.splitlines()
    assert hidden == "<!-- perfsuite: perf -->"
    assert headline == (
        "### \N{CROSS MARK} perf: 1 of 300 tests is worse than <code>main</code>"
        " (1 WORSE, 299 SAME)"
    )
    assert "SHOWN" not in text
    header, _, *rows = as_github_splits(text)
    assert list(map(plain, header)) == [
        "worse", "figure", "now", "main", "ratio, 95 % bounds", "limit"
    ]  # fmt: skip
    ((test, *figures),) = rows
    assert plain(test) == "llm-smoke-llama3_8b-single_user-plain-b1-i16-u16 torch_llama"
    assert figures == ["**TTFT**", "11 ms", "10 ms", "**1.100** [1.070, 1.130]", "1.050"]
    folded = text.index("<details>")
    assert text.index("| <code>llm") < folded
    assert len(text[:folded].splitlines()) <= 8
    assert f"[report page]({PAGE})" in text


def test_the_docs_show_what_is_written(suite: Callable[..., list[Result]]) -> None:
    """The example in the docs is this output, letter for letter."""
    text = render(suite(300, worse=1), [], About(base="main", page=PAGE))
    assert text.strip() in DOCS.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("worse", "verdict"),
    [(1, Verdict.WORSE), (10_000, Verdict.WORSE), (10_000, Verdict.UNSURE)],
)
def test_the_size_does_not_grow_with_the_suite(
    suite: Callable[..., list[Result]], worse: int, verdict: Verdict
) -> None:
    """10,000 tests, one or all of them worse or in doubt: it fits, and says what it leaves out."""
    text = render(suite(10_000, worse=worse, verdict=verdict), [], About(page=PAGE))
    assert len(text.encode()) <= LARGEST
    if verdict is Verdict.UNSURE:
        assert f"and 9900 more, see [the page]({PAGE})" in text
    elif worse == 10_000:
        assert f"and 9980 more, see [the page]({PAGE})" in text
        first, *_ = as_github_splits(text)[2:]
        assert first[4] == "**11.1** [11.07, 11.13]"  # the last one is the worst


def test_whatever_names_are_as_long_as_they_like(
    suite: Callable[..., list[Result]], make_row: Callable[..., Row]
) -> None:
    """A name of special characters grows sixfold; parts are halved until all fits."""
    name, note = "\u202e|" * 2_000, "<!--" * 2_000
    rows = tuple(
        make_row(figure=f"{TTFT}@{name}{i}", verdict=verdict, note=note, waiver=waiver)
        for i in range(10) for verdict in Verdict for waiver in ("", name)
    )  # fmt: skip
    results = [
        replace(r, workload=name, engine=name, nodeid=name, rows=rows, machine=name,
                toolchain=name, disturbance=name)
        for r in suite(5)
    ]  # fmt: skip
    text = render(results, [(name, name)] * 3000, About(base=name))
    assert len(text.encode()) <= LARGEST
    assert "more, see the job's log" in text


@pytest.mark.parametrize(
    "name",
    [
        "a|b", "a\\|b", "`a`", "``` \n```", "@octocat", "a @octo/team b", "#123", "GH-12", "a\nb",
        "<script>alert(1)</script>", "<!--", "-->", "</code>@octocat<code>", "&lt;b&gt; &#64;x",
        "**b** _i_ ~~s~~", "[t](http://example.org)", "http://example.org www.example.org",
        "a@example.org", ":tada:", "$x$", "</details>", "\\", "\u202eabc\u202c", "\x00\x1b[31m",
        "\udc80", "\u05d0\u05d1", "<!-- perfsuite: perf -->",
    ],
)  # fmt: skip
def test_a_name_is_only_text(
    suite: Callable[..., list[Result]], make_row: Callable[..., Row], name: str
) -> None:
    """In one cell, as it is, without a meaning for Markdown, HTML or GitHub."""
    rows = tuple(
        make_row(figure=f"{TTFT}@{name}", verdict=verdict, note=name, waiver=waiver)
        for verdict in Verdict for waiver in ("", name)
    )  # fmt: skip
    (whole,) = suite(1)
    texts = {"workload": name, "engine": name, "machine": name, "toolchain": name}
    doubtful = tuple(row for row in rows if row.verdict is not Verdict.VOID)
    for shown in (rows, doubtful):
        result = replace(whole, **texts, rows=shown, disturbance=name, expired=(name,))
        text = render([result], [(name, name)], About(base=name))
        bare = outside_of_code(text).replace(marker("perf"), "", 1)
        assert name == "</details>" or name not in bare
        assert not re.search(r"[@`$~#]", bare.replace("### ", "", 1))
        assert "\u202e" not in text
        assert text.count("<!--") == 1
        text.encode()
        for cells in as_github_splits(text):
            assert len(cells) in (6, 7)
        assert text.count("<details>") == text.count("</details>")
    shown_name = plain(as_github_splits(text)[2][0])
    if name.isprintable():
        assert shown_name == f"{name} {name}"
    else:
        assert "\\" in shown_name


def test_the_accepting_lines_are_toml(suite: Callable[..., list[Result]]) -> None:
    """Once its day is filled in, the shown waiver is for exactly this test."""
    nodeid = 'tests/test_a.py::test_a["quoted" \\ ```\u202e]'
    text = render([replace(suite(1, worse=1)[0], nodeid=nodeid)], [])
    (block,) = re.findall(r"^(`{3,})toml\n(.*?)^\1$", text, re.DOTALL | re.MULTILINE)
    (waiver,) = tomllib.loads(block[1].replace("YYYY-MM-DD", "2030-01-31"))["waiver"]
    assert waiver["test"] == nodeid
    with pytest.raises(tomllib.TOMLDecodeError):
        tomllib.loads(block[1])  # nobody waives by accident until a day that nobody chose


def test_a_tests_other_figures_stand_beside_its_worst(
    suite: Callable[..., list[Result]], make_row: Callable[..., Row]
) -> None:
    """One line a test, the worst test first."""
    one, two = suite(2, worse=2)
    rows = (make_row(ratio=1.2), make_row(figure=ITL, ratio=3.0), make_row(ratio=1.5))
    text = render([one, replace(two, rows=rows)], [])
    first, second = as_github_splits(text)[2:]
    assert "i32" in first[0]
    assert first[1] == "**ITL**<br>also TTFT 1.500, TTFT 1.200"
    assert first[4].startswith("**3.000**")
    assert "i16" in second[0]


def test_a_run_without_a_comparison_is_not_green(suite: Callable[..., list[Result]]) -> None:
    """All figures are new: the job fails, and the comment says the same."""
    text = render(suite(2, worse=2, verdict=Verdict.NEW), [], About(status=1))
    assert text.splitlines()[1].startswith("### \N{CROSS MARK} perf: nothing was compared;")


@pytest.mark.parametrize(
    ("verdict", "folded"),
    [(Verdict.UNSURE, "1 UNSURE: can not be told from noise"), (Verdict.BETTER, "1 BETTER"),
     (Verdict.NEW, "1 without a comparison"), (Verdict.GONE, "1 without a comparison")],
)  # fmt: skip
def test_what_does_not_fail_is_folded(
    suite: Callable[..., list[Result]], verdict: Verdict, folded: str
) -> None:
    """A doubt and a gain are there for who opens them, and the job is green."""
    text = render(suite(3, worse=1, verdict=verdict), [], About(status=0))
    _, headline, *_ = text.splitlines()
    assert headline.startswith("### \N{WHITE HEAVY CHECK MARK} perf: none of 3 tests is worse")
    assert f"1 {verdict}" in headline
    assert f"<details><summary>{folded}</summary>" in text
    assert text.index("<details>") < text.index("| test |")


def test_a_broken_contract_is_told_with_its_reason(suite: Callable[..., list[Result]]) -> None:
    """There are no figures to show, and nothing to accept."""
    rows = (Row("contract", Verdict.VOID, note="3 tokens in place of 16\ndetails"),)
    text = render([replace(suite(1)[0], rows=rows), *suite(1)], [], About(status=1))
    assert "1 of 2 tests gave no figure that counts" in text.splitlines()[1]
    assert ": <code>3 tokens in place of 16</code>" in text
    assert "to accept" not in text


def test_a_waived_loss_is_green_and_said(suite: Callable[..., list[Result]]) -> None:
    """It is counted as worse, in the folded part, with the waiver."""
    (result,) = suite(1, worse=1)
    row = replace(result.rows[0], waiver="waived until 2030-01-31 by ana: kernel")
    text = render([replace(result, rows=(row,))], [], About(status=0))
    assert text.splitlines()[1].startswith("### \N{WHITE HEAVY CHECK MARK} perf: no test is worse")
    assert "(1 WORSE (1 waived))" in text.splitlines()[1]
    assert "waived until 2030-01-31 by ana&#58; kernel" in text


@pytest.mark.parametrize(
    ("status", "worse", "said"),
    [
        (1, 0, "perf: the run failed, but not because a figure is worse: see its log"),
        (2, 1, "perf: 1 of 2 tests is worse than <code>7f3a1c9d2e4b</code>; the run ended with"
               " exit status 2, it was interrupted"),
        (0, 1, "is worse than <code>7f3a1c9d2e4b</code>: accepted"),
        (None, 0, "perf: none of 2 tests is worse than <code>7f3a1c9d2e4b</code>"),
    ],
)  # fmt: skip
def test_the_exit_status_is_explained(
    suite: Callable[..., list[Result]], status: int | None, worse: int, said: str
) -> None:
    """No comment says that all is well where the job is red."""
    text = render(suite(2, worse=worse), [], About(status=status))
    assert said in text.splitlines()[1]


def test_surroundings_that_differ_are_counted(suite: Callable[..., list[Result]]) -> None:
    """Versions and configuration of the baseline, disturbances, and pairs that did not fit."""
    before = {"toolchain": "python 3.11.7, torch 2.12.0", "config": {"threads": 4}}
    results = [replace(r, baseline=before, config={"threads": 2}) for r in suite(2)]
    results += [replace(r, disturbance="others", facts={"by_turns": False}) for r in suite(1)]
    text = html.unescape(render(results, []))
    assert "changed since the baseline, 2 tests: <code>torch 2.12.0 -> 2.13.0</code>" in text
    assert "changed since the baseline, 2 tests: <code>threads 4 -> 2</code>" in text
    assert "disturbed, 1 test: <code>others</code>" in text
    assert "not in turn, 1 test" in text


def test_figures_that_nobody_here_knows_are_shown(suite: Callable[..., list[Result]]) -> None:
    """A metric of a later version, and a loss from nothing, which has no ratio."""
    (result,) = suite(1, worse=1)
    unknown = replace(result.rows[0], figure="new_metric/by_step@x", ratio=None)
    text = render([replace(result, rows=(unknown,))], [])
    cells = as_github_splits(text)[2]
    assert plain(cells[1]) == "**new_metric/by_step x**"
    assert cells[2:] == ["0.011", "0.01", "", "1.050"]


class TestCommand:
    """`python -m perfsuite comment`."""

    def test_it_reads_what_perf_json_wrote(
        self, suite: Callable[..., list[Result]], tmp_path: Path
    ) -> None:
        path, output = tmp_path / "r.json", tmp_path / "c.md"
        json_file.write(path, suite(3, worse=1), [("key", "file")], tmp_path)
        arguments = [str(path), "--base-name=main", f"--page-url={PAGE}", f"--output={output}"]
        assert main(["comment", *arguments]) == 0
        text = output.read_text(encoding="utf-8")
        assert "1 of 3 tests is worse than <code>main</code> (1 WORSE, 1 GONE, 2 SAME)" in text

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (None, "cannot be read"),
            ("{", "not a file that --perf-json wrote"),
            ("[]", "not a file that --perf-json wrote"),
            ('{"perfsuite_format": 99, "results": []}', "format 99 is newer"),
        ],
    )
    def test_what_can_not_be_read_is_an_error(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, said: str
    ) -> None:
        """Nothing is written then, whatever was there before."""
        path, output = tmp_path / "r.json", tmp_path / "c.md"
        output.write_text("before")
        if text is not None:
            path.write_text(text)
        assert main(["comment", str(path), f"--output={output}"]) == 2
        assert said in capsys.readouterr().err
        assert output.read_text() == "before"

    def test_a_run_that_left_no_results_has_a_comment(self, tmp_path: Path) -> None:
        """Else the comment of an older push would stand there as if it were this one's."""
        output = tmp_path / "c.md"
        arguments = [str(tmp_path / "none.json"), "--status=4", f"--output={output}"]
        assert main(["comment", *arguments]) == 0
        text = output.read_text(encoding="utf-8")
        assert "\N{CROSS MARK} perf: nothing was measured; the run ended with exit status 4" in text

    def test_an_empty_run_is_not_green(self, tmp_path: Path) -> None:
        path, output = tmp_path / "r.json", tmp_path / "c.md"
        json_file.write(path, [], [], tmp_path)
        assert main(["comment", str(path), f"--output={output}"]) == 0
        assert "### \N{CROSS MARK} perf: nothing was measured" in output.read_text("utf-8")
        assert main(["comment", str(path), "--status=0", f"--output={output}"]) == 0
        assert "### \N{CROSS MARK} perf: nothing was measured" in output.read_text("utf-8")

    @pytest.mark.parametrize(
        "option",
        ["--page-url=javascript:alert(1)", "--page-url=https://a.b/c) @x (", "--name=a-->b",
         "--name=", "--job-url=x"],
    )  # fmt: skip
    def test_what_would_break_the_comment_is_refused(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
    ) -> None:
        arguments = ["none.json", option, "--status=1", f"--output={tmp_path / 'c.md'}"]
        assert main(["comment", *arguments]) == 2
        assert option.partition("=")[0] in capsys.readouterr().err
        assert not (tmp_path / "c.md").exists()

    def test_an_output_that_can_not_be_written_is_named(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["comment", "none.json", "--status=1", f"--output={tmp_path}"]) == 2
        assert f"{tmp_path}: not written" in capsys.readouterr().err

    def test_results_of_json_survive_a_text_that_is_no_unicode(
        self, suite: Callable[..., list[Result]], tmp_path: Path
    ) -> None:
        """JSON can hold half of a pair; a file in UTF-8 can not."""
        path, output = tmp_path / "r.json", tmp_path / "c.md"
        json_file.write(path, suite(1, worse=1), [], tmp_path)
        document = json.loads(path.read_text())
        document["results"][0]["workload"] = document["results"][0]["nodeid"] = "\udc80"
        path.write_text(json.dumps(document))
        assert main(["comment", str(path), f"--output={output}"]) == 0
        assert "udc80" in output.read_text(encoding="utf-8")
