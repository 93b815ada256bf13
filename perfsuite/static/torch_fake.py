"""A torch program under fake tensors: what it holds, computes and moves, at full size, at no cost.

Fake tensors have shapes and devices but no memory. A dispatch mode sees every operator, follows
the storages that are alive, and counts. Views share a storage and move nothing. The allocator's
rounding and an operator's own workspace are not in these figures.
"""

from __future__ import annotations

import weakref
from functools import cache
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from perfsuite.errors import Void
from perfsuite.protocols import Program

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


def _attention_operations(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> int:
    """Two products of every query with every key, masked ones included, as torch counts it.

    query [batch, heads, queries, dim], key and value [batch, kv heads, keys, dim]
    """
    batch, heads, queries, dim = query.shape
    return 2 * batch * heads * queries * key.shape[2] * (dim + value.shape[3])


class Ledger(TorchDispatchMode):
    """Live bytes, their peak, and what the dispatched operators compute and move."""

    def __init__(self) -> None:
        super().__init__()
        self.live_bytes = self.peak_bytes = 0
        self.operations = self.traffic_bytes = self.operators = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name in _FICTION:
            raise Void(f"{name} in a static program: call the attention operator by name")
        if _is_composite(func):
            with self:  # what a device runs are the parts
                return func.decompose(*args, **kwargs)
        out = func(*args, **kwargs)
        results = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        if not func.is_view:
            operands = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
            self._count(func, args, kwargs, out, operands, results)
        for tensor in results:
            self._follow(tensor)
        return out

    def start_over(self) -> None:
        """Keep what is alive; forget what was counted and take the peak from here."""
        self.peak_bytes = self.live_bytes
        self.operations = self.traffic_bytes = self.operators = 0

    def _count(
        self, func: Any, args: Any, kwargs: Any, out: Any, operands: list[Any], results: list[Any]
    ) -> None:
        self.operators += 1
        self.traffic_bytes += sum(t.numel() * t.element_size() for t in [*operands, *results])
        formula = flop_registry.get(func.overloadpacket)
        if func.overloadpacket is _CPU_FLASH:
            self.operations += _attention_operations(*args[:3])
        elif formula is not None:
            self.operations += int(formula(*args, **kwargs, out_val=out))

    def _follow(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        identity = storage._cdata
        if identity in self._alive:
            return
        size = storage.nbytes()
        self._alive.add(identity)
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        weakref.finalize(storage, self._gone, identity, size)

    def _gone(self, identity: int, size: int) -> None:
        self._alive.discard(identity)
        self.live_bytes -= size


def facts(program: Program, target: str) -> dict[str, float]:
    """The figures of one program on `cpu` or `cuda`; no data is allocated."""
    ledger = Ledger()
    with FakeTensorMode(allow_non_fake_inputs=False), torch.inference_mode(), ledger:
        call = program.make()
        loaded = ledger.live_bytes
        ledger.start_over()
        result = call()
        peak = ledger.peak_bytes
        del result, call
    return {
        "static_peak_memory/live_tensors": peak,
        "static_loaded_memory/weights_and_cache": loaded,
        "static_operations/matrix_products": ledger.operations,
        "static_traffic/operands_and_results": ledger.traffic_bytes,
        "static_operators/dispatched": ledger.operators,
    }
