"""The rows that docs/options.md has to have: one for each option, ini key and command.

`python -m tests.docs.options_page` prints those that are missing or differ, to be pasted.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

from perfsuite import plugin
from perfsuite.__main__ import _parser
from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "options.md"
_FLAG = re.compile(r"(?<![\w`-])--[a-z][\w-]*(?:=\w+)?")


def rows() -> list[str]:
    """All rows, in the order of `pytest --help`."""
    return [*_flags(), *_ini(), *_commands()]


def differing() -> list[str]:
    """Those that are not on the page."""
    there = PAGE.read_text().splitlines()
    return [row for row in rows() if row not in there]


def _row(what: str, text: str) -> str:
    words = _FLAG.sub(r"`\g<0>`", " ".join(text.split()))
    return f"| {_code(what)} | {words} |"


def _code(what: str) -> str:
    """A bar within backticks ends the cell on one site and shows its escape on the other."""
    return f"<code>{what.replace('|', '&#124;')}</code>" if "|" in what else f"`{what}`"


def _flags() -> Iterator[str]:
    for flag, _, keywords in plugin._FLAGS:
        value = f"={keywords['metavar']}" if "metavar" in keywords else ""
        yield _row(f"{flag}{value}", keywords["help"].replace("%%", "%"))


def _ini() -> Iterator[str]:
    for name, _, text in plugin._INI:
        yield _row(name, text)


def _commands() -> Iterator[str]:
    (words,) = (a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    for word, command in words.choices.items():
        yield _row(f"python -m perfsuite {word}", str(command.description).partition("\n")[0])
        for action in command._actions[1:]:  # the first is --help
            if action.help:
                yield _row(f"{word} {_typed(action)}", action.help.replace("%%", "%"))


def _typed(action: argparse.Action) -> str:
    value = action.metavar or action.dest.upper()
    if not action.option_strings:
        return str(value)
    takes = "" if action.nargs == 0 else f"={value}"
    return f"{action.option_strings[-1]}{takes}"


if __name__ == "__main__":
    print("\n".join(differing()))  # noqa: T201 - a script prints
