"""The decode step whose place is known to the device alone, so that a CUDA graph of it serves all.

Prefixes are attended to by flash attention, as ever. What sequences have of their own grows: the
Triton kernel reads its length on the device, and another joins the parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from engines.hydragen import kernels
from engines.hydragen.attention import Part, Prefixes, attend_prefixes
from engines.hydragen.graphs import captured

if TYPE_CHECKING:
    from engines.hydragen.engine import Hydragen, Own

Run = Callable[[], tuple[Tensor, ...]]


class DecodeOnDevice:
    """The step of one engine at its batch; graph=True records it anew when prompts lie elsewhere.

    Called with the newest tokens [B] and how many of a sequence's own are cached; gives the next
    tokens [B] and scores [B, V].
    """

    def __init__(self, engine: Hydragen, *, graph: bool) -> None:
        self._engine, self._graph = engine, graph
        self._tokens = torch.zeros(engine.batch, dtype=torch.int64, device=engine.device)
        self._place = torch.zeros(1, dtype=torch.int64, device=engine.device)
        self._starts = torch.zeros(1, dtype=torch.int64, device=engine.device)
        self._lies: object = None
        self._run: Run = self._step

    def __call__(self, tokens: Tensor, place: int) -> tuple[Tensor, ...]:
        """One more token for every sequence; must run under inference mode."""
        self._tokens.copy_(tokens)
        self._place.fill_(place)
        lies = self._engine.lies()
        if lies != self._lies:
            starts = torch.tensor(self._engine.starts, device=self._engine.device)
            self._starts, self._lies = starts, lies
            self._run = captured(self._step) if self._graph else self._step
        return self._run()

    def _step(self) -> tuple[Tensor, ...]:
        engine = self._engine
        lengths = (self._place + 1).to(torch.int32).expand(engine.batch).contiguous()

        def attend(cache: tuple[list[Prefixes], Own], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            above, own = cache
            own.keys.index_copy_(2, self._place, k)
            own.values.index_copy_(2, self._place, v)
            parts = [attend_prefixes(engine.attend, q, prefixes) for prefixes in above]
            mine = kernels.decode_attention(q, own.keys, own.values, lengths)
            return _joined([*parts, Part(*mine)])

        x = engine.decoder.layers(self._tokens.unsqueeze(1), self._rope(), engine.caches(), attend)
        scores = engine.decoder.scores(x.squeeze(1))
        return scores.argmax(-1), scores

    def _rope(self) -> Any:
        """Both cos and sin at this place of every sequence, or of all at once."""
        tables, places = (self._engine.cos, self._engine.sin), self._starts + self._place
        shape = (len(places), 1, 1, tables[0].shape[2])
        return tuple(table.index_select(0, places).view(shape) for table in tables)


def _joined(parts: Sequence[Part]) -> Tensor:
    if len(parts) == 1:
        return parts[0].out
    outs = torch.stack([part.out for part in parts])
    return kernels.combine(outs, torch.stack([part.lse for part in parts]))[0]
