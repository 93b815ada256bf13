"""What a torch program raises, told in one line that names the program."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from perfsuite.errors import Void
from perfsuite.protocols import Program

Result = TypeVar("Result")


def result_of(program: Program, what: str, run: Callable[[], Result]) -> Result:
    """What `run` gives; Void with the first words of whatever it raises."""
    try:
        return run()
    except Void:
        raise
    except Exception as problem:  # noqa: BLE001 - the program is anybody's
        text = f"{type(problem).__name__}: {_first_sentence(str(problem))}"
        raise Void(f"{program.name}: {what} raised {text}") from None


def _first_sentence(text: str) -> str:
    """The first line, with the next one where it ends in a colon."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])[:300]
