"""SIGKILL in the middle of a save: the old file or the new one, never a half.

A process saves without pause, alternating two contents; it is killed at a random moment and the
file is read.

    python bench/kill_save.py [KILLS]
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from perfsuite.baselines import file_name, read

SAVER = """
import sys
from pathlib import Path
from perfsuite.baselines import save
figure = "call_time/per_call"
number = 0
print("ready", flush=True)
while True:
    number += 1
    entries = {
        f"test_{n} | measured": {"figures": {figure: {"unit": "s", "processes": [float(number)]}}}
        for n in range(300)
    }
    save(Path(sys.argv[1]), "machine", "suite", entries, "all")
"""


def main(kills: int) -> None:
    """Kill, read, count."""
    whole = empty = 0
    with tempfile.TemporaryDirectory() as name:
        for _ in range(kills):
            process = subprocess.Popen([sys.executable, "-c", SAVER, name], stdout=subprocess.PIPE)
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(random.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
            entries = read(Path(name) / "machine" / file_name("suite"))
            values = {tuple(entry.figures["call_time/per_call"]) for entry in entries.values()}
            assert len(entries) in (0, 300), f"half a file: {len(entries)} entries"
            assert len(values) <= 1, f"two saves mixed: {values}"
            whole, empty = whole + bool(entries), empty + (not entries)
    print(f"{kills} kills: {whole} times a whole file, {empty} times none yet, 0 times a half")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
