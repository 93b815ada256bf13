"""jax's runtime, in a process of its own: which devices JAX shows is settled once for a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from perfsuite.metrics import METRICS

pytest.importorskip("jax", reason="needs jax")

_START = """
import json
import jax
import jax.numpy as jnp
from perfsuite.runtimes import jax_runtime as runtime
answers = {}
"""


def in_jax(code: str, devices: int = 1) -> dict[str, Any]:
    """What a script leaves in `answers`, on so many host devices."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script.py"
        script.write_text(f"{_START}{code}\nprint(json.dumps(answers))")
        ran = subprocess.run(
            [sys.executable, "-W", "error", str(script)],
            env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(ran.stdout)


COMPILING = """
from functools import partial
import logging

seen = []
logging.getLogger().addHandler(logging.Handler())
logging.getLogger().handlers[-1].emit = lambda record: seen.append(record.getMessage())

@partial(jax.jit, static_argnames="request")
def decode(tokens, request):
    return inner(tokens) + 1

@jax.jit
def inner(tokens):
    return tokens * 2

tokens, longer = jnp.zeros(4, int), jnp.zeros(5, int)
placed = jax.device_put(tokens, jax.devices()[1])
start = runtime.compilations()
decode(tokens, "a")
answers["first"] = runtime.compilations() - start, runtime.compiled_since(start)
start = runtime.compilations()
decode(tokens, "a")
answers["same"] = runtime.compilations() - start, runtime.compiled_since(start)
decode(longer, "a")
answers["longer"] = runtime.compilations() - start, runtime.compiled_since(start)
start = runtime.compilations()
inner(longer)
answers["alone"] = runtime.compilations() - start, runtime.compiled_since(start)
start = runtime.compilations()
for request in "bcd":
    decode(tokens, request)
answers["fresh"] = runtime.compilations() - start, runtime.compiled_since(start)
start = runtime.compilations()
decode(placed, "a")
answers["elsewhere"] = runtime.compilations() - start, runtime.compiled_since(start)
start = runtime.compilations()
for number in range(5):
    exec(f"def f{number}(x): return x + {number}")
    jax.jit(globals()[f"f{number}"])(tokens)
answers["many"] = runtime.compilations() - start, runtime.compiled_since(start)
answers["logged"] = [text for text in seen if "CACHE MISS" in text]
"""


@pytest.fixture(scope="module")
def compiling() -> dict[str, Any]:
    """How many programs each of some calls compiled, and the reasons."""
    return in_jax(COMPILING, devices=2)


def test_the_first_call_compiles_and_the_second_does_not(compiling: dict[str, Any]) -> None:
    """One program, however many functions it calls."""
    count, reason = compiling["first"]
    assert count == 1
    assert reason == "decode (script.py:15): it had not run before"
    assert compiling["same"] == [0, ""]


def test_the_argument_that_changed_is_named(compiling: dict[str, Any]) -> None:
    """A shape; and a static argument, whose three values are one cause."""
    assert compiling["longer"] == [1, "decode (script.py:15): tokens was i32[4], now i32[5]"]
    count, reason = compiling["fresh"]
    assert count == 3
    assert reason.startswith("decode (script.py:15): request was 'a', now 'b'")
    assert reason.endswith(", 3 times")


def test_a_program_that_jax_does_not_explain_is_named(compiling: dict[str, Any]) -> None:
    """The same call on another device, or by itself in place of within another: not traced."""
    for case, function in (("elsewhere", "decode"), ("alone", "inner")):
        count, reason = compiling[case]
        assert count == 1
        assert reason.startswith(f"{function}: JAX gives no reason")


def test_three_causes_are_told_and_the_rest_counted(compiling: dict[str, Any]) -> None:
    """The message stays one line."""
    count, reason = compiling["many"]
    assert count == 5
    assert reason.count(" | ") == 3
    assert reason.endswith(" | and 2 more")


def test_the_explanations_stay_out_of_the_log(compiling: dict[str, Any]) -> None:
    """Nobody asked for them."""
    assert compiling["logged"] == []


def test_who_asked_for_explanations_keeps_them() -> None:
    """Then only programs are named."""
    answers = in_jax("""
import importlib, logging
from perfsuite.runtimes.jax_compilations import Compilations
logging.getLogger("jax._src.interpreters.partial_eval").filters.clear()
jax.config.update("jax_explain_cache_misses", True)
compilations = Compilations()
compilations.listen()
jax.jit(lambda x: x + 1)(1)
answers["reasons"] = compilations.reasons(0)
""")
    assert answers["reasons"].startswith("<lambda>: JAX gives no reason")


def test_waiting_takes_pytrees_steps_and_anything() -> None:
    """Every array of a tree, a step's tokens; where there are none, all that live."""
    answers = in_jax("""
from types import SimpleNamespace

waited = []
jax.block_until_ready = waited.append
a, b = jnp.zeros(1), jnp.zeros(2)
step = SimpleNamespace(tokens=a, cache=b)
nested = SimpleNamespace(tokens=(a, b))
for result in ({"a": [a, b]}, step, (step, b), nested, None, object(), 3):
    runtime.wait(result)
answers["sizes"] = [sorted(array.size for array in arrays) for arrays in waited]
""")
    assert answers["sizes"] == [[1, 2], [1], [1, 2], [1, 2], [1, 2], [1, 2], [1, 2]]


def test_a_wait_lasts_until_the_work_is_done() -> None:
    """What a callable sees after the wait is there."""
    answers = in_jax("""
work = jax.jit(lambda x: jax.lax.fori_loop(0, 200, lambda _, y: y @ y / 512, x))
result = work(jnp.ones((512, 512)))
runtime.wait({"result": result})
answers["ready"] = result.is_ready()
""")
    assert answers["ready"] is True


MACHINE = """
import dataclasses
shown = runtime.ceilings("cpu", "float32")
answers["again"] = runtime.ceilings("cpu", "float32") is shown
answers["ceilings"] = [dataclasses.asdict(runtime.ceilings("cpu", t)) for t in ("float32", "int8")]
answers["probes"] = runtime.probes("cpu")
compiled = runtime.compilations()
runtime.probes("cpu")
answers["compiled"] = runtime.compilations() - compiled
answers["peak"] = runtime.peak(lambda: jnp.ones(100), "cpu")
answers["opened"] = runtime.opened(lambda: "an engine", "cpu")
for device, dtype in (("cuda:0", "float32"), ("cpu", "int3")):
    try:
        runtime.ceilings(device, dtype)
    except Exception as problem:
        answers[device] = f"{type(problem).__name__}: {problem}"
runs = iter([9.0, 0.001, 0.002, 0.002, 0.002, 0.003, 0.004])
runtime._run_s = lambda *_: next(runs)
answers["median"] = runtime._matrix_products("cpu")
runs = iter([9.0, 0.5, 0.25, 0.25, 0.5, 1.0, 1.0])
answers["read"] = runtime._read_bandwidth("cpu")
"""


@pytest.fixture(scope="module", params=[1, 4])
def machine(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Ceilings and probes on one host device, and on the same host as four of them."""
    return {"devices": request.param} | in_jax(MACHINE, devices=request.param)


def test_ceilings_are_probed_once_a_process(machine: dict[str, Any]) -> None:
    """Above zero; the second question gets the first answer."""
    assert machine["again"] is True
    for shown in machine["ceilings"]:
        assert shown["bandwidth"] > 0
        assert shown["peak"] > 0


def test_probes_are_those_of_the_host_and_products(machine: dict[str, Any]) -> None:
    """Shown and not judged; the second time nothing is compiled."""
    names = ("interpreter_loop", "memory_copy", "matrix_products")
    assert set(machine["probes"]) == {f"machine_pace/{name}" for name in names}
    assert all(value > 0 for value in machine["probes"].values())
    assert not any(METRICS[name].gated for name in machine["probes"])
    assert machine["compiled"] == 0


def test_figures_follow_from_the_seconds_of_their_runs(machine: dict[str, Any]) -> None:
    """Products by the median run, on every device; reading by the best, of one host's memory."""
    assert machine["median"] == machine["devices"] * 2 * 384**3 / 0.002
    assert machine["read"] == 256 * 2**20 / 0.25


def test_what_is_not_there_is_refused(machine: dict[str, Any]) -> None:
    """Another device or type would have another ceiling."""
    assert machine["cuda:0"].startswith("EngineUnavailable: jax sees no cuda: ")
    assert "no products of dtype 'int3' are probed in jax; known: int8" in machine["cpu"]


def test_on_a_cpu_no_peak_is_made_up(machine: dict[str, Any]) -> None:
    """XLA's client keeps no account there, neither of a call nor of a load."""
    assert machine["peak"] is None
    assert machine["opened"] == ["an engine", None]


# An accelerator's account: what is in use, the highest so far, and no way to reset it.
PEAK = """
import numpy as np

class Chip:
    def __init__(self, in_use, peak, limit=1000):
        self.in_use, self.peak, self.limit = in_use, peak, limit
    def memory_stats(self):
        return {"bytes_in_use": self.in_use, "peak_bytes_in_use": self.peak}
    def take(self, size):
        if self.in_use + size > self.limit:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        self.in_use += size
        self.peak = max(self.peak, self.in_use)

class Filling:
    def __init__(self, size, dtype, device):
        self.nbytes, self.device = size, device
        device.take(size)
    def __del__(self):
        self.device.in_use -= self.nbytes

def measure(*chips, rise=50):
    runtime._devices = lambda name: list(chips)
    jax.block_until_ready = lambda array: array
    jnp.zeros = Filling
    def call():
        for chip in chips:
            chip.take(rise)
            chip.in_use -= rise
    found = runtime.peak(call, "tpu")
    return found and found.allocated

chip = Chip(100, 100)
answers["fresh"] = measure(chip), chip.in_use
chip = Chip(100, 400)
answers["loaded"] = measure(chip), chip.in_use
answers["again"] = measure(chip), chip.in_use
answers["nothing"] = measure(Chip(100, 400), rise=0)
answers["chips"] = measure(Chip(100, 400), Chip(300, 310))
chip = Chip(100, 980)
answers["full"] = measure(chip), chip.in_use
try:
    runtime._devices = lambda name: [Chip(100, 100)]
    runtime.peak(lambda: jax.jit(lambda: 1 / 0)(), "tpu")
except ZeroDivisionError as problem:
    answers["defect"] = str(problem)
"""


def test_an_old_peak_is_filled_up_so_that_a_new_one_shows() -> None:
    """100 bytes live and the call takes 50 more, however high the use once was."""
    answers = in_jax(PEAK)
    assert answers["fresh"] == [150, 100]
    assert answers["loaded"] == [150, 100]
    assert answers["again"] == [150, 100]
    assert answers["nothing"] == 100
    assert answers["chips"] == 350, "the fullest chip is what must fit"
    assert answers["full"] == [None, 100], "980 + 50 bytes do not fit into 1000"
    assert answers["defect"] == "division by zero"
