"""Command line > marker > ini > default, resolved into frozen values. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perfsuite.devices import Device, parse_device
from perfsuite.errors import OptionError
from perfsuite.limits import Limit, parse_limits
from perfsuite.serving.choices import NONE, Choices
from perfsuite.static.slices import slice_named
from perfsuite.waivers import Waiver, of_marker

SCALES = ("smoke", "full")
_BUDGET_S = {"smoke": 3.0, "full": 60.0}
_AGAINST_BUDGET_S = {"smoke": 30.0, "full": 60.0}
_SESSIONS = 10
_PROCESSES = 5
_FIRST_PAIRS = 8  # fewer would say little: Student's t is wide for them
_TIMEOUT_S = 600.0
MARKER_WORDS = ("workloads", "limits", "budget", "processes", "timeout", "waiver")


@dataclass(frozen=True)
class Options:
    """Everything a run was told; nothing is left open."""

    device: Device
    scale: str
    engines: tuple[str, ...]  # empty: every engine that is on by default
    save: str  # "none", "new" or "all"
    force: bool
    baselines: tuple[Path, ...]  # read in order, the first that has a key wins; written: the first
    limits: Mapping[str, Limit]
    ini_limits: Mapping[str, Limit]
    budget_s: float
    processes: int
    timeout_s: float
    drift: float | None  # standard deviation of this machine's level between sessions, if said
    sessions: int  # of a calibration
    calibrate: bool
    against: str | None
    self_test: float | None  # share of its time by which every engine is slowed
    strict: bool
    require_measured: bool
    model: Path | None
    in_process: bool
    json: Path | None
    markdown: Path | None
    html: Path | None = None
    haystack: Path | None = None  # the text of needles; None: generated
    text: Path | None = None  # whose perplexity a checkpoint is asked for
    endpoint: str = ""  # URL of a running server
    history: str = ""  # folder or URL that this run is appended to
    load: Choices = NONE  # what a server is asked, and when
    ranks: int = 1  # processes that hold an engine together, as torchrun started them
    slice: str = ""  # of TPU chips that programs are compiled for; empty: each document's own
    explicit: frozenset[str] = frozenset()  # options that the command line set itself


@dataclass(frozen=True)
class ItemOptions:
    """What one test is measured with, its marker taken in."""

    limits: tuple[Mapping[str, Limit], ...]
    budget_s: float
    processes: int
    timeout_s: float


@dataclass(frozen=True)
class Marker:
    """The arguments of `@pytest.mark.perf`, checked."""

    workloads: str | None = None
    limits: Mapping[str, Limit] = field(default_factory=dict)
    budget: float | None = None
    processes: int | None = None
    timeout: float | None = None
    waiver: Waiver | None = None


def resolve(command: Mapping[str, Any], ini: Mapping[str, Any], root: Path) -> Options:
    """One Options from the command line's values (None: not given) and the ini's.

    Raises OptionError for anything that cannot be used, naming what is known.
    """
    device = parse_device(_first(command, ini, "device", "auto"))
    scale = _first(command, ini, "scale", "smoke" if device.kind == "cpu" else "full")
    save, force = _save_mode(command)
    return Options(
        device=device,
        scale=_one_of("--perf-scale", scale, SCALES),
        engines=_engine_names(_first(command, ini, "engine", "")),
        save=save,
        force=force,
        baselines=_folders(command.get("baselines") or ini.get("baselines") or [], root),
        limits=parse_limits(_pair("--perf-limit", text) for text in command.get("limit") or ()),
        ini_limits=parse_limits(_pair("perf_limits", text) for text in ini.get("limits") or ()),
        budget_s=_budget(command, ini, scale),
        processes=_processes(command, ini),
        timeout_s=_positive("--perf-timeout", _first(command, ini, "timeout", _TIMEOUT_S)),
        drift=_share("--perf-drift", _first(command, ini, "drift", None)),
        sessions=_count("--perf-sessions", _first(command, ini, "sessions", _SESSIONS)),
        calibrate=_calibrates(command),
        against=_against(command),
        self_test=_share("--perf-self-test", command.get("self_test"), most=900),
        strict=bool(command.get("strict") or ini.get("strict")),
        require_measured=_required(_first(command, ini, "require", "")),
        model=_model(command.get("model"), root),
        in_process=bool(command.get("in_process")),
        haystack=_text_file("--perf-haystack", command.get("haystack"), root),
        text=_text(command, root),
        endpoint=str(command.get("endpoint") or ""),
        json=_path(command.get("json"), root),
        markdown=_path(command.get("markdown"), root),
        html=_path(command.get("html"), root),
        history=_history(command, ini, root),
        slice=_slice(command, ini, device),
        explicit=frozenset(name for name, given in command.items() if given not in (None, False)),
    )


def for_item(options: Options, marker: Marker) -> ItemOptions:
    """The marker's values take the ini's and the default's place, not the command line's."""

    def choose(name: str, own: Any, general: Any) -> Any:
        return general if own is None or name in options.explicit else own

    return ItemOptions(
        limits=(options.limits, marker.limits, options.ini_limits),
        budget_s=choose("budget", marker.budget, options.budget_s),
        processes=choose("processes", marker.processes, options.processes),
        timeout_s=choose("timeout", marker.timeout, options.timeout_s),
    )


def parse_marker(args: Sequence[object], kwargs: Mapping[str, Any]) -> Marker:
    """The arguments of one `perf` marker; unknown words are refused with the known ones."""
    unknown = sorted(set(kwargs) - set(MARKER_WORDS))
    if args or unknown:
        given = ", ".join([*(repr(a) for a in args), *unknown])
        known = ", ".join(MARKER_WORDS)
        raise OptionError(f"perf marker: unknown argument {given}; known: {known}")
    limits = kwargs.get("limits") or {}
    if not isinstance(limits, Mapping):
        raise OptionError(f"perf marker: limits={limits!r}; expected like {{'ttft': '5%+2ms'}}")
    return Marker(
        workloads=kwargs.get("workloads"),
        limits=parse_limits((str(name), str(text)) for name, text in limits.items()),
        budget=_positive("perf marker: budget", kwargs["budget"]) if "budget" in kwargs else None,
        processes=_count("perf marker: processes", kwargs["processes"])
        if "processes" in kwargs
        else None,
        timeout=_positive("perf marker: timeout", kwargs["timeout"])
        if "timeout" in kwargs
        else None,
        waiver=of_marker(kwargs["waiver"]) if "waiver" in kwargs else None,
    )


def _first(command: Mapping[str, Any], ini: Mapping[str, Any], name: str, default: Any) -> Any:
    if command.get(name) is not None:
        return command[name]
    return ini.get(name) or default


def _budget(command: Mapping[str, Any], ini: Mapping[str, Any], scale: str) -> float:
    default = (_AGAINST_BUDGET_S if command.get("against") else _BUDGET_S).get(scale, 0.0)
    return _positive("--perf-budget", _first(command, ini, "budget", default))


def _processes(command: Mapping[str, Any], ini: Mapping[str, Any]) -> int:
    default = _FIRST_PAIRS if command.get("against") else _PROCESSES
    return _count("--perf-processes", _first(command, ini, "processes", default))


# Two ways to compare, or a comparison and an acceptance, whose results would contradict each other.
_EXCLUSIVE = (
    ("calibrate", "against"), ("calibrate", "self_test"), ("calibrate", "in_process"),
    ("against", "save"), ("against", "save_new"), ("against", "save_force"),
    ("against", "in_process"), ("self_test", "save"), ("self_test", "save_new"),
    ("self_test", "save_force"),
)  # fmt: skip


def _calibrates(command: Mapping[str, Any]) -> bool:
    for one, other in _EXCLUSIVE:
        if command.get(one) not in (None, False) and command.get(other) not in (None, False):
            flags = " and ".join(f"--perf-{name.replace('_', '-')}" for name in (one, other))
            raise OptionError(f"{flags} contradict each other: drop one of the two")
    if command.get("sessions") is not None and not command.get("calibrate"):
        raise OptionError("--perf-sessions has no effect without --perf-calibrate")
    return bool(command.get("calibrate"))


def _against(command: Mapping[str, Any]) -> str | None:
    text = command.get("against")
    if text is not None and not text.strip():
        raise OptionError("--perf-against: expected a git revision, a directory or an interpreter")
    return text


def _save_mode(command: Mapping[str, Any]) -> tuple[str, bool]:
    force = bool(command.get("save_force"))
    if command.get("save") and command.get("save_new"):
        raise OptionError(
            "--perf-save accepts every figure, --perf-save-new only missing ones: choose one"
        )
    accepting = "all" if command.get("save") or force else "none"
    mode = "new" if command.get("save_new") else accepting
    if mode != "none" and command.get("in_process"):
        raise OptionError("--perf-in-process is for debuggers and never saves; drop one of the two")
    return mode, force


def _engine_names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _folders(texts: Sequence[Any], root: Path) -> tuple[Path, ...]:
    return tuple(root / text for text in texts) or (root / "baselines",)


def _pair(option: str, text: str) -> tuple[str, str]:
    name, colon, limit = text.partition(":")
    if not colon or not name.strip() or not limit.strip():
        raise OptionError(f"{option} {text!r}: expected METRIC:LIMIT, like ttft:5% or time:5%+2ms")
    return name.strip(), limit.strip()


def _one_of(option: str, value: str, known: Sequence[str]) -> str:
    if value not in known:
        raise OptionError(f"{option} {value!r} is not known; known: {', '.join(known)}")
    return value


def _slice(command: Mapping[str, Any], ini: Mapping[str, Any], device: Device) -> str:
    given = command.get("slice")
    if given is not None and device.kind != "tpu":
        raise OptionError("--perf-slice has no effect without --perf-device=tpu")
    name = _first(command, ini, "slice", "") if device.kind == "tpu" else ""
    return slice_named(name).name if name or given is not None else ""


def _positive(option: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = 0.0
    if not 0 < number < float("inf"):
        raise OptionError(f"{option} {value!r}: expected a number of seconds above zero")
    return number


def _share(option: str, value: Any, most: int = 100) -> float | None:
    """A share from per cent, None where nothing was said."""
    if value is None:
        return None
    text = str(value).strip()
    try:
        number = float(text.removesuffix("%")) if text.endswith("%") else -1.0
    except ValueError:
        number = -1.0
    if not 0 <= number <= most:
        raise OptionError(f"{option} {value!r}: expected per cent from 0% to {most}%, like 3%")
    return number / 100


def _count(option: str, value: Any) -> int:
    text = str(value)
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise OptionError(f"{option} {value!r}: expected a whole number from 1 to 64")
    return int(text)


def _required(value: str) -> bool:
    return bool(value) and bool(_one_of("--perf-require", value, ("measured",)))


def _path(value: Any, root: Path) -> Path | None:
    return None if value is None else Path(root, value)


def _history(command: Mapping[str, Any], ini: Mapping[str, Any], root: Path) -> str:
    """A URL as it is, a folder from the root; nothing where figures are no measurement of a run."""
    for name in ("self_test", "in_process"):
        if command.get(name) not in (None, False):
            if command.get("history"):
                flag = f"--perf-{name.replace('_', '-')}"
                raise OptionError(f"{flag} never appends to a history; drop it or --perf-history")
            return ""
    place = str(_first(command, ini, "history", ""))
    return str(root / place) if place and "://" not in place else place


def _text_file(option: str, value: Any, root: Path) -> Path | None:
    file = _path(value, root)
    if file is not None and not file.is_file():
        raise OptionError(f"{option} {str(value)!r}: no such file; expected a text in UTF-8")
    return file


def _text(command: Mapping[str, Any], root: Path) -> Path | None:
    file = _text_file("--perf-text", command.get("text"), root)
    if file is not None and command.get("model") is None:
        raise OptionError(
            "--perf-text has no effect without --perf-model: random weights predict no text"
        )
    if file is not None and not Path(root, command["model"], "tokenizer.json").is_file():
        raise OptionError(
            f"--perf-text: {command['model']} has no tokenizer.json, which reads the text"
        )
    return file


def _model(value: Any, root: Path) -> Path | None:
    if value is None:
        return None
    folder = Path(root, value).resolve()
    if not (folder / "config.json").is_file():
        raise OptionError(
            f"--perf-model {str(value)!r}: no config.json there; expected a checkpoint folder"
        )
    return folder
