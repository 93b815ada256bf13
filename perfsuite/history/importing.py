"""Results of other tools as runs of a history, under metric ids of their own.

pytest-benchmark's JSON, what `vllm bench serve --save-result` and `vllm bench latency|throughput
--output-json` write, and perfsuite's own --perf-json. The same words mean different things there: a
TPOT of vLLM's client divides by the tokens after the first, its ITL is the gap between two chunks,
however many tokens they hold, requests that failed are left out of both, and pytest-benchmark
times a round in one process. Their figures are therefore `vllm_bench/mean_tpot_ms` and
`pytest_benchmark/median`, in the unit of their file, and share no series with ours.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from perfsuite.devices import slug
from perfsuite.errors import PerfError
from perfsuite.history.place import is_run
from perfsuite.history.revision import Revision
from perfsuite.history.store import Run, Unreadable, as_json, decoded, encoded, of_results
from perfsuite.report.json_file import FORMAT
from perfsuite.results import Result

PYTEST_BENCHMARK = "pytest_benchmark"
VLLM_BENCH = "vllm_bench"

_BENCHMARK_FIGURES = ("min", "median", "mean")
_SERVED = re.compile(
    r"(mean|median|p\d+(\.\d+)?)_"
    r"(ttft|tpot|itl|e2el|client_queue_time|e2el_including_client_queue)_ms"
)
_RATES = {
    "request_throughput": "requests/s",
    "request_goodput": "requests/s",
    "output_throughput": "tokens/s",
    "total_token_throughput": "tokens/s",
    "requests_per_second": "requests/s",
    "tokens_per_second": "tokens/s",
}
_CONDITIONS = ("backend", "endpoint_type", "model_id", "tokenizer_id", "num_prompts",
               "request_rate", "burstiness", "max_concurrency", "total_input_tokens")  # fmt: skip


@dataclass(frozen=True)
class Said:
    """What the files do not know of themselves and the user does; empty: not said."""

    workload: str = ""
    engine: str = ""
    machine: str = ""
    commit: str = ""
    branch: str = ""


@dataclass(frozen=True)
class Imported:
    """One run as it goes into a history."""

    name: str  # of its file there; of equal contents the end is the same
    data: bytes
    rows: int
    source: str

    def is_among(self, sizes: Mapping[str, int]) -> bool:
        """Whether a history has its contents; not where its own file there is of another size.

        Such a file is the half of a put that failed.
        """
        if self.name in sizes:
            return sizes[self.name] == len(self.data)
        end = self.name.rpartition("-")[2]
        return any(name.endswith(f"-{end}") for name in sizes)


def read(file: Path, said: Said) -> list[Imported]:
    """The runs of one file.

    Raises PerfError naming the file when it can not be read or is of none of the known kinds.
    """
    try:
        data = file.read_bytes()
    except OSError as problem:
        raise PerfError(f"{file}: {problem.strerror or problem}") from None
    if file.suffix == ".parquet":
        _refuse(file, said, "workload", "engine", "machine", "commit", "branch")
        return [_own_run(file, data)]
    try:
        found = [_imported(file, document, said) for document in _documents(data.decode())]
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError,
            RecursionError) as problem:  # fmt: skip
        raise _unknown(file, repr(problem)[:200]) from None
    if not found:
        raise _unknown(file, "nothing")
    return found


def _refuse(file: Path, said: Said, *names: str) -> None:
    """What the file itself knows can not be said of it."""
    if given := [f"--{name}" for name in names if getattr(said, name)]:
        raise PerfError(
            f"{file}: {', '.join(given)} has no effect: perfsuite's own file knows it\n"
            "Import the file without it, and other tools' files by a command of their own."
        )


def _imported(file: Path, document: Mapping[str, Any], said: Said) -> Imported:
    run = _run(file, document, said)
    return Imported(run.file_name, encoded(run), len(run.rows), run.source)


def _own_run(file: Path, data: bytes) -> Imported:
    """A run that could not be appended when it was measured, as it is."""
    try:
        rows = decoded(data)
    except Unreadable as problem:
        raise _unknown(file, str(problem)) from None
    runs = rows["run"].unique().to_pylist()
    if len(runs) != 1 or not is_run(f"{runs[0]}.parquet"):
        raise _unknown(file, f"the rows of {len(runs)} runs")
    return Imported(f"{runs[0]}.parquet", data, rows.num_rows, rows["source"][0].as_py())


def _documents(text: str) -> Iterator[Any]:
    """The JSON values of a text one after the other, as `--append-result` writes them."""
    decoder, at = json.JSONDecoder(), 0
    while text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        value, at = decoder.raw_decode(text, at)
        yield value


def _run(file: Path, document: Mapping[str, Any], said: Said) -> Run:
    if "perfsuite_format" in document:
        return _of_ours(file, document, said)
    if "benchmarks" in document and "machine_info" in document:
        return _of_pytest_benchmark(document, said)
    if "total_token_throughput" in document and "num_prompts" in document:
        return _of_vllm_serve(document, said)
    if "avg_latency" in document and "latencies" in document:
        return _of_vllm_latency(file, document, said)
    if "elapsed_time" in document and "tokens_per_second" in document:
        return _of_vllm_throughput(file, document, said)
    raise _unknown(file, f"an object with {', '.join(sorted(document)[:5])}")


def _unknown(file: Path, found: str) -> PerfError:
    return PerfError(
        f"{file}: found {found}\nexpected: JSON of --perf-json, of pytest-benchmark, of"
        " vllm bench serve --save-result or vllm bench latency|throughput --output-json,"
        " or a run's .parquet"
    )


def _of_ours(file: Path, document: Mapping[str, Any], said: Said) -> Run:
    """A run of which the file knows all but the branch; its id ends as if it had been appended."""
    version = int(document["perfsuite_format"])
    if version > FORMAT:
        raise PerfError(f"{file}: format {version} is newer than this perfsuite reads ({FORMAT})")
    results = [Result.from_dict(values) for values in document["results"]]
    commit = document["commit_info"]["id"]
    _refuse(file, said, "workload", "engine", "machine", *(["commit"] if commit else []))
    run = of_results(results, Revision(commit or said.commit, None, said.branch))
    return replace(run, time=_moment(document["datetime"]))


def _of_pytest_benchmark(document: Mapping[str, Any], said: Said) -> Run:
    about = document.get("commit_info") or {}
    commit = (about.get("id") or "")[:12] + ("+changes" if about.get("dirty") else "")
    time = _moment(about["time"]) if about.get("time") else None
    of = Revision(said.commit or commit, time, said.branch or about.get("branch") or "")
    machine = document["machine_info"]
    identity = {
        "machine": said.machine or _machine_name(machine),
        "engine": said.engine,
        "toolchain": f"python {machine.get('python_version', '?')}",
    }
    rows = [
        _row(PYTEST_BENCHMARK, figure, one["stats"][figure], "s")
        | identity
        | {
            "workload": said.workload or one["name"],
            "suite": one["fullname"].partition("::")[0],
            "test": one["fullname"],
            "samples": int(one["stats"]["rounds"]),
            "config": as_json(one.get("extra_info") or {}),
        }
        for one in document["benchmarks"]
        for figure in _BENCHMARK_FIGURES
    ]
    return Run(rows, of, PYTEST_BENCHMARK, _moment(document["datetime"]), _digest(document))


def _machine_name(info: Mapping[str, Any]) -> str:
    """As for our machine classes the model, the count and the architecture, but no host."""
    cpu = info.get("cpu") or {}
    words = [cpu.get("brand_raw") or "unknown", f"{cpu.get('count', '?')}x", info.get("machine")]
    return slug("-".join(str(word or "unknown") for word in words))


def _of_vllm_serve(document: Mapping[str, Any], said: Said) -> Run:
    """The figures of one load; its conditions are the workload, or two loads would share a trend.

    The date has no zone: it is taken for this machine's local time.
    """
    served = {name: "ms" for name in document if _SERVED.fullmatch(name)}
    time = datetime.strptime(document["date"], "%Y%m%d-%H%M%S").astimezone(UTC)
    workload = (
        f"serve-{document['model_id']}-n{document['num_prompts']}-r{document['request_rate']}"
        f"-c{document.get('max_concurrency') or 'any'}-i{document['total_input_tokens']}"
    )
    config = {name: document[name] for name in _CONDITIONS if name in document}
    lost = int(document["num_prompts"]) - int(document["completed"])
    return _of_vllm(
        document, served | _RATES, said, time,
        workload=workload,
        samples=int(document["completed"]),
        config=as_json(config),
        disturbance=f"{lost} requests failed and are in no latency" if lost else "",
    )  # fmt: skip


def _of_vllm_latency(file: Path, document: Mapping[str, Any], said: Said) -> Run:
    tails = {f"p{share}_latency": v for share, v in document.get("percentiles", {}).items()}
    units = dict.fromkeys(["avg_latency", *tails], "s")
    return _of_vllm(
        {**document, **tails}, units, said, _written_at(file),
        workload=f"latency-{file.stem}", samples=len(document["latencies"]),
    )  # fmt: skip


def _of_vllm_throughput(file: Path, document: Mapping[str, Any], said: Said) -> Run:
    samples = int(document["num_requests"])
    workload = f"throughput-{file.stem}"
    time = _written_at(file)
    return _of_vllm(document, _RATES, said, time, workload=workload, samples=samples)


def _of_vllm(
    document: Mapping[str, Any], units: Mapping[str, str], said: Said, time: datetime, **more: Any
) -> Run:
    """Figures that are missing or not above zero stand for no measurement, and are no rows."""
    identity = {"machine": said.machine, "engine": said.engine or "vllm", "suite": VLLM_BENCH}
    workload = {"workload": said.workload or more.pop("workload")}
    rows = [
        {**_row(VLLM_BENCH, name, document[name], unit), **identity, **more, **workload}
        for name, unit in units.items()
        if _is_figure(document.get(name))
    ]
    if not rows:
        raise ValueError("no figure above zero")
    return Run(rows, Revision(said.commit, None, said.branch), VLLM_BENCH, time, _digest(document))


def _is_figure(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0


def _row(source: str, figure: str, value: float, unit: str) -> dict[str, Any]:
    """One figure; of what its tool does not know, empty texts."""
    texts = dict.fromkeys(("part", "scale", "disturbance", "toolchain", "config", "test"), "")
    return texts | {
        "tier": "measured", "metric": f"{source}/{figure}", "unit": unit, "value": float(value),
        "processes": [], "verdict": "SHOWN", "void": False,
    }  # fmt: skip


def _moment(text: str) -> datetime:
    """A time of ISO 8601; without a zone it is UTC."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _written_at(file: Path) -> datetime:
    """When a file was last changed: of when it was measured, these files say nothing."""
    return datetime.fromtimestamp(file.stat().st_mtime, UTC)


def _digest(document: Sequence[Any] | Mapping[str, Any]) -> str:
    """12 digits that are the same for the same contents."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:12]
