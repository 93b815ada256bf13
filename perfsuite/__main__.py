"""`python -m perfsuite COMMAND`: what is done with results after a run, without pytest.

A command is a module of `perfsuite/commands/`; `--help` shows its docstring. It has

    add_arguments(parser)       its own options
    run(arguments) -> int       the exit status; raises PerfError for what is the user's to mend

It imports its libraries inside of `run`, so that no command asks for another one's extra.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from perfsuite.errors import PerfError

# word on the command line: module in perfsuite/commands/
COMMANDS: dict[str, str] = {
    "report": "report",
    "comment": "comment",
    "history": "history",
    "import": "import_",
    "changes": "changes",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 2 for what can not be done as asked, with what to do about it."""
    asked = _parser().parse_args(arguments)
    try:
        return int(asked.run(asked))
    except PerfError as problem:
        print(f"perfsuite: {problem}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m perfsuite", description="Results after a run.")
    words = parser.add_subparsers(metavar="COMMAND", required=True)
    for word, name in COMMANDS.items():
        command = import_module(f"perfsuite.commands.{name}")
        text = (command.__doc__ or "").strip()
        one = words.add_parser(
            word, help=text.partition("\n")[0], description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        command.add_arguments(one)
        one.set_defaults(run=command.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
