"""JAX's explanations, as JAX 0.10.2 words them, and what is told of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from perfsuite.runtimes.cache_misses import Change, read_miss

STATIC = "<class 'jax._src.tree_util.Static'> with pytree metadata Static(val={})"
ENGINE = """
import jax
from functools import partial

@partial(jax.jit, static_argnames=("request", "length"))
def decode(tokens, cache, request, length=1):
    return tokens

class Engine:
    def _step(self, tokens, count):
        return tokens

    @jax.jit
    def method(self, tokens):
        return tokens
"""


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """A source file with jitted functions at lines 5, 10 and 13."""
    path = tmp_path / "engine.py"
    path.write_text(ENGINE)
    return path


def differs(function: str, *lines: str) -> str:
    """An explanation that compares with the closest earlier call."""
    return "\n".join(
        [
            "TRACING CACHE MISS at /home/engine.py:31:8 (main):",
            f"  for {function}",
            "  all previously seen cache keys differ. For the closest previous key:",
            *lines,
        ]
    )


def static(path: str, now: str, before: str) -> str:
    """A static argument that changed."""
    return (
        f"  different input pytree:\n  * at input path {path}, now {STATIC.format(now)} and before"
        f" {STATIC.format(before)}, so the pytree node metadata does not match"
    )


def told(text: str) -> str:
    """One line for people."""
    miss = read_miss(text)
    assert miss is not None
    return str(miss)


def test_a_static_argument_by_keyword_has_its_name() -> None:
    """JetStream's issue 228: an identifier of the request."""
    text = differs("decode defined at /home/engine.py:5", static("[1]['request']", "'b'", "'a'"))
    assert told(text) == "decode (engine.py:5): request was 'a', now 'b'"


@pytest.mark.parametrize(
    ("function", "line", "path", "name"),
    [
        ("decode", 5, "[0][2]", "request"),
        ("decode", 5, "[0][3]", "length"),
        ("decode", 5, "[0][9]", "argument 9"),  # more than the source has
        ("decode", 6, "[0][2]", "request"),  # its own line, below the decorator's
        ("decode", 99, "[0][2]", "argument 2"),  # the source has changed since
        ("_step", 10, "[0][1]", "count"),  # bound: its self is no argument
        ("method", 13, "[0][1]", "tokens"),  # decorated: its self is one
        ("<lambda>", 5, "[0][1]", "argument 1"),
    ],
)
def test_a_positional_argument_is_named_by_the_source(
    engine: Path, function: str, line: int, path: str, name: str
) -> None:
    """JAX says where it stands only."""
    text = differs(f"{function} defined at {engine}:{line}", static(path, "3", "2"))
    assert told(text) == f"{function} (engine.py:{line}): {name} was 2, now 3"


@pytest.mark.parametrize("source", [None, "def decode(:", b"\xff\xfe"])
def test_without_a_source_the_place_is_told(tmp_path: Path, source: str | bytes | None) -> None:
    """The file is gone, is no Python, or no text."""
    path = tmp_path / "gone.py"
    if source is not None:
        path.write_bytes(source if isinstance(source, bytes) else source.encode())
    text = differs(f"decode defined at {path}:5", static("[0][2]['id']", "3", "2"))
    assert told(text) == "decode (gone.py:5): argument 2['id'] was 2, now 3"


def test_shapes_and_types_have_the_arguments_names() -> None:
    """Several at once; what a sharding leaves unsaid and the address of a manual are left out."""
    text = differs(
        "decode defined at /home/engine.py:5",
        "  different input types:",
        "  * at tokens, now i32[5] and before i32[4]",
        "  * at cache['k'], now f32[]({}){weak_type=True} and before f32[]({}){weak_type=False}"
        "https://docs.jax.dev/en/latest/type_promotion.html#weak-types",
    )
    miss = read_miss(text)
    assert miss is not None
    assert miss.changes == (
        Change("tokens", "i32[4]", "i32[5]"),
        Change("cache['k']", "f32[]{weak_type=False}", "f32[]{weak_type=True}"),
    )


def test_a_setting_of_jax_that_changed_is_named() -> None:
    """A context manager around one of the calls."""
    text = differs(
        "decode defined at /home/engine.py:5",
        "  Tracing context doesn't match, e.g. due to config or context manager.",
        "  * jax_default_matmul_precision differs: now float32 and before None",
    )
    assert told(text).endswith(": jax_default_matmul_precision was None, now float32")


def test_a_tree_of_another_shape_is_told_in_jaxs_words() -> None:
    """No static value to show."""
    text = differs(
        "decode defined at /home/engine.py:5",
        "  different input pytree:\n  * at input path [1]['cache'], now <class 'dict'> with 2"
        " children and before <class 'dict'> with 1 child, so the numbers of children do not match",
    )
    assert told(text).endswith(
        ": cache was <class 'dict'> with 1 child, now <class 'dict'> with 2 children"
    )


NEVER = "TRACING CACHE MISS at /e.py:9 (main):\n  never seen function:\n    decode id=14{}"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (NEVER.format(" defined at /e.py:5"), "decode (e.py:5): it had not run before"),
        (NEVER.format(""), "decode: it had not run before"),
        (
            NEVER.format(" defined at /e.py:5")
            + "\n  but seen another function defined on the same line; maybe the function is\n"
            "  being re-defined repeatedly, preventing caching?",
            "decode (e.py:5): a new function object for every call",
        ),
        (differs("decode", "  cache miss explanation unavailable"), "decode: JAX gives no reason"),
        (differs("decode", "  * something else"), "decode: something else"),
    ],
)
def test_without_a_changed_argument_the_reason_is_told(text: str, line: str) -> None:
    """First run, defined anew, or nothing that JAX can say."""
    assert told(text) == line


def test_another_text_is_no_miss() -> None:
    """Words of a JAX that explains otherwise."""
    assert read_miss("") is None
    assert read_miss("Finished tracing + transforming decode for jit in 0.1 sec") is None


def test_long_values_are_cut_and_lines_joined() -> None:
    """One line whatever the value's representation."""
    text = differs(
        "decode defined at /home/engine.py:5",
        static("[1]['table']", "'" + "x" * 100 + "'", "array([1,\n   2])"),
    )
    line = told(text)
    assert "table was array([1, 2]), now 'xxx" in line
    assert line.endswith("xxx...")
    assert "\n" not in line


def test_misses_of_one_cause_differ_in_values_only() -> None:
    """So that a hundred identifiers are one line."""
    first, second = (
        read_miss(differs("decode", static("[1]['request']", now, "'a'"))) for now in ("1", "2")
    )
    other = read_miss(differs("decode", static("[1]['length']", "1", "'a'")))
    assert first is not None
    assert second is not None
    assert other is not None
    assert first != second
    assert first.cause == second.cause != other.cause
