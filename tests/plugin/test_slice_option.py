"""--perf-device=tpu and --perf-slice: full-size programs gated on a machine without a TPU.

The program is one product with a cache that is written in place; what is planted is read from a
file, as the losses of measured tests are.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import Any

import pytest

from perfsuite.devices import Device, absence

needs_libtpu = pytest.mark.skipif(
    find_spec("jax") is None or find_spec("libtpu") is None, reason="needs jax and libtpu"
)
pytestmark = pytest.mark.skipif(absence(Device("tpu")) is None, reason="a TPU is attached here")

_OFFER = """
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PLANTED = json.loads(Path(__file__).with_name("planted.json").read_text())


@dataclass
class Program:
    name: str
    jitted: Any
    arguments: Any
    weights_bytes: float
    cache_bytes: float


class Offer:
    name, framework = "small", "jax"

    def refuses(self, workload, device):
        return None if device == "tpu" else "for TPUs only"

    def open(self, workload, device):
        raise AssertionError("nothing is measured here")

    def programs(self, workload, target):
        import jax
        import jax.numpy as jnp
        import numpy as np
        from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

        chips = PLANTED.get("chips") or len(target.devices)
        mesh = Mesh(np.array(target.devices).reshape(chips), ("x",))
        rows = NamedSharding(mesh, P("x"))

        columns = NamedSharding(mesh, P(None, "x"))

        def step(cache, x, w):
            cache = cache.at[:, 3].set(x)
            read = cache
            if PLANTED.get("gathered"):
                read = jax.lax.with_sharding_constraint(cache, NamedSharding(mesh, P()))
            wide = w.astype(x.dtype)
            if PLANTED.get("widened"):
                wide = jax.lax.optimization_barrier(wide)
            return cache, jnp.einsum("bte,be->bt", read, x), x @ wide

        size = PLANTED.get("size", 8192)
        cache = jax.ShapeDtypeStruct((8 * 16, size, 1024), jnp.bfloat16, sharding=rows)
        x = jax.ShapeDtypeStruct((8 * 16, 1024), jnp.bfloat16, sharding=rows)
        w = jax.ShapeDtypeStruct((1024, chips * 131072), jnp.int8, sharding=columns)
        donated = () if PLANTED.get("copied") else (0,)
        places = rows, rows, columns
        jitted = jax.jit(step, donate_argnums=donated, out_shardings=places)
        held = 1024 * 131072, 8 * 16 * size * 2048 / chips
        return [Program("decode", jitted, (cache, x, w), *held)]
"""

_CONFTEST = """
import pytest
from small import Offer

@pytest.hookimpl(optionalhook=True)
def pytest_perf_engines(config):
    return [Offer()]
"""

_TEST = """
import pytest

@pytest.mark.perf(workloads="jetstream-*-bf16-b96-c2048")
def test_row(perf, perf_engine, perf_workload):
    perf(perf_engine, perf_workload)
"""

WORKLOAD = "jetstream-llama2_7b-v5e_8-bf16-b96-c2048"
NAME = f"test_row[{WORKLOAD}-small-static]"
ON_TPU = ("--perf-device=tpu", "-k", "llama2_7b")


@pytest.fixture
def rows(project: Any) -> Any:
    """Two of the documents' TPU rows on a small program, nothing planted."""
    project.write("small.py", _OFFER)
    project.write("test_it.py", _TEST)
    project.conftest(_CONFTEST)
    plant(project)
    return project


def plant(project: Any, **what: Any) -> None:
    project.write("planted.json", json.dumps(what))


@needs_libtpu
def test_a_machine_without_a_tpu_gates_compiled_facts(rows: Any) -> None:
    """Recorded in the slice's folder, the same in a second run; what is measured is skipped."""
    first = rows.perf(*ON_TPU, "--perf-save", "-rs")
    assert first.ret == 0
    first.assert_outcomes(passed=1, skipped=1, deselected=2)
    first.stdout.fnmatch_lines(["SKIPPED * no TPU is attached to this machine"])
    assert "WARNING: could not" not in first.stdout.str() + first.stderr.str()
    assert (rows.path / "baselines" / "tpu-v5e-8" / "jetstream.json").exists() or list(
        (rows.path / "baselines" / "tpu-v5e-8").glob("*.json")
    )

    second = rows.perf(*ON_TPU)
    assert second.ret == 0
    result = rows.results[NAME]
    assert result["machine"] == "tpu-v5e-8"
    assert "libtpu" in result["toolchain"]
    verdicts = {row["figure"]: row["verdict"] for row in result["rows"]}
    assert verdicts["static_peak_memory/compiled_hbm@decode"] == "SAME"
    assert verdicts["static_traffic/compiled_hbm@decode"] == "SAME"
    assert verdicts["static_traffic/xla_bytes_accessed@decode"] == "SHOWN"


@needs_libtpu
def test_what_is_planted_is_red_and_named(rows: Any) -> None:
    """A copied cache, a gathered one, a widened weight: the message says which array it is."""
    assert rows.perf(*ON_TPU, "--perf-save").ret == 0
    for what, figure, words in (
        (
            "copied",
            "static_peak_memory/compiled_hbm",
            "decode: argument copied absent -> cache bf16",
        ),
        ("gathered", "static_all_gather/bytes", "-> all-gather bf16[[]128,8192,1024[]]"),
        (
            "widened",
            "static_traffic/compiled_hbm",
            "decode: argument widened absent -> w s8[[]1024,131072[]]",
        ),
    ):
        plant(rows, **{what: True})
        worse = rows.perf(*ON_TPU)

        worse.assert_outcomes(failed=1, skipped=1, deselected=2)
        worse.stdout.fnmatch_lines(
            ["WORSE: *(decode)*", f"*changed since: *{words}*",
             "to accept: pytest --perf --perf-device=tpu *"]
        )  # fmt: skip
        verdicts = {row["figure"]: row["verdict"] for row in rows.results[NAME]["rows"]}
        assert verdicts[f"{figure}@decode"] == "WORSE", what


@needs_libtpu
def test_another_slice_has_a_folder_of_its_own(rows: Any) -> None:
    """By --perf-slice or the ini; the test's id says which where it is not the document's."""
    assert rows.perf(*ON_TPU, "--perf-slice=v6e-8", "--perf-save").ret == 0
    assert list(rows.results) == [NAME.replace("static]", "static-v6e-8]")]
    assert rows.report["results"][0]["machine"] == "tpu-v6e-8"

    rows.write("pytest.ini", "[pytest]\nperf_slice = v6e-8\n")
    assert rows.perf(*ON_TPU).ret == 0


@needs_libtpu
def test_a_row_on_its_own_slice_is_not_gone_from_another(rows: Any) -> None:
    """One of the document's rows is for a single chip, where a plain run looks for it."""
    both = _TEST.replace("*-bf16-b96-c2048", "gemma_*-bf16-b*")
    rows.write("test_it.py", both)
    assert rows.perf("--perf-device=tpu", "--perf-slice=v5e-8", "--perf-save").ret == 0
    assert {saved["machine"] for saved in rows.report["results"]} == {"tpu-v5e-8"}
    assert "gemma_2b-v5e_1" in " ".join(rows.results)

    rows.perf("--perf-device=tpu").stdout.no_fnmatch_line("GONE: *")
    assert rows.report["gone"] == []


@needs_libtpu
def test_two_processes_compile_side_by_side(rows: Any) -> None:
    """-n 2 gives both rows their libtpu; a row that is no longer there is gone."""
    done = rows.perf("--perf-device=tpu", "-n", "2", "--perf-save")
    assert done.ret == 0
    done.assert_outcomes(passed=2, skipped=2)

    rows.write("test_it.py", _TEST.replace("jetstream-*-bf16", "jetstream-llama*-bf16"))
    rows.perf("--perf-device=tpu").stdout.fnmatch_lines(
        ["GONE: *jetstream-gemma_7b*static (*tpu-v5e-8*) has no test any more"]
    )


@needs_libtpu
@pytest.mark.parametrize(
    ("planted", "line"),
    [
        ({"size": 8192 * 70}, "VOID: decode does not fit v5e-8: *GiB a chip needed, 15.75 GiB*"),
        ({"chips": 9}, "VOID: small has no program for v5e-8: *"),
    ],
)
def test_what_can_not_be_compiled_is_void_in_a_few_lines(
    rows: Any, planted: dict[str, int], line: str
) -> None:
    """Without a traceback."""
    plant(rows, **planted)
    done = rows.perf(*ON_TPU)
    assert done.ret == 1
    done.stdout.fnmatch_lines([line])
    assert "Traceback" not in done.stdout.str()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--perf-device=cpu", "--perf-slice=v5e-8"), "no effect without --perf-device=tpu"),
        (("--perf-device=tpu", "--perf-slice=v9-8"), "unknown TPU slice 'v9-8'; known: v4-8, v5e"),
        (("--perf-device=tpu", "--perf-slice="), "unknown TPU slice ''; known: v4-8, v5e-1"),
    ],
)
def test_a_slice_that_can_not_be_meant_is_refused(
    rows: Any, options: tuple[str, ...], words: str
) -> None:
    """Before anything is collected."""
    refused = rows.perf(*options)
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines([f"ERROR: *{words}*"])


def test_without_a_compiler_it_says_what_to_install(rows: Any) -> None:
    """In one line, before anything is measured."""
    rows.conftest("import sys\nsys.modules['libtpu'] = None\n" + _CONFTEST)
    refused = rows.perf(*ON_TPU)
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["ERROR: *libtpu not installed*pip install 'perfsuite[[]tpu[]]'*"])


def test_a_row_that_no_program_could_fit_is_skipped_with_its_arithmetic(rows: Any) -> None:
    """Gemma 2B at batch 1024 on one chip, as the document prints it; on eight it is compiled."""
    rows.write("test_it.py", _TEST.replace("b96", "b1024"))
    skipped = rows.perf("--perf-device=tpu", "-rs", "-k", "static")
    assert skipped.ret == 1  # nothing was compared
    skipped.stdout.fnmatch_lines(
        ["SKIPPED * impossible as printed: *need 43.7 GB, v5e-1 has 1 x 16.9 GB"]
    )
