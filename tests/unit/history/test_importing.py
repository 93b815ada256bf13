"""Other tools' results as runs, apart from ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow", reason="a history is Parquet files")
pytest.importorskip("fsspec", reason="a history is where fsspec finds it")
pytest.importorskip("pandas", reason="a history is read into pandas")

from perfsuite import load_history
from perfsuite.__main__ import main
from perfsuite.history import store
from perfsuite.history.place import Place
from perfsuite.history.revision import Revision
from perfsuite.history.store import Run
from perfsuite.history.trend import series
from perfsuite.metrics import METRICS
from perfsuite.report.json_file import write
from perfsuite.results import Result, Row

# What `vllm bench serve --save-result --save-detailed` writes, shortened.
SERVE = {
    "date": "20260203-040506", "endpoint_type": "openai-chat", "backend": "openai-chat",
    "label": None, "model_id": "meta-llama/Llama-3.1-8B", "tokenizer_id": "meta-llama/Llama-3.1-8B",
    "num_prompts": 100, "request_rate": "inf", "burstiness": 1.0, "max_concurrency": 32,
    "duration": 20.5, "completed": 100, "failed": 0, "total_input_tokens": 51200,
    "total_output_tokens": 12800, "request_throughput": 4.88, "request_goodput": None,
    "output_throughput": 624.4, "total_token_throughput": 3121.9,
    "mean_ttft_ms": 310.5, "median_ttft_ms": 300.25, "std_ttft_ms": 40.0, "p99_ttft_ms": 420.75,
    "mean_tpot_ms": 12.5, "median_tpot_ms": 12.25, "std_tpot_ms": 1.0, "p99_tpot_ms": 15.5,
    "mean_itl_ms": 12.4, "median_itl_ms": 0.0, "std_itl_ms": 1.0, "p99.9_itl_ms": 30.5,
    "input_lens": [512], "ttfts": [0.3], "generated_texts": ["mean_ttft_ms"],
}  # fmt: skip
LATENCY = {"avg_latency": 1.5, "latencies": [1.4, 1.5, 1.6], "percentiles": {"50": 1.5, "99": 1.6}}
THROUGHPUT = {
    "elapsed_time": 10.0, "num_requests": 50, "total_num_tokens": 6400, "requests_per_second": 5.0,
    "tokens_per_second": 640.0,
}  # fmt: skip
BENCHMARK = {
    "machine_info": {"node": "secret-host", "machine": "x86_64", "python_version": "3.11.7",
                     "cpu": {"brand_raw": "AMD EPYC", "count": 2}},
    "commit_info": {"id": "0123456789abcdef0123", "time": "2026-02-01T10:00:00+02:00",
                    "dirty": True, "branch": "main", "project": "p"},
    "benchmarks": [{
        "group": None, "name": "test_sort[10]", "fullname": "tests/test_sort.py::test_sort[10]",
        "params": {"n": 10}, "extra_info": {"size": 10},
        "stats": {"min": 1e-6, "max": 9e-6, "mean": 3e-6, "stddev": 1e-6, "rounds": 1000,
                  "median": 2e-6, "ops": 333333.0},
    }],
    "datetime": "2026-02-01T09:00:00.123456+00:00", "version": "5.2.3",
}  # fmt: skip


@pytest.fixture
def take(tmp_path: Path) -> Callable[..., Any]:
    """Imports documents by the command line; the history's frame."""

    def take(*documents: object, said: tuple[str, ...] = (), name: str = "result") -> Any:
        files = []
        for number, document in enumerate(documents):
            text = document if isinstance(document, str) else json.dumps(document)
            files.append(tmp_path / f"{name}{number or ''}.json")
            files[-1].write_text(text)
        place = str(tmp_path / "runs")
        assert main(["import", *map(str, files), f"--history={place}", *said]) == 0
        return load_history(place)

    return take


def _figures(frame: Any) -> dict[str, tuple[float, str]]:
    columns = (frame["metric"], frame["value"], frame["unit"])
    return {metric: (value, unit) for metric, value, unit in zip(*columns, strict=True)}


def test_a_load_of_vllm(take: Callable[..., Any]) -> None:
    """Its figures in its units under its names; spreads, raw samples, zeros and nulls are none."""
    frame = take(SERVE, said=("--machine=h100", "--commit=abc", "--branch=main"))
    assert _figures(frame) == {
        "vllm_bench/mean_ttft_ms": (310.5, "ms"), "vllm_bench/median_ttft_ms": (300.25, "ms"),
        "vllm_bench/p99_ttft_ms": (420.75, "ms"), "vllm_bench/mean_tpot_ms": (12.5, "ms"),
        "vllm_bench/median_tpot_ms": (12.25, "ms"), "vllm_bench/p99_tpot_ms": (15.5, "ms"),
        "vllm_bench/mean_itl_ms": (12.4, "ms"), "vllm_bench/p99.9_itl_ms": (30.5, "ms"),
        "vllm_bench/request_throughput": (4.88, "requests/s"),
        "vllm_bench/output_throughput": (624.4, "tokens/s"),
        "vllm_bench/total_token_throughput": (3121.9, "tokens/s"),
    }  # fmt: skip
    row = frame.iloc[0]
    assert row["workload"] == "serve-meta-llama/Llama-3.1-8B-n100-rinf-c32-i51200"
    assert (row["engine"], row["machine"], row["commit"], row["branch"]) == (
        "vllm", "h100", "abc", "main",
    )  # fmt: skip
    assert (row["source"], row["verdict"], row["samples"]) == ("vllm_bench", "SHOWN", 100)
    assert json.loads(row["config"])["request_rate"] == "inf"
    local = datetime(2026, 2, 3, 4, 5, 6).astimezone(UTC)
    assert row["time"].to_pydatetime() == local


def test_another_load_is_another_workload(take: Callable[..., Any]) -> None:
    """A faster TTFT at a lower rate is no gain."""
    frame = take(*({**SERVE, "request_rate": rate} for rate in ("inf", 5.0)), SERVE)
    assert frame["workload"].nunique() == 2
    assert all(len(one.values) == 1 for one in series(frame))


def test_failed_requests_are_told(take: Callable[..., Any]) -> None:
    """They are in no latency: the figures are of those that were easy."""
    frame = take({**SERVE, "completed": 97, "failed": 3})
    assert set(frame["disturbance"]) == {"3 requests failed and are in no latency"}


def test_several_results_in_one_file(take: Callable[..., Any]) -> None:
    """As `--append-result` writes them."""
    second = {**SERVE, "date": "20260204-040506", "mean_ttft_ms": 200.0}
    frame = take(json.dumps(SERVE) + "\n" + json.dumps(second) + "\n")
    (one,) = (s for s in series(frame) if s.metric == "vllm_bench/mean_ttft_ms")
    assert one.values == (310.5, 200.0)


def test_latency_and_throughput_of_vllm(take: Callable[..., Any]) -> None:
    """Their files say nothing of model and sizes: the file's name, or the user, does."""
    frame = take(LATENCY, name="llama_tp1")
    assert _figures(frame) == {
        "vllm_bench/avg_latency": (1.5, "s"), "vllm_bench/p50_latency": (1.5, "s"),
        "vllm_bench/p99_latency": (1.6, "s"),
    }  # fmt: skip
    assert set(frame["workload"]) == {"latency-llama_tp1"}
    assert set(frame["samples"]) == {3}
    frame = take(THROUGHPUT, said=("--workload=offline", "--engine=vllm-0.33"))
    chosen = frame[frame["workload"] == "offline"]
    assert _figures(chosen) == {
        "vllm_bench/requests_per_second": (5.0, "requests/s"),
        "vllm_bench/tokens_per_second": (640.0, "tokens/s"),
    }
    assert set(chosen["engine"]) == {"vllm-0.33"}


def test_results_of_pytest_benchmark(take: Callable[..., Any]) -> None:
    """Its commit with time and branch, its machine without a host name, three of its figures."""
    frame = take(BENCHMARK)
    assert _figures(frame) == {
        "pytest_benchmark/min": (1e-6, "s"), "pytest_benchmark/median": (2e-6, "s"),
        "pytest_benchmark/mean": (3e-6, "s"),
    }  # fmt: skip
    row = frame.iloc[0]
    assert (row["workload"], row["suite"]) == ("test_sort[10]", "tests/test_sort.py")
    assert (row["commit"], row["branch"]) == ("0123456789ab+changes", "main")
    assert row["commit_time"].to_pydatetime() == datetime(2026, 2, 1, 8, tzinfo=UTC)
    assert row["machine"] == "amd-epyc-2x-x86_64"
    assert not frame.astype(str).apply(lambda column: column.str.contains("secret")).any().any()
    assert row["samples"] == 1000


def test_what_pytest_benchmark_writes_today(tmp_path: Path) -> None:
    """The installed version's own file is taken in."""
    (tmp_path / "test_it.py").write_text("def test_sort(benchmark):\n    benchmark(sorted, [2, 1])")
    # it writes nothing where it takes itself for a process of pytest-xdist
    alone = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py",
         "--benchmark-json=out.json", "--benchmark-max-time=0.05"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, env=alone,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert main(["import", str(tmp_path / "out.json"), f"--history={tmp_path / 'runs'}"]) == 0
    frame = load_history(str(tmp_path / "runs"))
    stats = json.loads((tmp_path / "out.json").read_text())["benchmarks"][0]["stats"]
    assert _figures(frame)["pytest_benchmark/median"] == (stats["median"], "s")


def test_our_own_results(
    tmp_path: Path, make_result: Callable[..., Result], take: Callable[..., Any]
) -> None:
    """--perf-json of a run that kept no history, under our own metrics."""
    write(tmp_path / "ours.json", [make_result()], [], tmp_path)
    frame = take((tmp_path / "ours.json").read_text())
    assert list(frame["source"]) == ["perfsuite"]
    assert set(frame["metric"]) <= set(METRICS)
    assert list(frame["value"]) == [0.011]


def test_of_our_own_results_the_user_knows_the_branch(
    tmp_path: Path, make_result: Callable[..., Result], take: Callable[..., Any]
) -> None:
    """And the commit, where the run knew none; its machine, workload and engine are its own."""
    write(tmp_path / "ours.json", [make_result()], [], tmp_path)
    document = json.loads((tmp_path / "ours.json").read_text())
    document["commit_info"]["id"] = ""
    frame = take(document, said=("--branch=main", "--commit=abc"))
    assert [*frame["branch"], *frame["commit"]] == ["main", "abc"]


@pytest.mark.parametrize("option", ["machine", "workload", "engine", "commit"])
def test_what_our_own_results_know_is_not_said(
    tmp_path: Path, make_result: Callable[..., Result], capsys: pytest.CaptureFixture[str],
    option: str,
) -> None:  # fmt: skip
    """Refused, and not dropped without a word; nothing is taken."""
    write(tmp_path / "ours.json", [make_result()], [], tmp_path)
    document = json.loads((tmp_path / "ours.json").read_text())
    document["commit_info"]["id"] = "0123abc"
    (tmp_path / "ours.json").write_text(json.dumps(document))
    arguments = ["import", str(tmp_path / "ours.json"), f"--history={tmp_path / 'runs'}"]
    assert main([*arguments, f"--{option}=x"]) == 2
    assert f"ours.json: --{option} has no effect" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("option", ["machine", "workload", "engine", "commit", "branch"])
def test_of_a_kept_run_nothing_is_said(
    tmp_path: Path, make_run: Callable[..., Run], capsys: pytest.CaptureFixture[str], option: str
) -> None:
    """It goes into the history as it is."""
    (tmp_path / "a.parquet").write_bytes(store.encoded(make_run(1)))
    arguments = ["import", str(tmp_path / "a.parquet"), f"--history={tmp_path / 'runs'}"]
    assert main([*arguments, f"--{option}=x"]) == 2
    assert f"a.parquet: --{option} has no effect" in capsys.readouterr().err


def test_a_run_that_was_appended_is_not_taken_from_its_file_too(
    tmp_path: Path, make_result: Callable[..., Result], make_row: Callable[..., Row],
    take: Callable[..., Any],
) -> None:  # fmt: skip
    """--perf-history and --perf-json of one run are one point; of the next run, another."""
    odd = make_row(low=float("nan"), ratio=float("inf"), processes=(2**60, 0.1))
    first = [make_result(), make_result(nodeid="b", rows=(odd,))]
    place = Place(str(tmp_path / "runs"))
    store.append(place, store.of_results(first, Revision("abc", None, "main")))
    write(tmp_path / "first.json", first, [], tmp_path)
    assert len(take((tmp_path / "first.json").read_text())) == 2

    later = [make_result(date="2026-02-02T12:00:00+00:00")]
    write(tmp_path / "later.json", later, [], tmp_path)
    assert len(take((tmp_path / "later.json").read_text(), said=("--branch=main",))) == 3


def test_a_number_beyond_every_float_is_a_bad_file(
    tmp_path: Path, make_result: Callable[..., Result], capsys: pytest.CaptureFixture[str]
) -> None:
    """Named, without a traceback."""
    write(tmp_path / "ours.json", [make_result()], [], tmp_path)
    document = json.loads((tmp_path / "ours.json").read_text())
    document["results"][0]["rows"][0]["value"] = 10**400
    for name, values in {"a": document, "b": {**SERVE, "mean_ttft_ms": 10**400}}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(values))
        assert main(["import", str(tmp_path / f"{name}.json"), f"--history={tmp_path / 'r'}"]) == 2
        assert capsys.readouterr().err.startswith(f"perfsuite: {tmp_path / name}.json: found ")


def test_no_import_has_an_id_of_ours(take: Callable[..., Any]) -> None:
    """A TPOT of vLLM's client and ours share no series, whatever workload is said."""
    frame = take(SERVE, LATENCY, THROUGHPUT, BENCHMARK)
    assert not set(frame["metric"]) & set(METRICS)
    assert {metric.partition("/")[0] for metric in frame["metric"]} == {
        "vllm_bench", "pytest_benchmark"
    }  # fmt: skip


def test_a_second_import_takes_nothing(
    take: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The same contents, also under another name and later: one point, not two."""
    take(SERVE, LATENCY)
    before = len(take(LATENCY))
    capsys.readouterr()
    assert len(take(LATENCY, SERVE, name="copy")) == before
    assert capsys.readouterr().out.count("already there, nothing taken") == 2


BAD = {
    "none": None,
    "empty": "",
    "text": "hello",
    "list": "[1]",
    "number": "1",
    "deep": "[" * 100_000,
    "other": '{"a": 1, "b": 2}',
    "cut": json.dumps(SERVE)[:200],
    "no date": json.dumps({k: v for k, v in SERVE.items() if k != "date"}),
    "bad date": json.dumps({**SERVE, "date": "yesterday"}),
    "no figures": json.dumps({"elapsed_time": 1, "num_requests": 0, "tokens_per_second": 0}),
    "no stats": json.dumps({**BENCHMARK, "benchmarks": [{"name": "a", "fullname": "a"}]}),
    "newer": '{"perfsuite_format": 2, "results": []}',
    "odd": '{"perfsuite_format": 1}',
    "bytes": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_named_and_nothing_is_taken(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even from the good file before it: the history is as it was."""
    good, bad, text = tmp_path / "good.json", tmp_path / "bad.json", BAD[kind]
    good.write_text(json.dumps(SERVE))
    if isinstance(text, bytes):
        bad.write_bytes(text)
    elif text is not None:
        bad.write_text(text)
    assert main(["import", str(good), str(bad), f"--history={tmp_path / 'runs'}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"perfsuite: {bad}: ")
    assert len(said) < 1000
    assert not (tmp_path / "runs").exists()


def test_a_run_that_is_damaged_is_not_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A .parquet that is no run of ours."""
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    assert main(["import", str(tmp_path / "a.parquet"), f"--history={tmp_path / 'runs'}"]) == 2
    assert "damaged" in capsys.readouterr().err


def test_a_run_goes_under_its_own_name(
    tmp_path: Path, make_run: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the file is called; one whose name would leave the folder is refused."""
    run, place = make_run(1), f"--history={tmp_path / 'runs'}"
    (tmp_path / "a.parquet").write_bytes(store.encoded(run))
    assert main(["import", str(tmp_path / "a.parquet"), place]) == 0
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [run.file_name]

    bad = make_run(1, unique="/../../../escaped")
    (tmp_path / "b.parquet").write_bytes(store.encoded(bad))
    assert main(["import", str(tmp_path / "b.parquet"), place]) == 2
    assert "the rows of 1 runs" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*escaped*"))
