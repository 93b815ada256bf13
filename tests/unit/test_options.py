"""Command line > marker > ini > default, option by option, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from perfsuite import devices
from perfsuite.devices import Device
from perfsuite.errors import OptionError
from perfsuite.limits import Limit, limit_of
from perfsuite.metrics import metric
from perfsuite.options import Marker, Options, for_item, parse_marker, resolve

ROOT = Path("/project")
TTFT = metric("time_to_first_token/prefill_until_first_token")


def resolved(command: Mapping[str, Any], ini: Mapping[str, Any] | None = None) -> Options:
    """Options on a processor, where the values name no device."""
    given = {"device": "cpu", **(ini or {})}
    return resolve(command, given, ROOT)


def test_nothing_said_gives_the_defaults() -> None:
    """Smoke on a processor, five processes, two seconds, nothing saved."""
    options = resolved({})
    assert options.device == Device("cpu")
    assert (options.scale, options.budget_s, options.processes) == ("smoke", 3.0, 5)
    assert (options.timeout_s, options.save, options.force) == (600.0, "none", False)
    assert options.baselines == (ROOT / "baselines",)
    assert (options.engines, options.limits, options.ini_limits) == ((), {}, {})
    assert (options.strict, options.require_measured, options.in_process) == (False, False, False)
    assert (options.model, options.json, options.markdown) == (None, None, None)
    assert options.explicit == frozenset()


def test_an_accelerator_is_measured_at_full_scale() -> None:
    """The scale's default follows the device, the budget's the scale."""
    options = resolve({"device": "cuda:1"}, {}, ROOT)
    assert (options.device.name, options.scale, options.budget_s) == ("cuda:1", "full", 60.0)
    assert resolved({"scale": "full"}).budget_s == 60.0
    assert resolve({"device": "cuda", "scale": "smoke"}, {}, ROOT).budget_s == 3.0


@pytest.mark.parametrize(
    ("name", "field", "ini", "command", "from_ini", "from_command"),
    [
        ("scale", "scale", "full", "smoke", "full", "smoke"),
        ("engine", "engines", "a", "b,c", ("a",), ("b", "c")),
        ("budget", "budget_s", "3", "4.5", 3.0, 4.5),
        ("processes", "processes", "3", "4", 3, 4),
        ("timeout", "timeout_s", "30", "40", 30.0, 40.0),
        ("drift", "drift", "3%", "4%", 0.03, 0.04),
        ("require", "require_measured", "measured", "measured", True, True),
        ("device", "device", "cuda:2", "tpu", Device("cuda", 2), Device("tpu")),
        ("strict", "strict", True, True, True, True),
        (
            "baselines", "baselines", ["a", "b"], [Path("/c")],
            (ROOT / "a", ROOT / "b"), (Path("/c"),),
        ),
    ],
)  # fmt: skip
def test_the_command_line_wins_over_the_ini_over_the_default(
    name: str, field: str, ini: Any, command: Any, from_ini: Any, from_command: Any
) -> None:
    """For every option that both can set."""
    assert getattr(resolved({name: None}, {name: ini}), field) == from_ini
    assert getattr(resolved({name: command}, {name: ini}), field) == from_command
    assert getattr(resolved({name: command}), field) == from_command


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [("budget", "budget_s", 7.0), ("processes", "processes", 7), ("timeout", "timeout_s", 7.0)],
)
def test_the_marker_stands_between_command_line_and_ini(
    name: str, field: str, value: float
) -> None:
    """A marker takes the place of ini and default, never of what was typed."""
    marker = parse_marker((), {name: 7})
    assert getattr(for_item(resolved({}), marker), field) == value
    assert getattr(for_item(resolved({}, {name: "9"}), marker), field) == value
    assert getattr(for_item(resolved({name: "9"}), marker), field) == 9
    assert getattr(for_item(resolved({name: "9"}), Marker()), field) == 9
    assert getattr(for_item(resolved({}, {name: "8"}), Marker()), field) == 8


def test_the_limits_of_command_line_marker_and_ini_are_layers() -> None:
    """A coarse word on the command line still wins over a fine one of the ini."""
    marker = parse_marker((), {"limits": {"ttft": "3%+2ms"}})
    ini = {"limits": ["time_to_first_token/prefill_until_first_token:9%", "memory:2%"]}
    typed = for_item(resolved({"limit": ["time:1%"]}, ini), marker)
    marked = for_item(resolved({}, ini), marker)
    stored = for_item(resolved({}, ini), Marker())
    assert limit_of(TTFT, *typed.limits) == Limit(0.01)
    assert limit_of(TTFT, *marked.limits) == Limit(0.03, 0.002)
    assert limit_of(TTFT, *stored.limits) == Limit(0.09)
    assert limit_of(metric("peak_memory/allocator"), *typed.limits) == Limit(0.02)


def test_engine_names_are_trimmed_and_named_once() -> None:
    """`a, b,,a` are two engines in the order given."""
    assert resolved({"engine": " a, b,,a "}).engines == ("a", "b")


@pytest.mark.parametrize(
    ("given", "mode", "force"),
    [
        ({}, "none", False),
        ({"save": True}, "all", False),
        ({"save_new": True}, "new", False),
        ({"save_force": True}, "all", True),
        ({"save": True, "save_force": True}, "all", True),
        ({"save_new": True, "save_force": True}, "new", True),
    ],
)
def test_how_the_save_flags_combine(given: dict[str, bool], mode: str, force: bool) -> None:
    """--perf-save-force takes disturbed runs too; alone it saves like --perf-save."""
    options = resolved(given)
    assert (options.save, options.force) == (mode, force)


@pytest.mark.parametrize("flag", ["save", "save_new", "save_force"])
def test_a_debugged_run_never_saves(flag: str) -> None:
    """What runs under a debugger is no measurement."""
    with pytest.raises(OptionError, match="--perf-in-process"):
        resolved({flag: True, "in_process": True})


def test_saving_all_and_only_new_is_a_contradiction() -> None:
    """The two flags mean different things."""
    with pytest.raises(OptionError, match="--perf-save-new"):
        resolved({"save": True, "save_new": True})


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ({"scale": "huge"}, ["--perf-scale", "'huge'", "smoke, full"]),
        ({"device": "gpu"}, ["'gpu'", "auto, cpu, cuda, cuda:N, tpu"]),
        ({"budget": "0"}, ["--perf-budget", "'0'"]),
        ({"budget": "-1"}, ["--perf-budget", "'-1'"]),
        ({"budget": "nan"}, ["--perf-budget", "'nan'"]),
        ({"budget": "inf"}, ["--perf-budget", "'inf'"]),
        ({"budget": "5s"}, ["--perf-budget", "'5s'", "seconds"]),
        ({"timeout": "soon"}, ["--perf-timeout", "'soon'"]),
        ({"drift": "3"}, ["--perf-drift", "'3'", "like 3%"]),
        ({"drift": "-3%"}, ["--perf-drift", "'-3%'"]),
        ({"processes": "0"}, ["--perf-processes", "'0'", "1 to 64"]),
        ({"processes": "65"}, ["--perf-processes", "'65'"]),
        ({"processes": "2.5"}, ["--perf-processes", "'2.5'"]),
        ({"require": "all"}, ["--perf-require", "'all'", "measured"]),
        ({"limit": ["ttft"]}, ["--perf-limit", "'ttft'", "METRIC:LIMIT"]),
        ({"limit": [":5%"]}, ["--perf-limit", "':5%'"]),
        ({"limit": ["ttft:"]}, ["--perf-limit", "'ttft:'"]),
        ({"limit": ["ttfft:5%"]}, ["'ttfft'", "time_to_first_token"]),
        ({"limit": ["ttft:5"]}, ["'5'", "5%+2ms"]),
        ({"model": "nowhere"}, ["--perf-model", "'nowhere'", "config.json"]),
    ],
)
def test_what_cannot_be_used_is_refused_naming_the_known(
    command: dict[str, Any], words: list[str]
) -> None:
    """Option, value and what was expected stand in the message."""
    with pytest.raises(OptionError) as refused:
        resolved(command)
    assert [word for word in words if word not in str(refused.value)] == []


def test_a_wrong_ini_is_refused_like_a_wrong_option() -> None:
    """The ini is checked also where it is read."""
    with pytest.raises(OptionError, match="perf_limits 'ttft'"):
        resolved({}, {"limits": ["ttft"]})
    with pytest.raises(OptionError, match=r"'0\.5'"):
        resolved({}, {"processes": "0.5"})


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((), {"budgets": 1}, ["budgets", "workloads, limits, budget, processes, timeout, waiver"]),
        (("llm-*",), {}, ["'llm-*'", "workloads"]),
        ((), {"limits": "5%"}, ["'5%'", "{'ttft': '5%+2ms'}"]),
        ((), {"limits": {"ttfft": "5%"}}, ["'ttfft'"]),
        ((), {"limits": {"ttft": 5}}, ["'5'"]),
        ((), {"budget": 0}, ["budget", "0"]),
        ((), {"budget": None}, ["budget", "None"]),
        ((), {"processes": 2.0}, ["processes", "2.0"]),
        ((), {"timeout": "x"}, ["timeout", "'x'"]),
    ],
)
def test_a_wrong_marker_is_refused(
    args: tuple[object, ...], kwargs: dict[str, Any], words: list[str]
) -> None:
    """Unknown words and values that cannot be used, with what is known."""
    with pytest.raises(OptionError) as refused:
        parse_marker(args, kwargs)
    assert [word for word in words if word not in str(refused.value)] == []


def test_paths_are_taken_from_the_root(tmp_path: Path) -> None:
    """Relative ones below it, absolute ones as they are."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    command = {"json": "out.json", "markdown": Path("/abs.md"), "model": "model"}
    options = resolve({"device": "cpu", **command}, {}, tmp_path)
    assert options.json == tmp_path / "out.json"
    assert options.markdown == Path("/abs.md")
    assert options.model == (tmp_path / "model").resolve()


def test_auto_takes_what_is_attached(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU before a TPU before the processor."""
    monkeypatch.setattr(devices, "gpu_models", list)
    monkeypatch.setattr(devices, "_tpu_chips", lambda: 0)
    assert resolve({}, {}, ROOT).device.kind == "cpu"
    monkeypatch.setattr(devices, "_tpu_chips", lambda: 8)
    assert resolve({}, {}, ROOT).device.kind == "tpu"
    monkeypatch.setattr(devices, "gpu_models", lambda: ["NVIDIA H200"])
    assert resolve({}, {}, ROOT).device.kind == "cuda"
