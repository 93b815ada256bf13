"""Ten thousand tests: collecting them, and judging them against as many stored baselines:

python bench/scale.py [TESTS]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from perfsuite.baselines import Baselines, Key, save
from perfsuite.judging import Bench, rows

PLAIN = """
import pytest
@pytest.mark.parametrize('n', range({n}))
def test_it(n, {fixture}): pass
"""
FIXTURES = "import pytest\n@pytest.fixture\ndef plain(): return None\n"


def collected_s(folder: Path, fixture: str, tests: int, options: list[str]) -> float:
    """Wall time of collecting that many tests that ask for one fixture."""
    (folder / "conftest.py").write_text(FIXTURES)
    (folder / "test_it.py").write_text(PLAIN.format(n=tests, fixture=fixture))
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    start = time.perf_counter()
    subprocess.run([*command, *options], cwd=folder, capture_output=True, check=True)
    return time.perf_counter() - start


def ratio_of_collecting(tests: int, pairs: int = 5) -> list[float]:
    """Perf tests under --perf against plain ones without, in turn."""
    ratios = []
    with tempfile.TemporaryDirectory() as name:
        for _ in range(pairs):
            perf = collected_s(Path(name), "perf", tests, ["--perf", "--device=cpu"])
            ratios.append(perf / collected_s(Path(name), "plain", tests, []))
    return ratios


def judged_s(count: int) -> float:
    """Seconds to read a file of that many baselines and judge one figure against each."""
    figure = "call_time/per_call"
    keys = [Key(f"test_it[{number}]") for number in range(count)]
    entry = {"figures": {figure: {"unit": "s", "processes": [0.01, 0.0101, 0.0099, 0.01, 0.01]}}}
    with tempfile.TemporaryDirectory() as name:
        save(Path(name), "machine", "test_it.py", {key.text: entry for key in keys}, "all")
        start = time.perf_counter()
        stored = Baselines([Path(name)])
        for key in keys:
            bench = Bench(stored, "machine", "test_it.py", key, (), "")
            rows(bench, {figure: [[0.0101] * 9] * 5})
        return time.perf_counter() - start


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    found = ratio_of_collecting(number)
    print(f"collecting {number} perf tests: {statistics.median(found):.2f} times the plain ones"
          f" ({min(found):.2f} to {max(found):.2f}, {len(found)} pairs)")  # fmt: skip
    times = [judged_s(number) for _ in range(3)]
    print(f"judging {number} figures: {min(times):.2f} to {max(times):.2f} s, reading included")
