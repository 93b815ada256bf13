"""The pytest plugin: options in, verdicts out. Translation only; imported at every start-up, so it
imports nothing but pytest until `--perf` is given."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from perfsuite.cases import Case
    from perfsuite.run import Run  # noqa: F401 - named in a string below

_GROUP = "perf"
_RUN = pytest.StashKey["Run"]()

# (flag, dest, keywords): what `pytest --help` teaches. Each default is None, so that the ini is
# read where the command line says nothing.
_FLAGS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("--perf", "perf", {"action": "store_true", "help": (
        "measure the perf tests, compare with the stored baselines and fail those that got worse;"
        " without it they are skipped")}),
    ("--perf-device", "perf_device", {"metavar": "DEVICE", "help": (
        "auto (default: the accelerator that is attached, else cpu), cpu, cuda, cuda:N or tpu; also"
        " --device where no other plugin has that name")}),
    ("--perf-engine", "perf_engine", {"metavar": "NAMES", "help": (
        "comma-separated names of the engines to run (default: all that are on by default); an"
        " unknown name is an error; also --engine")}),
    ("--perf-scale", "perf_scale", {"metavar": "SCALE", "help": (
        "smoke (default on cpu: the documents' questions at small sizes) or full (default on"
        " accelerators); compiled facts are always of the full size")}),
    ("--perf-slice", "perf_slice", {"metavar": "SLICE", "help": (
        "with --perf-device=tpu: the slice that programs are compiled for (default: each document's"
        " own): v4-8, v5e-1, v5e-8, v5p-8 or v6e-8; needs no TPU")}),
    ("--perf-save", "perf_save", {"action": "store_true", "default": None, "help": (
        "accept what is measured as the new baseline, also where it got worse")}),
    ("--perf-save-new", "perf_save_new", {"action": "store_true", "default": None, "help": (
        "save figures that have no baseline yet; a worse one still fails")}),
    ("--perf-save-force", "perf_save_force", {"action": "store_true", "default": None, "help": (
        "like --perf-save (or with --perf-save-new), also when others disturbed the run")}),
    ("--perf-baselines", "perf_baselines", {"metavar": "DIR", "action": "append", "help": (
        "folder of the baselines (default: baselines in the root); may be repeated: read in order,"
        " the first that has a figure decides, new figures go to the first")}),
    ("--perf-limit", "perf_limit", {"metavar": "METRIC:LIMIT", "action": "append", "help": (
        "accepted loss of a metric, like time:5%%, ttft:3.5%% or ttft:5%%+2ms (both must be"
        " exceeded); kinds: time, throughput, memory, count; may be repeated")}),
    ("--perf-budget", "perf_budget", {"metavar": "SECONDS", "help": (
        "most measuring time of one test, over all its processes and looks (default: 3 at smoke"
        " scale, 60 at full; 30 and 60 with --perf-against); a clear case ends after a part of"
        " it")}),
    ("--perf-processes", "perf_processes", {"metavar": "N", "help": (
        "processes that each look at a test takes (default: 5), with --perf-against the pairs of"
        " processes before the first look (default: 8); intervals are made of their spread")}),
    ("--perf-timeout", "perf_timeout", {"metavar": "SECONDS", "help": (
        "longest silence of a measuring process before it is ended and the test fails (default:"
        " 600)")}),
    ("--perf-drift", "perf_drift", {"metavar": "PERCENT", "help": (
        "standard deviation of this machine's level between sessions, where it is known and nobody"
        " calibrated it; without either a loss below a factor of 2 is UNSURE at most")}),
    ("--perf-calibrate", "perf_calibrate", {"action": "store_true", "default": None, "help": (
        "measure every test in several sessions of fresh processes; write the machine's spread and"
        " the smallest changes it can show beside the baselines, where verdicts use it")}),
    ("--perf-sessions", "perf_sessions", {"metavar": "N", "help": (
        "sessions of --perf-calibrate (default: 10); few make every interval wide")}),
    ("--perf-against", "perf_against", {"metavar": "BASE", "help": (
        "compare with another state measured in turn in this very run, in place of stored"
        " baselines: a git revision, a directory with another checkout, or another Python"
        " interpreter")}),
    ("--perf-self-test", "perf_self_test", {"metavar": "PERCENT", "help": (
        "slow every engine by this share of its time and pass exactly the tests whose gate turns"
        " red; with 0%% those whose gate stays green")}),
    ("--perf-strict", "perf_strict", {"action": "store_true", "default": None, "help": (
        "fail also what is UNSURE, NEW, FOREIGN or GONE: for CI with complete baselines")}),
    ("--perf-require", "perf_require", {"metavar": "measured", "help": (
        "with 'measured', a test whose device is absent fails in place of being skipped")}),
    ("--perf-model", "perf_model", {"metavar": "DIR", "help": (
        "a checkpoint folder in the Hugging Face layout to run the workloads on, in place of the"
        " documents' models with random weights")}),
    ("--perf-haystack", "perf_haystack", {"metavar": "FILE", "help": (
        "the text in which Hydragen's needles are hidden, in UTF-8 (default: generated sentences);"
        " its length in characters is the workload's")}),
    ("--perf-text", "perf_text", {"metavar": "FILE", "help": (
        "with --perf-model: a text in UTF-8 whose perplexity each engine is asked for, so that a"
        " saving that breaks the model fails")}),
    ("--perf-endpoint", "perf_endpoint", {"metavar": "URL", "help": (
        "the running server on which the serving workloads are measured: like http://127.0.0.1:8000"
        " with --engine=openai (needs perfsuite[serving]), like grpc://127.0.0.1:9000 with"
        " --engine=jetstream_grpc (needs perfsuite[jetstream])")}),
    ("--perf-dataset", "perf_dataset", {"metavar": "FILE", "help": (
        "what a server is asked: ShareGPT's JSON, with JetStream's filters (default: random prompts"
        " of ShareGPT's published mean lengths); needs --perf-tokenizer; a load of its own has"
        " baselines of its own")}),
    ("--perf-tokenizer", "perf_tokenizer", {"metavar": "DIR", "help": (
        "with --perf-dataset: the folder with the served model's tokenizer.json")}),
    ("--perf-arrivals", "perf_arrivals", {"metavar": "SPEC", "help": (
        "when a server is asked: at-once (default), poisson:RATE, gamma:RATE:SHAPE, constant:RATE"
        " (requests a second), trace:FILE (seconds, one a line) or users:N; each has baselines of"
        " its own")}),
    ("--perf-requests", "perf_requests", {"metavar": "DIR", "help": (
        "write every request of a server's load with its moments, counts and output: JSON Lines, a"
        " file for each workload and process")}),
    ("--perf-clients", "perf_clients", {"metavar": "N", "help": (
        "processes that send a server's load (default: as many as the planned rate needs, one"
        " below 500 requests or 5000 tokens a second)")}),
    ("--perf-json", "perf_json", {"metavar": "FILE", "help": (
        "write every figure with its samples; perfsuite.load_results reads it into pandas,"
        " github-action-benchmark and bencher read it as pytest-benchmark's")}),
    ("--perf-history", "perf_history", {"metavar": "DIR|URL", "help": (
        "append every figure to a history, a folder or an object storage like s3://bucket/perf;"
        " perfsuite.load_history and python -m perfsuite history read it; needs"
        " perfsuite[history]")}),
    ("--perf-markdown", "perf_markdown", {"metavar": "FILE", "help": (
        "append the table in markdown, for $GITHUB_STEP_SUMMARY")}),
    ("--perf-html", "perf_html", {"metavar": "FILE", "help": (
        "write one self-contained page for people: every ratio, a table to search, the samples and"
        " surroundings of each test; needs perfsuite[html]")}),
    ("--perf-list", "perf_list", {"action": "store_true", "help": (
        "with --perf: print the workloads of the selected tests at full size, measure nothing")}),
    ("--perf-list-csv", "perf_list_csv", {"action": "store_true", "help": (
        "the same as CSV, a line per workload")}),
    ("--perf-in-process", "perf_in_process", {"action": "store_true", "default": None, "help": (
        "measure in the pytest process itself, for debuggers; never saves")}),
)  # fmt: skip

_INI = (
    ("perf_device", "string", "default of --perf-device"),
    ("perf_engine", "string", "default of --perf-engine"),
    ("perf_scale", "string", "default of --perf-scale"),
    ("perf_slice", "string", "default of --perf-slice, read with --perf-device=tpu"),
    ("perf_baselines", "linelist", "folders of the baselines, one a line"),
    ("perf_limits", "linelist", "METRIC:LIMIT, one a line"),
    ("perf_budget", "string", "default of --perf-budget, seconds"),
    ("perf_processes", "string", "default of --perf-processes"),
    ("perf_timeout", "string", "default of --perf-timeout, seconds"),
    ("perf_drift", "string", "default of --perf-drift, like 3%"),
    ("perf_sessions", "string", "default of --perf-sessions"),
    ("perf_strict", "bool", "default of --perf-strict"),
    ("perf_require", "string", "default of --perf-require"),
    ("perf_history", "string", "default of --perf-history; not read with --perf-self-test and"
                               " --perf-in-process"),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options under names of their own, and the ini keys."""
    group = parser.getgroup(_GROUP, "performance of LLM inference (perfsuite)")
    for flag, dest, keywords in _FLAGS:
        group.addoption(flag, dest=dest, **keywords)
    for name, kind, text in _INI:
        parser.addini(name, text, type=kind, default=None)  # type: ignore[arg-type]


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(parser: pytest.Parser) -> Generator[None, object, object]:
    """`--device` and `--engine`, once every conftest has had the chance to take those names."""
    result = yield
    group = parser.getgroup(_GROUP)
    for word in ("device", "engine"):
        if _is_free(parser, f"--{word}"):
            group.addoption(f"--{word}", dest=f"perf_{word}", metavar=word.upper(), default=None,
                            help=f"short for --perf-{word}")  # fmt: skip
    return result


def _is_free(parser: pytest.Parser, flag: str) -> bool:
    probe = f"{flag}=perfsuite-probe"
    try:
        return probe in parser.parse_known_and_unknown_args([probe])[1]
    except (pytest.UsageError, SystemExit):
        return False  # somebody has it and refuses the value


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare `pytest_perf_engines`."""
    from perfsuite import hooks

    pluginmanager.add_hookspecs(hooks)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Under torchrun the other ranks than 0 end at once, before anything is printed or written."""
    if not config.getoption("perf"):
        return None
    from perfsuite.ranks import is_follower

    return 0 if is_follower(os.environ) else None


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker; with --perf resolve everything that was said, or refuse."""
    config.addinivalue_line(
        "markers",
        "perf(workloads=None, limits=None, budget=None, processes=None, timeout=None, waiver=None):"
        " a test that is measured and compared under --perf; limits by metric like"
        " {'ttft': '5%+2ms'}, a waiver like {'reason': ..., 'owner': ..., 'until': '2026-12-31'}",
    )
    if not config.getoption("perf"):
        _refuse_without_perf(config)
        return
    from perfsuite.run import start

    config.stash[_RUN] = start(config)


def _refuse_without_perf(config: pytest.Config) -> None:
    """An option that would have no effect is an error."""
    given = [
        flag for flag, dest, _ in _FLAGS
        if dest not in ("perf", "perf_device", "perf_engine") and config.getoption(dest)
    ]  # fmt: skip
    if given:
        raise pytest.UsageError(f"{', '.join(given)} has no effect without --perf")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Without --perf a perf test is skipped, never un-collected."""
    names = getattr(item, "fixturenames", ())
    if item.config.getoption("perf"):
        return
    if "perf" in names or item.get_closest_marker("perf"):
        pytest.skip("perf tests run with --perf")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """An item for each (workload, engine, tier) where a test asks for one."""
    if "perf_case" in metafunc.fixturenames:
        from perfsuite.collecting import parametrize

        parametrize(metafunc, metafunc.config.stash.get(_RUN, None))


@pytest.fixture
def perf_case(request: pytest.FixtureRequest) -> Case:
    """The (workload, engine offer, tier) of this item."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def perf_workload(perf_case: Case) -> Any:
    """What is run: a perfsuite.workloads.Workload."""
    return perf_case.workload


@pytest.fixture
def perf_device(request: pytest.FixtureRequest) -> str:
    """The device by the name frameworks use: `cpu`, `cuda:0`, `tpu`."""
    return request.config.stash[_RUN].options.device.name


@pytest.fixture
def perf_engine(
    request: pytest.FixtureRequest, perf_case: Case, perf_device: str
) -> Generator[Any, None, None]:
    """The opened engine of this item; in a static item the offer itself."""
    if perf_case.tier == "static":
        yield perf_case.offer
        return
    engine = request.config.stash[_RUN].opened(request.node, perf_case, perf_device)
    try:
        yield engine
    finally:
        engine.close()


@pytest.fixture
def perf(request: pytest.FixtureRequest) -> Any:
    """Measure: `perf(engine, workload)` or `perf(callable)`."""
    return request.config.stash[_RUN].fixture_for(request.node)


@pytest.fixture
def device(perf_device: str) -> str:
    """`perf_device`, for projects that have no fixture of this name."""
    return perf_device


@pytest.fixture
def engine(perf_engine: Any) -> Any:
    """`perf_engine`, for projects that have no fixture of this name."""
    return perf_engine


@pytest.fixture
def workload(perf_workload: Any) -> Any:
    """`perf_workload`, for projects that have no fixture of this name."""
    return perf_workload
