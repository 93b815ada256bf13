"""One of several processes that run a model together, started by torchrun:

torchrun --nproc_per_node=2 -m tests.conformance.hydragen_ranks FOLDER DTYPE

Rank 0 writes the tokens and logits of a prefill and some decode steps to FOLDER.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch.distributed as distributed

from engines import checkpoint
from engines.hydragen.engine import Hydragen
from engines.hydragen.tensor_parallel import joined, part_of
from perfsuite.workloads.workload import Model

DECODES, BATCH = 4, 3
PREFIX = [7, 100, 3, 250, 9, 9, 42]


def main(folder: Path, dtype: str) -> None:
    distributed.init_process_group("gloo")
    rank, count = distributed.get_rank(), distributed.get_world_size()
    model = Model(**checkpoint.read_shape(folder))
    part = part_of(model, count)
    weights = checkpoint.read_files([folder / f"{rank}.safetensors"], part, folder)
    engine = Hydragen(
        part, batch=BATCH, shared_tokens=16, own_tokens=DECODES, weights=weights, dtype=dtype,
        joined=joined,
    )  # fmt: skip
    steps = [engine.prefill_shared(PREFIX, BATCH)]
    for _ in range(DECODES):
        steps.append(engine.decode(steps[-1]))
    if rank == 0:
        found = SimpleNamespace(
            tokens=np.stack([step.tokens.numpy() for step in steps], 1),
            logits=np.stack([step.logits() for step in steps], 1),
        )
        np.savez(folder / "found.npz", **vars(found))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
