"""A running server measured by `--perf-endpoint`, from the command line."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="needs the extra serving")
pytest.importorskip("uvloop", reason="needs the extra serving")

# The bench's fake servers: the first token after 50 ms, then one every 5 ms.
ROOT = Path(__file__).parents[2]
SERVERS = {
    "openai": ("http://127.0.0.1:", ("-m", "bench.serving", "--serve")),
    "jetstream_grpc": ("grpc://", ("-m", "bench.serving_grpc", "--serve", "paced")),
}
if not (ROOT / "bench").exists():
    pytest.skip("needs the repository's bench", allow_module_level=True)

_TEST = """
import pytest

@pytest.mark.perf(workloads="jetstream-smoke-llama2_7b-serving-bf16-*")
def test_serving(perf, perf_engine, perf_workload):
    perf(perf_engine, perf_workload.sized(options=(("num_prompts", "8"),)))
"""


@pytest.fixture
def served(project: Any) -> Any:
    """A project with one serving workload of eight prompts, whose client may be late."""
    project.conftest("""
import perfsuite.serving.lateness
perfsuite.serving.lateness.LATE_FLOOR_S = perfsuite.serving.lateness.BUSY_SHARE = 100.0
""")
    project.write("test_it.py", _TEST)
    return project


@pytest.fixture(params=SERVERS)
def running(request: Any) -> Iterator[tuple[str, str]]:
    """The name of an engine, and the URL of a server that it can ask."""
    if request.param == "jetstream_grpc":
        pytest.importorskip("grpc", reason="needs the extra jetstream")
    begin, command = SERVERS[request.param]
    with subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout
        try:
            yield request.param, begin + process.stdout.readline().strip()
        finally:
            process.kill()


def test_a_server_is_measured_saved_and_gated(served: Any, running: tuple[str, str]) -> None:
    """Every latency holds what the server took; a baseline a hundred times as fast is lost."""
    engine, url = running
    options = (f"--engine={engine}", f"--perf-endpoint={url}", "--perf-arrivals=users:4")
    served.perf("--perf-save", *options).assert_outcomes(passed=1)
    (result,) = served.results.values()
    assert result["config"]["endpoint"] == url
    rows = {row["figure"]: row["value"] for row in result["rows"]}
    assert rows["served_time_to_first_token/low_load_median"] >= 0.05
    assert rows["served_time_per_output_token/excluding_first_event_median"] > 0.003
    assert rows["output_throughput/whole_run"] > 0
    assert rows["failed_requests/all"] == 0
    served.perf(*options).assert_outcomes(passed=1)

    (file,) = (served.path / "baselines").glob("*/test_it.json")
    document = json.loads(file.read_text())
    (entry,) = document["entries"].values()
    quicker = entry["figures"]["served_time_to_first_token/low_load_median"]
    quicker["processes"] = [value / 100 for value in quicker["processes"]]
    file.write_text(json.dumps(document))
    red = served.perf(*options)
    red.assert_outcomes(failed=1)
    red.stdout.fnmatch_lines(["*TTFT low load*WORSE*"])
    accept = next(line for line in red.outlines if line.startswith("to accept: "))
    assert {*options[1:], "--perf-save"} <= set(shlex.split(accept))


@pytest.mark.parametrize(("engine", "scheme"), [("openai", "http"), ("jetstream_grpc", "grpc")])
def test_a_server_that_is_not_there_fails_the_test(served: Any, engine: str, scheme: str) -> None:
    pytest.importorskip("grpc", reason="needs the extra jetstream")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"{scheme}://127.0.0.1:{free.getsockname()[1]}"
    result = served.perf(f"--engine={engine}", f"--perf-endpoint={nobody}")
    assert result.ret != 0
    result.stdout.fnmatch_lines([f"*no server answers at {nobody}*"])


def test_a_missing_extra_is_an_error_with_its_remedy(served: Any) -> None:
    served.conftest("import sys\nsys.modules['grpc'] = None\n")
    result = served.perf("--engine=jetstream_grpc", "--perf-endpoint=grpc://127.0.0.1:9")
    assert result.ret != 0
    result.stdout.fnmatch_lines(
        ["*--engine=jetstream_grpc needs grpc, which is not installed",
         "*pip install 'perfsuite[[]jetstream[]]'*"]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--engine=openai",), "--engine=openai needs --perf-endpoint=URL"),
        (("--engine=jetstream_grpc",), "--engine=jetstream_grpc needs --perf-endpoint=URL"),
        (("--perf-endpoint=http://127.0.0.1:1",), "--perf-endpoint has no effect without --engine"),
        (("--engine=openai", "--perf-endpoint=ftp://x"), "expected like http://127.0.0.1:8000"),
        (
            ("--engine=jetstream_grpc", "--perf-endpoint=http://127.0.0.1:8000"),
            "expected like grpc://127.0.0.1:9000",
        ),
        (
            ("--engine=openai,jetstream_grpc", "--perf-endpoint=http://127.0.0.1:1"),
            "two ways to ask it",
        ),
    ],
)
def test_one_without_the_other_is_refused(
    served: Any, options: tuple[str, ...], reason: str
) -> None:
    result = served.perf(*options)
    assert result.ret != 0
    assert reason in result.stdout.str() + result.stderr.str()
