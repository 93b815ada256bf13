"""perfsuite's figures beside vLLM's own, and this repository's server beside vLLM's.

Needs an environment with vllm, transformers and `perfsuite[serving]`: tests/vllm/requirements.txt.

    python bench/serving_vllm.py                two tables: as a server, and in process
    python bench/serving_vllm.py --only server  or process, one of them
    python bench/serving_vllm.py --throughput   output throughput of both servers in turn

- server: one request at a time, so that what vLLM's /metrics gained by it is that request's own:
  the sums of its histograms of time to first token, time per output token and end-to-end latency,
  and the counts of tokens. The client's medians must be within 2 % or 0.5 ms of vLLM's, the counts
  equal.
- process: the same of `--engine=vllm`; vLLM's own are those of `RequestOutput.metrics`.
- throughput: `python -m engines.serve --engine=torch` and vLLM's CPU server on the same weights,
  prompts and lengths, all at once, in alternating order; pairs of rounds are compared. The server
  that waits for its turn is stopped, so that an idle loop of it costs the other nothing.

vLLM's time to first token begins when its front end has read a request, and ends before the token
is written to the connection; the client's begins when the request is written and ends when the
token has come. Its time per token is its engine's, by the moments of the steps; "front end" is the
same from the two sums of its front end, which has to get a processor beside the engine each time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from perfsuite.adapters.openai import OpenAI
from perfsuite.serving.arrivals import Arrivals, ClosedLoop, at_once
from perfsuite.serving.client import Outcome, offer, run
from perfsuite.serving.conversation_lengths import published, scaled
from perfsuite.serving.figures import figures, time_per_token, token_gaps
from perfsuite.serving.request import Record, Request

ROOT = Path(__file__).parents[1]
CONTEXT, VOCAB = 2048, 2048
INPUT, OUTPUT = 384, 32  # tokens of a request of the agreement
LONGEST_IN, LONGEST_OUT, SLOTS, PROMPTS = 256, 64, 16, 64  # of the throughput
NEAR, NEAR_S = 0.02, 0.0005
START_S = 300.0
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
METRICS = {
    "TTFT": "vllm:time_to_first_token_seconds_sum",
    "TPOT": "vllm:request_time_per_output_token_seconds_sum",
    "ITL total": "vllm:inter_token_latency_seconds_sum",
    "E2E": "vllm:e2e_request_latency_seconds_sum",
}
COUNTS = {
    "prompt": "vllm:prompt_tokens_total",
    "output": "vllm:generation_tokens_total",
    "requests": "vllm:e2e_request_latency_seconds_count",
}


@dataclass(frozen=True)
class Pair:
    """One request: seconds by figure, and (prompt, output) tokens, as either side has them."""

    client: dict[str, float]
    vllm: dict[str, float]
    client_tokens: tuple[int | None, int | None]
    vllm_tokens: tuple[int, int]


def write_model(folder: Path, **shape: int) -> None:
    """A Llama with random weights, of 99 million parameters unless told otherwise, and a tokenizer
    of as many words as it has tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {
        "hidden_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 16,
        "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 2816, "vocab_size": VOCAB,
        "max_position_embeddings": CONTEXT,
    }  # fmt: skip
    config = LlamaConfig(**(sizes | shape), bos_token_id=None, eos_token_id=None)
    LlamaForCausalLM(config).to(torch.float32).save_pretrained(folder)
    words = {f"w{number} ": number for number in range(VOCAB)}
    model = {"type": "WordLevel", "vocab": words, "unk_token": "w0 "}
    names = ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder")
    tokenizer = {"version": "1.0", "added_tokens": [], "model": model, **dict.fromkeys(names)}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "w0 "}
    (folder / "tokenizer_config.json").write_text(json.dumps(kind))


@dataclass(frozen=True)
class Server:
    """One that answers."""

    url: str
    process: subprocess.Popen[bytes]

    def signal(self, number: signal.Signals) -> None:
        """To all of its processes."""
        os.killpg(self.process.pid, number)


@contextmanager
def vllm_server(folder: Path, *options: str) -> Iterator[Server]:
    """The server that vLLM comes with."""
    port = _free_port()
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder),
        "--served-model-name", "small", "--dtype", "float32", "--max-model-len", str(CONTEXT),
        "--max-num-seqs", str(SLOTS), "--no-enable-prefix-caching", "--enforce-eager",
        "--host", "127.0.0.1", "--port", str(port), "--disable-uvicorn-access-log", *options,
    ]  # fmt: skip
    with _started(command, folder / "vllm.log", ENVIRONMENT) as process:
        yield Server(_answering(f"http://127.0.0.1:{port}", folder / "vllm.log"), process)


@contextmanager
def our_server(folder: Path) -> Iterator[Server]:
    """The server of this repository, with the torch engine."""
    port = _free_port()
    command = [
        sys.executable, "-m", "engines.serve", "--engine=torch", f"--checkpoint_path={folder}",
        "--dtype=float32", f"--batch_size={SLOTS}", f"--max_cache_length={CONTEXT}", "--port=0",
        f"--http_port={port}",
    ]  # fmt: skip
    with _started(command, folder / "ours.log", {}) as process:
        yield Server(_answering(f"http://127.0.0.1:{port}", folder / "ours.log"), process)


@contextmanager
def _started(
    command: list[str], log: Path, variables: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as said:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=said, stderr=said, env=os.environ | variables,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGCONT):
            os.killpg(process.pid, number)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _answering(url: str, log: Path) -> str:
    """The URL once its health is good; SystemExit with the log's end where it never is."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            with urlopen(f"{url}/health", timeout=5):
                return url
        except (URLError, OSError):
            time.sleep(0.5)
    raise SystemExit(f"no server within {START_S:g} s:\n{log.read_text(errors='replace')[-3000:]}")


async def _loaded(url: str, requests: list[Request], arrivals: Arrivals) -> Outcome:
    adapter = OpenAI(url)
    await adapter.open()
    try:
        return await offer(adapter, requests, arrivals)
    finally:
        await adapter.close()


def prompt(source: random.Random, length: int) -> tuple[int, ...]:
    """Token ids that no cache has seen."""
    return tuple(source.choices(range(VOCAB), k=length))


def as_a_server(url: str, count: int) -> list[Pair]:
    """Requests one after the other, each with what vLLM's metrics gained by it."""
    source, pairs = random.Random(1), []
    run(_loaded(url, [Request(0, prompt(source, INPUT), OUTPUT)] * 3, ClosedLoop(1)))  # warm
    before = settled(url)
    for number in range(count):
        asked = Request(number, prompt(source, INPUT), OUTPUT)
        (record,) = run(_loaded(url, [asked], ClosedLoop(1))).records
        if record.failure:
            raise SystemExit(f"request {number} failed: {record.failure}")
        after = settled(url, before["requests"] + 1)
        gained = {name: after[name] - before[name] for name in after}
        pairs.append(_served(record, gained))
        before = after
    return pairs


def _served(record: Record, gained: dict[str, float]) -> Pair:
    gaps = token_gaps(record) or []
    per_token = time_per_token(record) or 0.0
    client = {
        "TTFT": (record.first_token_s or 0.0) - record.sent_s,
        "TPOT": per_token,
        "front end": per_token,
        "ITL": fmean(gaps) if gaps else 0.0,  # one event held all of it
        "E2E": (record.last_token_s or 0.0) - record.sent_s,
    }
    vllm = {name: gained[name] for name in ("TTFT", "TPOT", "E2E")}
    vllm["front end"] = (gained["E2E"] - gained["TTFT"]) / (gained["output"] - 1)
    vllm["ITL"] = gained["ITL total"] / (gained["output"] - 1)
    tokens = int(gained["prompt"]), int(gained["output"])
    return Pair(client, vllm, (record.input_tokens, record.output_tokens), tokens)


def settled(url: str, requests: float | None = None) -> dict[str, float]:
    """Sums and counts of vLLM, once so many requests are in them."""
    while True:
        with urlopen(f"{url}/metrics") as answer:
            text = answer.read().decode()
        found = {name: _value(text, metric) for name, metric in (METRICS | COUNTS).items()}
        if requests is None or found["requests"] >= requests:
            return found
        time.sleep(0.01)


def _value(text: str, metric: str) -> float:
    lines = re.findall(rf"^{re.escape(metric)}(?:{{[^\n]*}})? (\S+)$", text, re.MULTILINE)
    return sum(map(float, lines))


def in_process(folder: Path, count: int) -> list[Pair]:
    """`--engine=vllm` step by step, and the metrics of vLLM's last answer of each request."""
    from perfsuite.adapters.vllm import VllmOffer
    from perfsuite.workloads import Model, Workload

    offer = VllmOffer()
    model = Model(**offer.model_shape(folder), checkpoint=str(folder))
    workload = Workload(
        id="single", document="llm", place="", kind="single_user", mode="plain", model=model,
        device="cpu", dtype="float32", input_tokens=INPUT, output_tokens=OUTPUT,
    )  # fmt: skip
    engine = offer.open(workload, "cpu")
    source = random.Random(1)
    try:
        pairs = [_stepped(engine, prompt(source, INPUT)) for _ in range(count + 2)]
    finally:
        engine.close()
    return pairs[2:]


def _stepped(engine: Any, asked: tuple[int, ...]) -> Pair:
    outs, call = [], engine._call

    def kept() -> dict[str, Any]:
        found = call()
        outs.extend(found.values())
        return found

    engine._call = kept
    start = time.perf_counter()
    step = engine.prefill([list(asked)])
    stamps = [time.perf_counter()]
    while len(stamps) < OUTPUT:
        step = engine.decode(step)
        stamps.append(time.perf_counter())
    engine._call = call
    last = outs[-1]
    own = last.metrics
    decoding = own.last_token_ts - own.first_token_ts
    client = {
        "TTFT": stamps[0] - start,
        "TPOT": (stamps[-1] - stamps[0]) / (OUTPUT - 1),
        "ITL": fmean(later - earlier for earlier, later in pairwise(stamps)),
        "E2E": stamps[-1] - start,
    }
    vllm = {
        "TTFT": own.first_token_latency,
        "TPOT": decoding / (own.num_generation_tokens - 1),
        "ITL": decoding / (own.num_generation_tokens - 1),
        "E2E": own.first_token_latency + decoding,
    }
    counts = len(last.prompt_token_ids), own.num_generation_tokens
    return Pair(client, vllm, (len(asked), len(stamps)), counts)


def disagreements(pairs: list[Pair]) -> list[str]:
    """The figures whose medians differ by over 2 % and 0.5 ms, and token counts that differ."""
    found = []
    for name in pairs[0].client:
        mine, theirs = _medians(pairs, name)
        if abs(mine - theirs) > max(NEAR * theirs, NEAR_S):
            found.append(name)
    wrong = sum(pair.client_tokens != pair.vllm_tokens for pair in pairs)
    return found + ([f"token counts of {wrong} requests"] if wrong else [])


def _medians(pairs: list[Pair], name: str) -> tuple[float, float]:
    return median(p.client[name] for p in pairs), median(p.vllm[name] for p in pairs)


def show(title: str, pairs: list[Pair]) -> None:
    """One table."""
    print(f"{title}: {len(pairs)} requests, {INPUT} tokens in, {OUTPUT} out")
    print("  median        client        vLLM    difference")
    for name in pairs[0].client:
        mine, theirs = _medians(pairs, name)
        print(
            f"  {name:<9} {1e3 * mine:9.3f} ms {1e3 * theirs:8.3f} ms"
            f" {1e3 * (mine - theirs):+8.3f} ms {mine / theirs - 1:+7.2%}"
        )
    wrong = disagreements(pairs)
    print(f"  {'disagree: ' + ', '.join(wrong) if wrong else 'agree; token counts equal'}")


def throughput(folder: Path, rounds: int) -> None:
    """Rounds in turn: ours and theirs, then theirs and ours; who waits is stopped meanwhile."""
    found: dict[str, list[float]] = {"engines.serve, torch": [], "vLLM": []}
    with our_server(folder) as ours, vllm_server(folder) as theirs:
        servers = dict(zip(found, (ours, theirs), strict=True))
        for server in servers.values():
            server.signal(signal.SIGSTOP)
        for number in range(-1, rounds):  # the first warms up
            names = list(found) if number % 2 else list(reversed(found))
            for name in names:
                servers[name].signal(signal.SIGCONT)
                rate = _rate(servers[name].url, number)
                servers[name].signal(signal.SIGSTOP)
                print(f"  round {number + 1}: {name}: {rate:.1f} output tokens/s", flush=True)
                if number >= 0:
                    found[name].append(rate)
    _show_rates(found)


def _rate(url: str, seed: int) -> float:
    """Output tokens a second of one load; both servers get the same lengths in a round."""
    lengths, words = random.Random(seed), random.Random()
    pairs = [scaled(published(lengths), LONGEST_IN, LONGEST_OUT) for _ in range(PROMPTS)]
    requests = [Request(n, prompt(words, i), o) for n, (i, o) in enumerate(pairs)]
    outcome = run(_loaded(url, requests, at_once(PROMPTS)))
    told = figures(outcome.records)
    if outcome.void or outcome.ended or told.failures or told.other_length:
        raise SystemExit(
            f"{url}: {outcome.void or outcome.ended or dict(told.failures)}"
            f" {told.other_length} of another length"
        )
    return told.values["output_throughput/whole_run"]


def _show_rates(found: dict[str, list[float]]) -> None:
    print(f"{PROMPTS} prompts at once, {SLOTS} slots, output tokens/s, {len(found['vLLM'])} rounds")
    for name, rates in found.items():
        print(f"  {name:<22} median {median(rates):7.1f}, {min(rates):.1f} to {max(rates):.1f}")
    ratios = [mine / theirs for mine, theirs in zip(*found.values(), strict=True)]
    print(f"  ratio, round by round  median {median(ratios):7.3f}, "
          f"{min(ratios):.3f} to {max(ratios):.3f}")  # fmt: skip


def _server_part(folder: Path, count: int) -> None:
    with vllm_server(folder) as server:
        show("server", as_a_server(server.url, count))


def _process_part(folder: Path, count: int) -> None:
    show("in process", in_process(folder, count))


PARTS: dict[str, Callable[[Path, int], None]] = {"server": _server_part, "process": _process_part}


def main() -> None:
    """Write the model, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", choices=PARTS, help="one part alone")
    parser.add_argument("--throughput", action="store_true", help="both servers in turn")
    parser.add_argument("--requests", type=int, default=20, help="of the agreement")
    parser.add_argument("--rounds", type=int, default=5, help="of the throughput, for each server")
    given = parser.parse_args()
    os.environ |= ENVIRONMENT
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers end too
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder)
        print(f"load average at the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        if given.throughput:
            throughput(folder, given.rounds)
            return
        for part in [given.only] if given.only else PARTS:
            PARTS[part](folder, given.requests)


if __name__ == "__main__":
    main()
