"""How long the report page takes to be made and to answer, and how large it is.

    python bench/report.py [--workloads 1000] [--chromium /usr/bin/chromium]

A thousand workloads of eight figures, each of five processes with eight samples, are written as
--perf-json does, made into a page by the command line, and opened in a headless browser: until the
page is ready, until it is sorted, filtered, and until a workload's details and samples stand.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from perfsuite.metrics import METRICS
from perfsuite.report import json_file
from perfsuite.results import Result, Row
from perfsuite.verdict import Verdict

FIGURES = (
    "time_to_first_token/prefill_until_first_token",
    "time_per_output_token/excluding_first_token",
    "inter_token_latency/median_step",
    "single_user_throughput/output_tokens",
    "single_user_throughput/prompt_and_output_tokens",
    "prompt_throughput/batch",
    "machine_pace/matrix_products",
    "peak_memory/allocator",
)
VERDICTS = (Verdict.SAME,) * 12 + (Verdict.UNSURE,) * 4 + (Verdict.BETTER, Verdict.NEW)
CHROMIUM = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def main() -> None:
    """Print one line for each number."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workloads", type=int, default=1000)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results, page = Path(folder, "results.json"), Path(folder, "page.html")
        json_file.write(results, list(planted(asked.workloads)), [], Path(folder))
        print(f"workloads                 {asked.workloads}, {len(FIGURES)} figures each")
        print(f"results                   {results.stat().st_size / 1e6:.2f} MB")
        made = median(_made_s(results, page) for _ in range(asked.repeats))
        print(f"page made in              {made:.2f} s, by the command line, imports included")
        print(f"page                      {page.stat().st_size / 1e6:.2f} MB")
        _browse(page, asked.chromium, asked.repeats)


def planted(workloads: int) -> Iterator[Result]:
    """Results as a run would give them; one in a hundred has a figure that got worse."""
    random = Random(8)
    for number in range(workloads):
        worse = number % 100 == 7
        rows, samples = [], {}
        for place, figure in enumerate(FIGURES):
            row, own = _figure(random, figure, worse=worse and place == 0)
            rows.append(row)
            samples[figure] = own
        yield Result(
            nodeid=f"tests/perf/test_documents.py::test_llm[llm-planted-{number}-measured]",
            test="tests/perf/test_documents.py",
            machine="cpu-planted-2x-x86_64",
            suite=("llm", "hydragen", "torchao", "jetstream")[number % 4],
            key=f"llm-planted-{number} | torch_llama | smoke | measured",
            workload=f"llm-planted-llama3_8b-single_user-plain-b1-i{number}-u16",
            engine=("torch_llama", "hydragen", "torchao_llama")[number % 3],
            tier="measured",
            scale="smoke",
            date="2026-02-01T12:00:00+00:00",
            toolchain="python 3.11.7, torch 2.13.0, numpy 2.4.6",
            rows=tuple(rows),
            samples=samples,
            config={"dtype": "float32", "threads": 2, "attention": "flash", "number": number},
            facts={"ceilings": {"bandwidth": 1.03e10, "peak": 1.88e11}, "batch": 1},
            machine_state={"meanwhile": {"seconds": 3.01, "others_share": random.random() / 10}},
            baseline={
                "file": "baselines/cpu-planted-2x-x86_64/llm.json", "commit": "1a2b3c4d5e6f",
                "date": "2026-01-01T12:00:00+00:00", "toolchain": "python 3.11.7, torch 2.12.0",
                "config": {"dtype": "float32", "threads": 2, "attention": "flash"},
            },
            seconds=3.2,
            published=("decode_throughput 14 ktok/s on 8x A100-40GB, 2024-02 (paper)",),
        )  # fmt: skip


def _figure(random: Random, figure: str, *, worse: bool) -> tuple[Row, list[list[float]]]:
    of = METRICS[figure]
    level = random.lognormvariate(0, 1) * {"time": 0.01, "throughput": 1e4}.get(of.kind, 1e9)
    ratio = 1.3 if worse else random.lognormvariate(0, 0.02)
    own = [[level * random.lognormvariate(0, 0.02) for _ in range(8)] for _ in range(5)]
    base = tuple(level * random.lognormvariate(0, 0.01) / ratio for _ in range(5))
    verdict = Verdict.WORSE if worse else random.choice(VERDICTS) if of.gated else Verdict.SHOWN
    compared = of.gated and verdict is not Verdict.NEW
    note = "noise reaches 1.213; a change to 1.250 or more would have been seen"
    row = Row(
        figure=figure,
        verdict=verdict,
        value=level,
        low=level * 0.98,
        high=level * 1.02,
        processes=tuple(median(process) for process in own),
        samples=40,
        ratio=ratio if compared else None,
        ratio_low=ratio * 0.97 if compared else None,
        ratio_high=ratio * 1.03 if compared else None,
        limit=1.05 if compared else None,
        baseline=median(base) if compared else None,
        baseline_processes=base if compared else (),
        baseline_file="baselines/cpu-planted-2x-x86_64/llm.json",
        baseline_date="2026-01-01T12:00:00+00:00",
        ceiling=random.random() if of.kind in ("time", "throughput") else None,
        note=note if verdict is Verdict.UNSURE else "",
    )
    return row, own


def _made_s(results: Path, page: Path) -> float:
    command = [sys.executable, "-m", "perfsuite", "report", str(results), "--output", str(page)]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def _browse(page: Path, chromium: str, repeats: int) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM))
        found = [_times(browser.new_page(), page.as_uri()) for _ in range(repeats)]
        browser.close()
    for name in found[0]:
        print(f"{name:<26}{median(times[name] for times in found):.4g}")


def _times(tab: Any, address: str) -> dict[str, float]:
    """Seconds until each step's outcome stands in the page; complaints and requests as counts."""
    complaints: list[str] = []
    requests: list[str] = []
    tab.on("console", lambda m: complaints.append(m.text) if m.type != "log" else None)
    tab.on("pageerror", lambda problem: complaints.append(str(problem)))
    tab.on("request", lambda request: requests.append(request.url))
    steps: dict[str, Callable[[], object]] = {
        "opened and answers, s": lambda: (
            tab.goto(address), tab.wait_for_selector("html[data-ready] #ratios .main-svg")),
        "all ratios drawn, s": lambda: (
            tab.click("[data-worst] >> nth=-1"),
            tab.wait_for_selector("[data-worst][aria-pressed=true] >> nth=-1")),
        "sorted, s": lambda: (
            tab.click("#tests thead th:nth-child(2) button"),
            tab.wait_for_selector("#tests th[aria-sort=ascending]")),
        "filtered, s": lambda: (
            tab.select_option("#verdict", "WORSE"),
            tab.wait_for_selector("#found:text-matches('^[1-9]\\\\d* of')")),
        "workload opened, s": lambda: (
            tab.click("#tests tbody tr:not([hidden]) button.open"),
            tab.wait_for_selector("dialog[open] .plot .main-svg")),
        "screenshot, s": lambda: tab.screenshot(),
    }  # fmt: skip
    times = {}
    for name, step in steps.items():
        with _timed() as elapsed:
            step()
        times[name] = elapsed[0]
    for text in complaints[:5]:
        print("console:", text)
    counts = {"console errors": len(complaints), "requests beside the page": len(requests) - 1}
    return times | counts


@contextmanager
def _timed() -> Iterator[list[float]]:
    elapsed: list[float] = []
    start = time.perf_counter()
    yield elapsed
    elapsed.append(time.perf_counter() - start)


if __name__ == "__main__":
    main()
