"""The static tier of JAX programs: small decode steps compiled for TPU slices without a TPU.

Needs jax and libtpu, no TPU. Figures are compared with arithmetic, planted regressions with the
program that has none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jax", reason="needs jax")
pytest.importorskip("libtpu", reason="needs libtpu")

from perfsuite.errors import OptionError, Void
from perfsuite.metrics import METRICS, refusal
from perfsuite.static import compiled, facts_of, kept_facts, xla
from perfsuite.static.compiled import Compiled
from perfsuite.static.slices import SLICES
from perfsuite.static.topology import Target, target

PEAK = "static_peak_memory/compiled_hbm"
ALIASED = "static_aliased/compiled_hbm"
TRAFFIC = "static_traffic/compiled_hbm"
OPERATIONS = "static_operations/compiled_matrix_products"
BATCH, HEADS, TOKENS, DIM = 64, 16, 8192, 128  # 256 MiB a chip: beyond the on-chip memory
WIDTH = HEADS * DIM
CACHE = BATCH * HEADS * TOKENS * DIM * 2  # bytes of all chips


@dataclass
class Program:
    jitted: Any
    arguments: tuple[Any, ...]
    weights_bytes: float = 0.0
    cache_bytes: float = 0.0
    name: str = "decode"


@pytest.fixture(autouse=True)
def own_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is kept from one test to the next."""
    monkeypatch.setattr(kept_facts, "lock_folder", lambda: tmp_path)


@pytest.fixture(scope="module")
def v5e() -> Target:
    return target("v5e-8")


def step(params: Any, cache: Any, x: Any, position: Any, gathered: Any = None) -> Any:
    """One attention layer of one token: project, write the cache, read it, project back."""
    import jax
    import jax.numpy as jnp

    q = (x @ params["q"]).reshape(BATCH, HEADS, DIM)
    cache = jax.lax.dynamic_update_slice(cache, q[:, :, None], (0, 0, position, 0))
    read = jax.lax.with_sharding_constraint(cache, gathered) if gathered is not None else cache
    weights = jax.nn.softmax(jnp.einsum("bhd,bhtd->bht", q, read).astype(jnp.float32))
    mixed = jnp.einsum("bht,bhtd->bhd", weights.astype(x.dtype), read)
    return mixed.reshape(BATCH, WIDTH) @ params["o"], cache


def program(
    on: Target,
    *,
    donate: bool = True,
    gather: bool = False,
) -> Program:
    """The step on heads sharded over all chips, with what is planted."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(np.array(on.devices), ("model",))

    def place(*axes: str | None) -> Any:
        return NamedSharding(mesh, PartitionSpec(*axes))

    def array(shape: tuple[int, ...], dtype: str, *axes: str | None) -> Any:
        return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype), sharding=place(*axes))

    def run(params: Any, cache: Any, x: Any, position: Any) -> Any:
        return step(params, cache, x, position, gathered=place() if gather else None)

    of_cache = place(None, "model", None, None)
    arguments = (
        {
            "q": array((WIDTH, WIDTH), "bfloat16", None, "model"),
            "o": array((WIDTH, WIDTH), "bfloat16", "model", None),
        },
        array((BATCH, HEADS, TOKENS, DIM), "bfloat16", None, "model", None, None),
        array((BATCH, WIDTH), "bfloat16"),
        array((), "int32"),
    )
    jitted = jax.jit(run, donate_argnums=(1,) if donate else (), out_shardings=(place(), of_cache))
    chips = len(on.devices)
    return Program(jitted, arguments, 2 * WIDTH * WIDTH * 2 / chips, CACHE / chips)


def test_a_step_on_eight_chips_is_counted_by_hand(v5e: Target) -> None:
    """Held and moved are weights and cache with little besides; operations are exact."""
    figures = facts_of(program(v5e), "jax", v5e)

    assert figures["static_peak_share/weights_and_cache"] == pytest.approx(1, abs=0.03)
    assert figures[ALIASED] == CACHE / 8
    # the cache is read twice, once for the scores and once for the sum
    reads = (2 * CACHE + 2 * WIDTH * WIDTH * 2) / 8
    assert figures[TRAFFIC] == pytest.approx(reads, rel=0.03)
    products = 2 * BATCH * WIDTH * WIDTH * 2 + 2 * BATCH * HEADS * TOKENS * DIM * 2
    assert figures[OPERATIONS] == products / 8


def test_every_figure_is_a_metric_and_can_be_one(v5e: Target) -> None:
    """No value is refused, zero temporaries and absent collectives included."""
    figures = facts_of(program(v5e), "jax", v5e)
    assert set(figures) <= set(METRICS)
    assert not [refusal(METRICS[name], value) for name, value in figures.items()
                if refusal(METRICS[name], value)]  # fmt: skip
    assert figures["static_all_to_all/count"] == 0


def ratios(bad: Compiled, good: Compiled, *names: str) -> list[float]:
    return [bad.figures[name] / good.figures[name] for name in names]


def test_a_cache_that_is_copied_is_named(v5e: Target) -> None:
    """Held twice, moved twice more, and the argument has a name."""
    good = compiled(program(v5e), "jax", v5e)
    bad = compiled(program(v5e, donate=False), "jax", v5e)

    peak, traffic = ratios(bad, good, PEAK, TRAFFIC)
    assert peak == pytest.approx(2, abs=0.1)
    assert traffic > 1.8
    assert "argument copied" not in good.words
    assert bad.words["argument copied"] == "cache bf16[64,2,8192,128], 268.4 MB"
    assert bad.words["largest temporary"] == "copy bf16[64,2,8192,128] of cache, 268.4 MB"


def test_a_gathered_cache_is_named(v5e: Target) -> None:
    """The whole cache travels to every chip."""
    good = compiled(program(v5e), "jax", v5e)
    bad = compiled(program(v5e, gather=True), "jax", v5e)

    gathered = "static_all_gather/bytes"
    assert bad.figures[gathered] - good.figures[gathered] >= CACHE
    assert bad.words["largest collective"].startswith("all-gather bf16[64,16,8192,128]")


@pytest.mark.parametrize("weights", ["int8", "bfloat16"])
def test_a_product_reads_its_weights_once(v5e: Target, weights: str) -> None:
    """As they are held: int8 ones at half the bytes, widened on the chip."""
    found = compiled(product(v5e, weights), "jax", v5e)

    size = 1 if weights == "int8" else 2
    assert found.figures[TRAFFIC] == pytest.approx(2048 * 65536 * size, rel=0.07)
    assert "argument widened" not in found.words


def test_a_widened_weight_is_named(v5e: Target) -> None:
    """int8 weights that are written again as bfloat16 before they are used: 1 + 2 + 2 for 1."""
    good = compiled(product(v5e, "int8"), "jax", v5e)
    bad = compiled(product(v5e, "int8", widen=True), "jax", v5e)

    assert bad.words["argument widened"] == "w s8[2048,65536] to bf16, 268.4 MB"
    peak, traffic = ratios(bad, good, PEAK, TRAFFIC)
    assert peak > 2.5
    assert traffic > 4


def product(on: Target, weights: str, *, widen: bool = False) -> Program:
    """Weights [2048, 65536] a chip, too large for the memory on it."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(np.array(on.devices), ("model",))
    columns = NamedSharding(mesh, PartitionSpec(None, "model"))
    whole = NamedSharding(mesh, PartitionSpec())

    def run(x: Any, w: Any) -> Any:
        wide = w.astype(jnp.bfloat16)
        return x @ (jax.lax.optimization_barrier(wide) if widen else wide)

    arguments = (
        jax.ShapeDtypeStruct((8, 2048), jnp.bfloat16, sharding=whole),
        jax.ShapeDtypeStruct((2048, 8 * 65536), jnp.dtype(weights), sharding=columns),
    )
    return Program(jax.jit(run, out_shardings=columns), arguments)


def written(cache: Any, row: Any, place: Any) -> Any:
    import jax

    return jax.lax.dynamic_update_slice(cache, row, (0, 0, place, 0))


def layers(weights: Any, x: Any) -> Any:
    import jax

    return jax.lax.scan(lambda x, w: ((x @ w).astype(x.dtype), None), x, weights)[0]


CACHE_SHAPE = (64, 32, 2048, 128)
ROW = 64 * 32 * 128 * 2


@pytest.mark.parametrize(
    ("function", "shapes", "donated", "known"),
    [
        (written, [CACHE_SHAPE, (64, 32, 1, 128), ()], (0,), 2 * ROW),
        (written, [CACHE_SHAPE, (64, 32, 1, 128), ()], (), 2 * ROW * 2048 + 2 * ROW),
        (lambda c, p: c[:, :, :256].sum(2) + p, [CACHE_SHAPE, ()], (), 257 * ROW),
        (lambda table, rows: table[rows], [(2**20, 512), (4096,)], (), 4096 * (2 * 1024 + 4)),
        (layers, [(12, 8192, 8192), (64, 8192)], (), 2 * (12 * 8192**2 + 2 * 64 * 8192)),
    ],
    ids=["update in place", "update of a copy", "slice", "gather", "loop"],
)
def test_traffic_is_what_arithmetic_says(
    function: Any, shapes: list[tuple[int, ...]], donated: tuple[int, ...], known: int
) -> None:
    """On one chip, in programs of which nothing fits on it."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import SingleDeviceSharding

    one = target("v5e-1")
    place = SingleDeviceSharding(one.devices[0])
    types = {0: jnp.int32, 1: jnp.int32}  # positions and rows; all else is bfloat16
    arguments = tuple(
        jax.ShapeDtypeStruct(shape, types.get(len(shape), jnp.bfloat16), sharding=place)
        for shape in shapes
    )
    figures = facts_of(Program(jax.jit(function, donate_argnums=donated), arguments), "jax", one)
    assert figures[TRAFFIC] == pytest.approx(known, rel=0.01)


def test_what_does_not_fit_says_what_takes_the_memory(v5e: Target) -> None:
    """Needed, available, and the copies of the cache that are the reason."""
    jitted, arguments = _large(v5e)
    with pytest.raises(Void) as refused:
        facts_of(Program(jitted, arguments, 0, 11 * 2**30), "jax", v5e)
    text = str(refused.value)
    assert text.startswith("decode does not fit v5e-8: 2")
    assert "15.75 GiB available; weights and cache are 11.00 GiB" in text
    assert "largest beside the arguments: copy bf16[11,1024,1024,512] of cache, 11.81 GB" in text
    assert "cache" in text
    assert len(text.splitlines()) == 2


def _large(on: Target) -> tuple[Any, tuple[Any, ...]]:
    """A cache of 11 GiB a chip that is written and not donated."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    place = NamedSharding(Mesh(np.array(on.devices), ("model",)), PartitionSpec("model"))
    shape = jax.ShapeDtypeStruct((8 * 11, 1024, 1024, 512), jnp.bfloat16, sharding=place)

    def write(cache: Any) -> Any:
        return cache.at[:, 3].set(1)

    return jax.jit(write, out_shardings=place), (shape,)


def test_a_batch_that_does_not_divide_is_one_line(v5e: Target) -> None:
    """In JAX's own words, cut short."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    place = NamedSharding(Mesh(np.array(v5e.devices), ("model",)), PartitionSpec("model"))

    shape = jax.ShapeDtypeStruct((12, 128), jnp.float32, sharding=place)
    with pytest.raises(Void) as refused:
        facts_of(Program(jax.jit(lambda x: x + 1), (shape,)), "jax", v5e)
    assert "the dimension size is 12" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("name", list(SLICES))
def test_every_slice_compiles(name: str) -> None:
    """As many devices as its name stands for, and the step on them."""
    on = target(name)
    assert len(on.devices) == SLICES[name].devices
    figures = facts_of(program(on), "jax", on)
    assert figures["static_peak_share/weights_and_cache"] == pytest.approx(1, abs=0.05)


def test_an_unknown_slice_names_the_known() -> None:
    """Before jax is asked."""
    with pytest.raises(OptionError, match="unknown TPU slice 'v9-8'; known: v4-8, v5e-1, v5e-8"):
        target("v9-8")


def test_a_second_run_compiles_nothing(v5e: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """Facts and words come from the file, and another toolchain does not find them."""
    first = compiled(program(v5e), "jax", v5e)
    monkeypatch.setattr(xla, "_compile", lambda *_: pytest.fail("compiled again"))
    assert compiled(program(v5e), "jax", v5e) == first
    monkeypatch.setattr(xla, "toolchain", lambda: "jax 9")
    with pytest.raises(pytest.fail.Exception, match="compiled again"):
        compiled(program(v5e), "jax", v5e)


def test_options_of_the_compiler_are_part_of_the_key(v5e: Target) -> None:
    """They are not in what is lowered; a program compiled with others has other facts."""
    import jax

    plain = program(v5e)
    options = {"xla_tpu_enable_latency_hiding_scheduler": "true"}
    optioned = replace(plain, jitted=jax.jit(plain.jitted.__wrapped__, compiler_options=options))
    again = replace(plain, jitted=jax.jit(plain.jitted.__wrapped__))
    keys = [xla._key(*xla._lowered(one, v5e), v5e) for one in (again, optioned)]
    assert None not in keys
    assert keys[0] != keys[1]
