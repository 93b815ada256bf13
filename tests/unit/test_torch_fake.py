"""The static tier of torch programs: hand-computed figures of programs that hold no data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from perfsuite.errors import EngineUnavailable, Void  # noqa: E402
from perfsuite.runtimes import resident  # noqa: E402
from perfsuite.static import facts_of  # noqa: E402

PEAK = "static_peak_memory/live_tensors"
LOADED = "static_loaded_memory/weights_and_cache"
OPERATIONS = "static_operations/matrix_products"
TRAFFIC = "static_traffic/operands_and_results"
OPERATORS = "static_operators/dispatched"


@dataclass
class Program:
    make: Callable[[], Callable[[], object]]
    name: str = "decode"


def product(target: str, rows: int = 2) -> Program:
    """Multiply x [rows, 8] by w [8, 4] in float32."""

    def make() -> Callable[[], object]:
        w, x = torch.empty(8, 4, device=target), torch.empty(rows, 8, device=target)
        return lambda: x @ w

    return Program(make)


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_a_product_is_counted_by_hand(target: str) -> None:
    """Loaded are x and w, the peak adds the result, the traffic is all three once."""
    found = facts_of(product(target), "torch", target)
    assert found[LOADED] == 4 * (8 * 4 + 2 * 8)
    assert found[PEAK] == found[LOADED] + 4 * 2 * 4
    assert found[OPERATIONS] == 2 * 2 * 8 * 4
    assert found[TRAFFIC] == 4 * (8 * 4 + 2 * 8 + 2 * 4)
    assert found[OPERATORS] == 1


def test_a_composite_operator_is_counted_by_its_parts() -> None:
    """A linear layer is a transposed view, which moves nothing, and a product."""

    def make() -> Callable[[], object]:
        x, w = torch.empty(2, 8), torch.empty(4, 8)
        return lambda: torch.nn.functional.linear(x, w)

    found = facts_of(Program(make), "torch", "cpu")
    assert found[OPERATIONS] == 2 * 2 * 8 * 4
    assert found[TRAFFIC] == 4 * (2 * 8 + 4 * 8 + 2 * 4)


def test_what_is_freed_leaves_the_peak() -> None:
    """Two temporaries one after the other peak at one, held together at both."""

    def one_by_one() -> None:
        for _ in range(2):
            torch.empty(1000)

    def together() -> object:
        return [torch.empty(1000) for _ in range(2)]

    peaks = [
        facts_of(Program(lambda call=call: call), "torch", "cpu")[PEAK]
        for call in (one_by_one, together)
    ]
    assert peaks == [4000, 8000]


def test_a_view_holds_nothing_and_moves_nothing() -> None:
    """Reshapes and slices of a tensor share its storage."""

    def make() -> Callable[[], object]:
        x = torch.empty(10, 10)
        return lambda: x.view(100).narrow(0, 5, 50)

    found = facts_of(Program(make), "torch", "cpu")
    assert (found[PEAK], found[TRAFFIC], found[OPERATORS]) == (400, 0, 0)


def test_attention_by_name_is_counted_with_all_its_pairs() -> None:
    """Two products of 3 queries with 5 keys for each of 4 heads of size 8."""

    def make() -> Callable[[], object]:
        q = torch.empty(1, 4, 3, 8)
        k, v = torch.empty(1, 4, 5, 8), torch.empty(1, 4, 5, 8)
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return lambda: flash(q, k, v)

    assert facts_of(Program(make), "torch", "cpu")[OPERATIONS] == 2 * 2 * 4 * 3 * 5 * 8


def test_math_attention_is_refused() -> None:
    """Its score matrix is memory that no device would spend."""

    def make() -> Callable[[], object]:
        q = torch.empty(1, 4, 3, 8, device="cuda")
        return lambda: torch.ops.aten._scaled_dot_product_attention_math(q, q, q)

    with pytest.raises(Void, match="_scaled_dot_product_attention_math in a static program"):
        facts_of(Program(make), "torch", "cuda")


def test_a_program_of_a_terabyte_takes_no_memory() -> None:
    """The resident peak moves by far less than the program holds."""
    if not resident.reset_peak():
        pytest.skip("the kernel does not let the resident peak be reset")
    before = resident.peak_bytes()
    found = facts_of(product("cuda", rows=2**35), "torch", "cuda")
    after = resident.peak_bytes()
    assert found[PEAK] > 1e12
    assert before is not None
    assert after is not None
    assert after - before < 200e6


def test_an_unknown_framework_is_refused() -> None:
    """Nothing is compiled for a framework that no static module knows."""
    with pytest.raises(EngineUnavailable, match="no static tier knows mine programs"):
        facts_of(product("cpu"), "mine", "cpu")
