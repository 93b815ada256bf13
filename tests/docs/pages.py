"""What the pages tell a reader to type: their blocks of commands and of Python.

A block of commands or of Python is run, unless the line before it says why not:

    <!-- not run: it takes an hour -->

Of commands `pip install` of perfsuite itself never runs: it would replace what is tested.
A command has to end with 0, unless the line before its block says `<!-- exits with 1 -->`; with
`<!-- in the background -->` it goes on while the rest of the page is read. A block whose fence has
a title is the content of that file. Each page is one project and its blocks are run in order; one
that says `<!-- after docs/start.md -->` begins with the files of that page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sybil import Document, Region
from sybil.parsers.markdown.lexers import DirectiveInHTMLCommentLexer, RawFencedCodeBlockLexer

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

_FENCES = RawFencedCodeBlockLexer(
    re.compile(r"(?P<language>[\w+-]*)[ \t]*(?P<attributes>[^\n]*)$\n", re.MULTILINE)
)
_REMARKS = DirectiveInHTMLCommentLexer("not run|exits with|in the background")
_TITLE = re.compile(r'title="([^"]+)"')
_AFTER = re.compile(r"^<!-- after (\S+) -->$", re.MULTILINE)
_TYPED = ("", "console", "sh", "bash", "shell", "text")  # data and code are no commands
_INSTALLS = re.compile(r"pip install '?perfsuite")
_COMMAND = re.compile(
    r"(?:[A-Z_]+=\S+ +)*(?:pytest|python3?|pip|tox|torchrun|git|curl|mkdocs|playwright)(?:$| )"
)


@dataclass(frozen=True)
class Command:
    """One line to type, and what the page shows of its output."""

    line: str
    output: str = ""


@dataclass(frozen=True)
class Block:
    """A fenced block; `excuse` says why it is not run, `status` how its last command ends."""

    page: str
    line: int
    language: str
    title: str
    text: str
    excuse: str = ""
    status: int = 0
    in_background: bool = False

    @property
    def place(self) -> str:
        """Where it stands, as editors read it."""
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> tuple[Command, ...]:
        """The lines after `$ ` with what follows them; without any, all that look like commands."""
        if self.language not in _TYPED or self.title:
            return ()
        lines = [line for line in _continued(self.text) if not _INSTALLS.search(line)]
        if any(line.startswith("$ ") for line in lines):
            return tuple(_with_output(lines))
        return tuple(Command(line) for line in lines if _COMMAND.match(line))

    @property
    def is_python(self) -> bool:
        """Code that stands for itself; with a title it is a file of the project."""
        return self.language == "python"

    @property
    def can_run(self) -> bool:
        """A reader may type it."""
        return bool(self.commands) or self.is_python or bool(self.title)

    @property
    def is_run(self) -> bool:
        """And the tests do."""
        return self.can_run and not self.excuse


def blocks_of(path: Path, page: str) -> list[Block]:
    """The fenced blocks of one page in order.

    Raises ValueError for a remark that stands before no block, and for a reason that is empty.
    """
    document = Document.parse(str(path), _outermost)
    found: list[Block] = []
    remarks: dict[str, str] = {}
    end = 0
    for example in document:
        region = example.region
        if remarks and document.text[end : region.start].strip(" \n->"):
            raise ValueError(f"{page}:{example.line}: {remarks} stands before no block")
        end = region.end
        if "directive" in region.lexemes:
            remarks |= _remark(region, f"{page}:{example.line}")
            continue
        found.append(_block(region, page, example.line, remarks))
        remarks = {}
    if remarks:
        raise ValueError(f"{page}: {remarks} stands before no block")
    return found


def files_before(path: Path) -> list[Block]:
    """The files that a page's project begins with: of the page that it goes on from, each once."""
    after = _AFTER.search(path.read_text())
    blocks = blocks_of(ROOT / after[1], after[1]) if after else []
    first = {block.title: block for block in reversed(blocks) if block.title}
    return list(first.values())


def every_block() -> list[Block]:
    """Those of README.md and docs/."""
    return [block for path in PAGES for block in blocks_of(path, name_of(path))]


def name_of(page: Path) -> str:
    """Its path in the repository."""
    return page.relative_to(ROOT).as_posix()


def _outermost(document: Document) -> Iterator[Region]:
    """Fences and remarks, but for what stands inside of a fence that is shown as it is."""
    end = 0
    for region in sorted([*_FENCES(document), *_REMARKS(document)], key=lambda one: one.start):
        if region.start >= end:
            yield region
            end = region.end


def _remark(region: Region, place: str) -> dict[str, str]:
    word, said = region.lexemes["directive"], region.lexemes["arguments"].strip()
    if not said and word != "in the background":
        raise ValueError(f"{place}: {word} what? Expected <!-- {word}: ... -->")
    return {word: said}


def _block(region: Region, page: str, line: int, remarks: dict[str, str]) -> Block:
    title = _TITLE.search(region.lexemes["attributes"])
    return Block(
        page=page,
        line=line,
        language=region.lexemes["language"],
        title=title[1] if title else "",
        text=str(region.lexemes["source"]),
        excuse=remarks.get("not run", ""),
        status=int(remarks.get("exits with", 0)),
        in_background="in the background" in remarks,
    )


def _continued(text: str) -> list[str]:
    """The lines, those that end with a backslash joined with the next."""
    return re.sub(r" *\\\n\s*", " ", text).splitlines()


def _with_output(lines: list[str]) -> Iterator[Command]:
    typed, shown = "", []
    for line in lines:
        if not line.startswith("$ "):
            shown.append(line)
            continue
        if typed:
            yield Command(typed, "\n".join(shown))
        typed, shown = line.removeprefix("$ "), []
    yield Command(typed, "\n".join(shown))
