"""What a run says of its load: `--perf-dataset`, `--perf-arrivals`, `--perf-requests` ...

They become options of the workload, beside the document's own. What changes the work itself, the
dataset and the arrivals, becomes a part of its id too, because the id is the baseline's key: two
loads are never compared. A file counts by what it holds, not by where it lies, and a dataset counts
together with the tokenizer that its lengths are counted by.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from perfsuite.errors import OptionError
from perfsuite.serving import arrivals
from perfsuite.workloads import Workload
from perfsuite.workloads.merging import id_part

MOST_CLIENTS = 64
_DIGITS = 8  # of the digest of files, in an id
_SHOWN = 80  # characters of a path that can not be one


@dataclass(frozen=True)
class Choices:
    """Options and parts of the id that a serving workload gets, and the flags that gave them."""

    options: Mapping[str, str]
    id_parts: tuple[str, ...]
    flags: tuple[str, ...]

    @property
    def words(self) -> list[str]:
        """The options of a command line that asks the same work, with absolute paths."""
        named = {"dataset": "dataset_file", "tokenizer": "tokenizer", "arrivals": "arrivals"}
        return [
            f"--perf-{flag}={self.options[option]}"
            for flag, option in named.items()
            if option in self.options
        ]

    def of(self, workload: Workload) -> Workload:
        """The workload under this load; one that is no server's stays as it is."""
        if workload.kind != "serving" or not self.flags:
            return workload
        options = tuple(sorted({**dict(workload.options), **self.options}.items()))
        return replace(workload, id="-".join([workload.id, *self.id_parts]), options=options)


NONE = Choices({}, (), ())


def choices(command: Mapping[str, Any], root: Path) -> Choices:
    """The choices of a command line (None: not given); relative paths are taken from `root`.

    Raises OptionError for what can not be read or meant.
    """
    options: dict[str, str] = {}
    parts: list[str] = []
    if command.get("dataset") is not None:
        file = _file("--perf-dataset", command["dataset"], root)
        tokenizer = _tokenizer(command.get("tokenizer"), root)
        options |= {"dataset": "sharegpt", "dataset_file": str(file), "tokenizer": str(tokenizer)}
        parts.append(f"{id_part(file.stem)}.{_digest(file, tokenizer / 'tokenizer.json')}")
    elif command.get("tokenizer") is not None:
        raise OptionError("--perf-tokenizer has no effect without --perf-dataset")
    if command.get("arrivals") is not None:
        spec = arrivals.spec(str(command["arrivals"]), root)
        options["arrivals"] = spec
        parts += [] if spec == arrivals.AT_ONCE else [_arrivals_part(spec)]
    if command.get("requests") is not None:
        options["requests_folder"] = str(_folder(command["requests"], root))
    if command.get("clients") is not None:
        options["clients"] = str(_clients(command["clients"]))
    names = ("dataset", "arrivals", "requests", "clients")
    given = tuple(f"--perf-{name}" for name in names if command.get(name) is not None)
    return Choices(options, tuple(parts), given)


def _arrivals_part(spec: str) -> str:
    kind, _, rest = spec.partition(":")
    return f"trace.{_digest(Path(rest))}" if kind == "trace" else id_part(spec)


def _file(option: str, value: Any, root: Path) -> Path:
    with _looked_up(option, value):
        file = Path(root, value).resolve()
        found = file.is_file()
    if not found:
        raise OptionError(f"{option} {str(value)!r}: no such file; expected ShareGPT's JSON file")
    return file


def _tokenizer(value: Any, root: Path) -> Path:
    """The folder of a tokenizer.json, which may be named itself."""
    if value is None:
        raise OptionError(
            "--perf-dataset needs --perf-tokenizer=DIR, a folder with the model's tokenizer.json:"
            " lengths are counted in its tokens"
        )
    with _looked_up("--perf-tokenizer", value):
        folder = Path(root, value).resolve()
        folder = folder.parent if folder.name == "tokenizer.json" else folder
        found = (folder / "tokenizer.json").is_file()
    if not found:
        raise OptionError(f"--perf-tokenizer {str(value)!r}: no tokenizer.json there")
    return folder


def _folder(value: Any, root: Path) -> Path:
    with _looked_up("--perf-requests", value):
        folder = Path(root, value).resolve()
        is_other = folder.exists() and not folder.is_dir()
    if is_other:
        raise OptionError(f"--perf-requests {str(value)!r} is a file; expected a folder")
    return folder


def _clients(value: Any) -> int:
    text = str(value)
    if not text.isdecimal() or not 1 <= int(text) <= MOST_CLIENTS:
        raise OptionError(
            f"--perf-clients {value!r}: expected a whole number from 1 to {MOST_CLIENTS}"
        )
    return int(text)


@contextmanager
def _looked_up(option: str, value: Any) -> Iterator[None]:
    """A name that is too long, or a folder that may not be looked into, is the option's fault."""
    try:
        yield
    except OSError as error:
        said = str(value)
        said = said if len(said) <= _SHOWN else f"{said[:_SHOWN]}..."
        raise OptionError(f"{option} {said!r}: {error.strerror}") from None


def _digest(*files: Path) -> str:
    """Of what the files hold, each by itself, so that nothing moves from one into the next."""
    whole = hashlib.sha256()
    for file in files:
        try:
            with file.open("rb") as opened:
                whole.update(hashlib.file_digest(opened, "sha256").digest())
        except OSError as error:
            raise OptionError(
                f"{file}: {error.strerror}; expected a file that can be read"
            ) from None
    return whole.hexdigest()[:_DIGITS]
