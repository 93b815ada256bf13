"""What a server is asked, from the command line: dataset, arrivals, saved requests, processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="needs the extra serving")
pytest.importorskip("uvloop", reason="needs the extra serving")

# The bench's fake server: the first token after 50 ms, then one every 5 ms.
SERVER = Path(__file__).parents[2] / "bench" / "serving.py"
if not SERVER.exists():
    pytest.skip("needs the repository's bench", allow_module_level=True)

WORKLOAD = "jetstream-smoke-llama2_7b-serving-bf16-b4-i64-u32-c96"
_TEST = f"""
import pytest

@pytest.mark.perf(workloads="{WORKLOAD}*")
def test_serving(perf, perf_engine, perf_workload):
    options = dict(perf_workload.options) | {{"num_prompts": "8"}}
    perf(perf_engine, perf_workload.sized(options=tuple(sorted(options.items()))))
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


@pytest.fixture
def options() -> Iterator[tuple[str, ...]]:
    """Of a run on a server that answers."""
    command = [sys.executable, str(SERVER), "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            url = f"http://127.0.0.1:{process.stdout.readline().strip()}"
            yield "--engine=openai", f"--perf-endpoint={url}"
        finally:
            process.kill()


def test_another_load_is_never_compared_with_a_baseline(
    served: Any, options: tuple[str, ...]
) -> None:
    """Other arrivals are another test, NEW; the configuration names what was asked."""
    served.perf("--perf-save", *options).assert_outcomes(passed=1)
    (first,) = served.report["results"]
    assert f"[{WORKLOAD}-openai-" in first["key"]
    assert first["config"]["arrivals"] == "all at once"
    assert first["config"]["dataset"].startswith("ShareGPT's published mean lengths")
    ran = served.perf(*options, "--perf-arrivals=constant:20")
    ran.assert_outcomes(passed=1)
    ran.stdout.no_fnmatch_line("*GONE*")  # another load is other tests, none of them went away
    (other,) = served.report["results"]
    assert f"[{WORKLOAD}-constant_20-openai-" in other["key"]
    assert other["config"]["arrivals"] == "constant, 20 requests/s"
    verdicts = {row["verdict"] for row in other["rows"]}
    assert verdicts == {"NEW", "SHOWN"}, verdicts


def test_requests_are_saved_and_two_clients_send_them(
    served: Any, options: tuple[str, ...]
) -> None:
    """A file for each process of the run, in the folder that was named; nothing is overwritten."""
    for runs in (1, 2):
        ran = served.perf(
            *options, "--perf-requests=out", "--perf-clients=2", "--perf-processes=2",
            "--perf-arrivals=users:4",
        )  # fmt: skip
        ran.assert_outcomes(passed=1)
        files = sorted((served.path / "out").iterdir())
        names = [f"{WORKLOAD}-users_4.{number}.jsonl" for number in range(1, 2 * runs + 1)]
        assert [file.name for file in files] == names
    (result,) = served.report["results"]
    assert result["facts"]["clients"] == 2
    assert result["facts"]["load"] == "closed loop of 4 users"
    rows = [json.loads(line) for line in files[0].read_text().splitlines()]
    assert {row["part"] for row in rows} == {"warm-up", "load", "alone"}
    load = [row for row in rows if row["part"] == "load" and row["block"] == 1]
    assert sorted(row["id"] for row in load) == list(range(8))
    for row in load:
        assert row["output_tokens"] == row["asked_tokens"] == len(row["token_s"])
        assert row["text"] == " a" * row["output_tokens"]
        assert row["arrival_s"] <= row["sent_s"] < row["token_s"][0] <= row["finished_s"]


def test_a_dataset_is_read_and_one_that_is_too_small_is_refused(
    served: Any, options: tuple[str, ...]
) -> None:
    """Twenty prompts are what a block and its warm-up take; its rows are what they are."""
    tokenizers = pytest.importorskip("tokenizers", reason="a dataset is counted by a tokenizer")
    model = tokenizers.models.WordLevel({"?": 0, "a": 1}, unk_token="?")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(served.path / "tokenizer.json"))
    turns = [{"from": "human", "value": "a " * 6}, {"from": "gpt", "value": "a " * 5}]
    rows: list[Any] = [{"conversations": turns}] * 20
    served.write("chats.json", json.dumps([*rows, "broken"]))
    told = (*options, "--perf-dataset=chats.json", "--perf-tokenizer=.")
    served.perf(*told).assert_outcomes(passed=1)
    (result,) = served.report["results"]
    assert f"[{WORKLOAD}-chats." in result["key"]
    assert result["config"]["dataset"] == "ShareGPT, chats.json"
    assert result["facts"]["dataset_notes"][0].startswith("broken rows: 1")
    served.write("chats.json", json.dumps(rows[:19]))
    short = served.perf(*told)
    short.assert_outcomes(failed=1)
    short.stdout.fnmatch_lines(["VOID: *19 prompts of 19 rows, 20 were asked for"])


def test_a_test_that_resizes_its_workload_keeps_the_load(
    served: Any, options: tuple[str, ...]
) -> None:
    """Planted: options without those of the run; its id would name a load that nobody sent."""
    served.write("test_it.py", _TEST.replace("dict(perf_workload.options) |", ""))
    served.perf(*options, "--perf-arrivals=constant:20").assert_outcomes(passed=1)
    (result,) = served.report["results"]
    assert "-constant_20-" in result["key"]
    assert result["facts"]["load"] == "constant, 20 requests/s"


def test_a_schedule_slower_than_the_timeout_is_void(served: Any, options: tuple[str, ...]) -> None:
    """At once: eight requests, one every hundred seconds, and ten minutes of patience."""
    ran = served.perf(*options, "--perf-arrivals=constant:0.01")
    ran.assert_outcomes(failed=1)
    ran.stdout.fnmatch_lines(
        ["*the last of 8 requests is due after 700 s, a block may take 600 s*"]
    )


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("--perf-arrivals=poisson:5", "--perf-arrivals has no effect: no test of this run asks"),
        ("--perf-requests=out", "--perf-requests has no effect: no test of this run asks"),
        ("--perf-clients=2", "--perf-clients has no effect: no test of this run asks"),
        ("--perf-arrivals=sometimes", "--perf-arrivals 'sometimes': expected at-once"),
        ("--perf-dataset=none.json", "--perf-dataset 'none.json': no such file"),
        ("--perf-tokenizer=.", "--perf-tokenizer has no effect without --perf-dataset"),
    ],
)
def test_what_has_no_effect_is_refused(two_tests: Any, given: str, reason: str) -> None:
    """No test of this project asks a server."""
    result = two_tests.perf(given)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert reason in result.stdout.str() + result.stderr.str()
    assert not (two_tests.path / "out").exists()


def test_without_perf_they_are_refused(two_tests: Any) -> None:
    result = two_tests.pytest("--perf-arrivals=poisson:5")
    assert "--perf-arrivals has no effect without --perf" in result.stderr.str()
