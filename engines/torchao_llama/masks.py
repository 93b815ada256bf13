"""Which places of the cache a decoded token may see: every row of the mask held, or one.

C cache length. A row is [C] bool, True where the cache may be read. Prompts need none: their
attention operator is causal by itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engines.torchao_llama.plan import Plan


class DenseMask:
    """All rows, [C, C] bool: what the document's baseline holds, C * C bytes."""

    def __init__(self, tokens: int, device: str) -> None:
        self.held = torch.ones((tokens, tokens), dtype=torch.bool, device=device).tril_()

    def start(self, time: int) -> None:
        """A new prompt of `time` tokens changes nothing."""

    def rewind(self, position: int) -> None:
        """An older step changes nothing."""

    def row(self, position: Tensor) -> Tensor:
        """For the token at position [1]: the places up to its own."""
        return self.held.index_select(0, position).squeeze(0)


class LinearMask:
    """One row, [C] bool, to which every step adds a place: the document's `linear_causal_mask`.

    The original never clears it, so a later prompt sees places that an earlier one left behind.
    """

    def __init__(self, tokens: int, device: str) -> None:
        self.held = torch.zeros(tokens, dtype=torch.bool, device=device)
        self._shown = 0  # places that are True, from the first on

    def start(self, time: int) -> None:
        """A new prompt of `time` tokens: its places and no others."""
        self.held.fill_(False)
        self.held.narrow(0, 0, time).fill_(True)
        self._shown = time

    def rewind(self, position: int) -> None:
        """Hide what an earlier continuation left at this position and behind it."""
        if position < self._shown:
            self.held.narrow(0, position, self._shown - position).fill_(False)
        self._shown = position + 1

    def row(self, position: Tensor) -> Tensor:
        """For the token at position [1], which is shown from now on."""
        return self.held.index_fill_(0, position, True)


def mask_for(plan: Plan, tokens: int, device: str) -> DenseMask | LinearMask:
    """The mask of a plan for a cache of so many tokens."""
    return LinearMask(tokens, device) if plan.linear_mask else DenseMask(tokens, device)
