"""A user's text in a comment on GitHub: shown as it is, and nothing else. Pure.

GitHub looks for mentions, issue numbers, emoji and links in all text but code, after entities have
become characters again. So a name stands in <code>; and what Markdown or HTML would read in it is
an entity, for code alone does not stop a table's border.
"""

from __future__ import annotations

import json
import re

# All but letters, digits and what means nothing anywhere. An underscore inside of a word is no
# emphasis, and a dot is part of a link only behind www.
_SPECIAL = re.compile(r"[^\w .,/=()-]|(?<=[wW])\.|(?<![^\W_])_|_(?![^\W_])")
_MOST = 160  # characters of a name; its ends tell more than its middle
_LAST = 60


def code(text: str) -> str:
    """The text as inline code in a line, a table's cell or HTML; nothing for nothing."""
    plain = "".join(char if char.isprintable() else _named(char) for char in _cut(text))
    return f"<code>{_SPECIAL.sub(_entity, plain)}</code>" if plain else ""


def fenced(text: str, language: str) -> str:
    """The text as a block of code whose fence is longer than all in it that looks like one."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def toml_string(text: str) -> str:
    """The text in quotes; what does not print is escaped, as TOML reads it again."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in quoted)


def _named(char: str) -> str:
    r"""What does not print, or turns what follows it around: `\n`, `\u202e`."""
    return char.encode("unicode_escape").decode("ascii")


def _cut(text: str) -> str:
    return text if len(text) <= _MOST else f"{text[: _MOST - _LAST - 3]}...{text[-_LAST:]}"


def _entity(found: re.Match[str]) -> str:
    return f"&#{ord(found[0])};"
