"""Every command and every piece of Python in the docs is run, or says why not."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("sybil", reason="the blocks of the pages are found by sybil")

from tests.docs.pages import PAGES, ROOT, Block, blocks_of, every_block, files_before, name_of
from tests.docs.reader import Reader, first_missing

# Blocks of commands and Python that are not run. Whoever adds one has to say why, and to count it.
EXCUSED = 17
RUN = sorted({block.page for block in every_block() if block.is_run})


# What a page says to install first, beside perfsuite.
NEEDS = {
    "docs/adapter-jetstream.md": ("grpc", "uvloop"),
    "docs/gate-a-server.md": ("aiohttp", "uvloop"),
    "docs/history.md": ("pyarrow", "pandas", "plotille"),
    "docs/report.md": ("plotly", "jinja2"),
    "docs/tpu.md": ("jax", "libtpu"),
}


@pytest.mark.parametrize("page", RUN)
def test_page_does_what_it_says(page: str, tmp_path: Path) -> None:
    """All blocks of a page that are not excused, in order, in one project."""
    for library in NEEDS.get(page, ()):
        if find_spec(library) is None:
            pytest.skip(f"{page} needs {library}")
    blocks = [block for block in blocks_of(ROOT / page, page) if block.is_run]
    with Reader(tmp_path) as reader:
        for block in (*files_before(ROOT / page), *blocks):
            reader.read(block)


def test_excuses_are_counted() -> None:
    """No block joins those that are not run unnoticed."""
    excused = [f"{b.place}: {b.excuse}" for b in every_block() if b.can_run and b.excuse]

    assert len(excused) == EXCUSED, "\n".join(excused)


def test_commands_stand_in_fences() -> None:
    """An indented block has no room for a remark, and would be seen by nobody."""
    indented = [
        f"{name_of(page)}:{number}"
        for page in PAGES
        for number, line in enumerate(page.read_text().splitlines(), 1)
        if line.startswith("    $ ")
    ]

    assert indented == []


def block(tmp_path: Path, text: str) -> Block:
    """The one block of a page with this text."""
    page = tmp_path / "page.md"
    page.write_text(text)
    (found,) = blocks_of(page, "page.md")
    return found


def test_a_page_that_shows_another_output_fails(tmp_path: Path) -> None:
    """Planted: the command prints something else than the page says."""
    wrong = block(tmp_path, "```console\n$ echo 2 apples\n3 pears\n```\n")

    with pytest.raises(AssertionError, match="the page shows: 3 pears"):
        Reader(tmp_path).read(wrong)


def test_numbers_may_differ(tmp_path: Path) -> None:
    """What a machine decides is no part of what a page promises."""
    text = "```console\n$ echo took 2.5 ms, 3x8, at 10:30\ntook 812 us, 5x12, at 9:05\n```\n"

    Reader(tmp_path).read(block(tmp_path, text))


@pytest.mark.parametrize(
    "text",
    [
        "```console\n$ exit 3\n```\n",
        "```python\nimport no_such_module\n```\n",
        "```\npytest --perf --perf-renamed\n```\n",
    ],
)
def test_what_fails_is_red(tmp_path: Path, text: str) -> None:
    """Planted: a command that ends with another status, code that raises, an option renamed."""
    with pytest.raises(AssertionError, match="ended with"):
        Reader(tmp_path).read(block(tmp_path, text))


def test_what_is_shown_inside_of_a_fence_is_no_block(tmp_path: Path) -> None:
    """A page that shows Markdown shows fences and remarks too."""
    inner = "<!-- not run: no -->\n```console\n$ exit 3\n```\n"

    shown = block(tmp_path, f"````markdown\n{inner}````\n")

    assert (shown.language, shown.commands, shown.excuse) == ("markdown", (), "")


def test_a_status_that_is_announced(tmp_path: Path) -> None:
    """`exits with` is what the last command has to end with."""
    text = "<!-- exits with 3 -->\n```console\n$ echo one\none\n$ exit 3\n```\n"

    Reader(tmp_path).read(block(tmp_path, text))


def test_what_runs_in_the_background_ends_with_the_page(tmp_path: Path) -> None:
    """It is waited for until it has printed what the page shows, and ended after the last block."""
    (tmp_path / "said").mkdir()
    server = "```python title=\"server.py\"\nimport time\nprint('ready: 1')\ntime.sleep(600)\n```\n"
    typed = "<!-- in the background -->\n```console\n$ python server.py\nready: 1\n```\n"
    with Reader(tmp_path / "said") as reader:
        reader.read(block(tmp_path, server))
        reader.read(block(tmp_path, typed))
        (process,) = reader.running
        assert process.poll() is None

    assert process.poll() is not None


def test_what_runs_in_the_background_ends_with_a_reader_that_was_killed(tmp_path: Path) -> None:
    """Which closes nothing itself: the kernel closes its pipes."""
    typed = "<!-- in the background -->\n```console\n$ echo ready; sleep 600\nready\n```\n"
    with Reader(tmp_path) as reader:
        reader.read(block(tmp_path, typed))
        (process,) = reader.running
        assert process.stdin is not None
        process.stdin.close()

        assert process.wait(timeout=60) != 0

        process.stdin = None


def test_two_readers_of_one_port_do_not_meet(tmp_path: Path) -> None:
    """Each has a free one in the place of the page's, in files and in commands."""
    text = "```console\n$ python read.py\n8137 8137\n```\n"
    written = '```python title="read.py"\nprint(8137, __import__("sys").argv[1])\n```\n'
    said = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        reader = Reader(tmp_path / name)
        reader.read(block(tmp_path, written))
        reader.read(block(tmp_path, text.replace("read.py", "read.py 8137")))
        said.append((reader.folder / "read.py").read_text())

    assert "8137" not in said[0]
    assert said[0] != said[1]


def test_a_command_that_does_not_end_is_red(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what it printed until then."""
    monkeypatch.setattr("tests.docs.reader._SECONDS", 1)
    endless = block(tmp_path, "```console\n$ echo begun; exec sleep 60\n```\n")

    with pytest.raises(AssertionError, match="had not ended after 1 s:\nbegun"):
        Reader(tmp_path).read(endless)


def test_an_excuse_needs_a_reason_and_a_block(tmp_path: Path) -> None:
    """A remark that excuses nothing, or says nothing, is an error of the page."""
    with pytest.raises(ValueError, match="not run what"):
        block(tmp_path, "<!-- not run: -->\n```\npytest\n```\n")
    with pytest.raises(ValueError, match="stands before no block"):
        block(tmp_path, "<!-- not run: slow -->\nwords\n\n```\npytest\n```\n")


@pytest.mark.parametrize(
    ("shown", "printed", "missing"),
    [
        ("a\nc", "a\nb\nc", "c"),
        ("a\n...\nc", "a\nb\nc", None),
        ("b", "a\nb\nc", None),
        ("c\n...\na", "a\nb\nc", "a"),
        ("saved ... in 3 s", "saved all of it in 4 ms", None),
        ("1 SAME", "1 WORSE", "1 SAME"),
    ],
)
def test_lines_stand_in_their_order(shown: str, printed: str, missing: str | None) -> None:
    """`...` stands for lines that are left out; without it lines follow each other."""
    assert first_missing(shown, printed) == missing
