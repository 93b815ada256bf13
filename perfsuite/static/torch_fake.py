"""A torch program under fake tensors: what it holds, computes and moves, at full size, at no cost.

Fake tensors have shapes and devices but no memory. A dispatch mode sees every operator, follows
the storages that are alive, and counts. Views share a storage and move nothing. An operator on a
subclass that wraps other tensors is what the subclass makes of it. The allocator's rounding and an
operator's own workspace are not in these figures.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass_type
from torch.utils.flop_counter import flop_registry

from perfsuite.errors import Void
from perfsuite.protocols import Program
from perfsuite.static import at_peak, recompiles
from perfsuite.static.alive import Alive, tensors
from perfsuite.static.compiled import Compiled
from perfsuite.static.least_traffic import LeastTraffic
from perfsuite.static.own_errors import result_of
from perfsuite.static.place import Place

# Math attention materialises the whole score matrix, which no device would spend: its peak would
# be fiction.
_FICTION = {"_scaled_dot_product_attention_math", "_scaled_dot_product_attention_math_for_mps"}


@cache
def _is_composite(func: Any) -> bool:
    """Whether the framework itself runs this operator as a sequence of others."""
    if func.namespace == "prim":  # asks for a device or a layout, runs nothing
        return False
    key = "CompositeImplicitAutograd"
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key)


_CPU_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu

# Products with weights of few bits, of which torch has no formula: x [.., K] by w [K, N].
_PACKED_PRODUCTS = {
    "_int_mm",
    "_weight_int4pack_mm",
    "_weight_int4pack_mm_for_cpu",
    "_weight_int4pack_mm_with_scales_and_zeros",
    "_weight_int8pack_mm",
}


def _attention_operations(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> int:
    """Two products of every query with every key, masked ones included, as torch counts it.

    query [batch, heads, queries, dim], key and value [batch, kv heads, keys, dim]
    """
    batch, heads, queries, dim = query.shape
    return 2 * batch * heads * queries * key.shape[2] * (dim + value.shape[3])


def _operations(operator: Any, args: Any, kwargs: Any, out: Any) -> int:
    if operator is _CPU_FLASH:
        return _attention_operations(*args[:3])
    if operator.__name__ in _PACKED_PRODUCTS:
        return 2 * int(args[0].numel() * out.shape[-1])
    formula = flop_registry.get(operator)
    return 0 if formula is None else int(formula(*args, **kwargs, out_val=out))


class Ledger(TorchDispatchMode):
    """What is alive, and what the dispatched operators compute and move."""

    def __init__(self, place: Callable[[], str]) -> None:
        super().__init__()
        self.alive = Alive(place)
        self.start_over()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name in _FICTION:
            raise Void(f"{name} in a static program: call the attention operator by name")
        if any(map(_is_wrapper, types)):
            return NotImplemented  # its own dispatch comes next, and its operators come back here
        if _is_composite(func):
            with self:  # what a device runs are the parts
                return func.decompose(*args, **kwargs)
        out = func(*args, **kwargs)
        results = list(tensors(out))
        if not func.is_view and func.namespace != "prim":  # prim asks, and runs nothing
            self._count(func, args, kwargs, out, results)
        for tensor in results:
            self.alive.follow(tensor, name)
        return out

    def start_over(self) -> None:
        """Keep what is alive; forget what was counted and take the peak from here."""
        self.alive.start_over()
        self.operations = self.traffic_bytes = self.operators = 0
        self.least = LeastTraffic()

    def _count(self, func: Any, args: Any, kwargs: Any, out: Any, results: list[Any]) -> None:
        self.operators += 1
        self.traffic_bytes += sum(t.numel() * t.element_size() for t in results)
        for tensor, written, most in self.least.operands(func, args, kwargs, results):
            self.traffic_bytes += tensor.numel() * tensor.element_size()
            self.least.moved(self.alive.follow(tensor), tensor, written, most)
        self.operations += _operations(func.overloadpacket, args, kwargs, out)


@cache
def _is_wrapper(kind: type) -> bool:
    return is_traceable_wrapper_subclass_type(kind)


def facts(program: Program, target: str) -> Compiled:
    """The figures of one program on `cpu` or `cuda`; no data is allocated.

    Raises Void, which names the program, for one that can not be built or run.
    """
    with FakeTensorMode(allow_non_fake_inputs=False), torch.inference_mode():
        with Place() as place, Ledger(place) as ledger:
            call = result_of(program, "make()", program.make)
            _name(program, ledger.alive)
            loaded = ledger.alive.bytes
            ledger.start_over()
            result = result_of(program, "the call", call)
            figures = _figures(ledger)
            there = ledger.alive.at_peak()
            del result
        traced = recompiles.facts(program)
        del call
    figures["static_loaded_memory/weights_and_cache"] = loaded
    return Compiled(
        {**figures, **at_peak.figures(there), **traced.figures},
        {**at_peak.words(there), **traced.words},
    )


def _name(program: Program, alive: Alive) -> None:
    held = getattr(program, "held", None)
    if held is None:
        alive.classed("loaded")
    else:
        result_of(program, "held()", lambda: alive.named(held()))


def _figures(ledger: Ledger) -> dict[str, float]:
    """With the results of the call still held."""
    return {
        "static_peak_memory/live_tensors": ledger.alive.peak_bytes,
        "static_operations/matrix_products": ledger.operations,
        "static_traffic/operands_and_results": ledger.traffic_bytes,
        "static_traffic/at_least": ledger.least.bytes + ledger.alive.made(),
        "static_operators/dispatched": ledger.operators,
    }
