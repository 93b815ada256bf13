"""A call recorded as a CUDA graph: the host launches one thing in place of hundreds of kernels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def captured(call: Callable[[], tuple[Tensor, ...]]) -> Callable[[], tuple[Tensor, ...]]:
    """`call`, which waits for nothing and reads and writes the same memory every time, recorded.

    It runs once before, on a stream beside, so that what is only done the first time (compiling,
    loading, choosing) is not in the record. Results are copied out of the graph's memory.
    """
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        call()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = call()

    def replay() -> tuple[Tensor, ...]:
        graph.replay()
        return tuple(result.clone() for result in results)

    return replay
