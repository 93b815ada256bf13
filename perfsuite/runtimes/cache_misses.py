"""Reads JAX's explanation of a cache miss: which argument of which function changed.

With `jax_explain_cache_misses` JAX logs some lines for every function that it traces anew:

    TRACING CACHE MISS at engine.py:31:8 (decode):
      for step defined at engine.py:12
      all previously seen cache keys differ. For the closest previous key:
      different input types:
      * at tokens, now i32[5] and before i32[4]
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

_LONGEST = 60  # characters of a value that are shown

_FUNCTION = re.compile(
    r"^ +(?:for )?(?P<name>\S+)(?: id=\d+)?(?: defined at (?P<file>.+?)(?::(?P<line>\d+))?)?$",
    re.MULTILINE,
)
_PATH = re.compile(r"at input path (?P<path>\S+), now (?P<now>.*) and before (?P<before>.*), so ")
_TYPE = re.compile(r"at (?P<name>.*?), now (?P<now>.*) and before (?P<before>.*?)(?:https://\S+)?$")
_SETTING = re.compile(r"(?P<name>\S+) differs: now (?P<now>.*) and before (?P<before>.*)$")
_STATIC = re.compile(r".*pytree metadata Static\(val=(.*)\)")
_PLACE = re.compile(r"\[(?P<keyword>[01])\]\[(?P<key>'[^']*'|\d+)\](?P<rest>.*)")


@dataclass(frozen=True)
class Change:
    """An argument, or a setting of JAX, that was not as before."""

    name: str
    before: str
    now: str

    def __str__(self) -> str:
        return f"{self.name} was {_short(self.before)}, now {_short(self.now)}"


@dataclass(frozen=True)
class Miss:
    """A function that was traced anew; `note` says why where nothing changed."""

    function: str
    place: str = ""  # file:line, "" where JAX does not say
    changes: tuple[Change, ...] = ()
    note: str = ""

    @property
    def cause(self) -> tuple[str, ...]:
        """What is equal for misses of one cause, whatever the values were."""
        return (self.function, *(change.name for change in self.changes), self.note)

    def __str__(self) -> str:
        where = f" ({self.place})" if self.place else ""
        return f"{self.function}{where}: {'; '.join(map(str, self.changes)) or self.note}"


def read_miss(text: str) -> Miss | None:
    """The miss that an explanation tells of, None where the text is no explanation."""
    found = _FUNCTION.search(text)
    if found is None:
        return None
    file, line = found["file"] or "", int(found["line"] or 0)
    items = [" ".join(item.split()) for item in re.split(r"^ +\* ", text, flags=re.MULTILINE)[1:]]
    changes = [_change(item, found["name"], file, line) for item in items]
    return Miss(
        function=found["name"],
        place=f"{Path(file).name}:{line}" if file else "",
        changes=tuple(change for change in changes if change),
        note=_note(text, items),
    )


def _note(text: str, items: list[str]) -> str:
    if "but seen another function defined on the same line" in text:
        return "a new function object for every call"
    if "never seen function" in text:
        return "it had not run before"
    return "; ".join(map(_short, items)) or "JAX gives no reason"


def _change(item: str, function: str, file: str, line: int) -> Change | None:
    if found := _PATH.match(item):
        name = _argument(found["path"], function, file, line)
    elif found := _TYPE.match(item) or _SETTING.match(item):
        name = found["name"]
    else:
        return None
    return Change(name, _value(found["before"]), _value(found["now"]))


def _value(text: str) -> str:
    static = _STATIC.fullmatch(text)
    return static[1] if static else text.replace("({})", "")  # ({}): a sharding that says nothing


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _argument(path: str, function: str, file: str, line: int) -> str:
    """`request` for `[1]['request']` and, where the source names it, for `[0][2]`."""
    found = _PLACE.fullmatch(path)
    if found is None:
        return f"argument {path}"
    if found["keyword"] == "1":
        return found["key"].strip("'") + found["rest"]
    names = _parameters(function, file, line)
    index = int(found["key"])
    return (names[index] if index < len(names) else f"argument {index}") + found["rest"]


def _parameters(function: str, file: str, line: int) -> list[str]:
    """The positional parameters of the function that the source defines at this line."""
    try:
        tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == function:
            if line not in (node.lineno, *(mark.lineno for mark in node.decorator_list)):
                continue
            names = [parameter.arg for parameter in (*node.args.posonlyargs, *node.args.args)]
            # A method without decorators was handed to jit bound: its self is no argument.
            return names[1:] if names[:1] == ["self"] and not node.decorator_list else names
    return []
