"""What perfsuite adds to pytest's start-up where it is installed and not used.

Both arms run `pytest --collect-only` in an empty project in the same environment; one blocks
perfsuite by name, as pytest then never imports it. The arms take turns, so that drift of the
machine hits both. pytest-benchmark is measured the same way beside it.

    python bench/start_up.py [PAIRS]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time

ARMS = {
    "perfsuite": ["-p", "no:perfsuite.plugin"],
    "pytest-benchmark": ["-p", "no:benchmark", "-p", "no:perfsuite.plugin"],
}
# pytest-benchmark is compared with perfsuite out of the way on both sides.
COMMON = {"perfsuite": [], "pytest-benchmark": ["-p", "no:perfsuite.plugin"]}


def seconds(folder: str, options: list[str]) -> float:
    """Wall time of one `pytest --collect-only` in that folder."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    subprocess.run([*command, *options], cwd=folder, capture_output=True, check=False)
    return time.perf_counter() - start


def main(pairs: int) -> None:
    """Print the median of the paired differences with their quartiles."""
    with tempfile.TemporaryDirectory() as folder:
        for name, without in ARMS.items():
            seconds(folder, [])
            added = sorted(
                1e3 * (seconds(folder, COMMON[name]) - seconds(folder, without))
                for _ in range(pairs)
            )
            low, middle, high = statistics.quantiles(added, n=4)
            spread = f"quartiles {low:.1f} to {high:.1f}, {pairs} pairs"
            print(f"{name:18} adds {middle:6.1f} ms  ({spread})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
