"""What a torch program holds at its peak, by kind: as figures, and in words that name tensors.

The words are kept beside the baseline, so that a failure names the tensors that changed. Tensors
of the same place in every layer share a word, and those below a mebibyte have none.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from perfsuite.metrics import in_unit
from perfsuite.static.alive import ACTIVATIONS, WORTH_A_WORD, Storage

_JUDGED = ("weights", "cache", "mask", ACTIVATIONS)


def figures(there: Sequence[Storage]) -> dict[str, float]:
    """Bytes of each kind that is judged; 0 where there is none, so that a new one is a loss.

    A program that names nothing has activations alone.
    """
    sums = Counter[str]()
    for storage in there:
        sums[storage.kind] += storage.bytes
    kinds = _JUDGED if any(storage.name for storage in there) else (ACTIVATIONS,)
    return {f"static_at_peak/{kind}": float(sums[kind]) for kind in kinds}


def words(there: Sequence[Storage]) -> dict[str, str]:
    """The largest tensor, the largest activation, and what was named, by place.

    Sorted by name, the order of a message: a long one is cut, and the largest tensor comes first.
    """
    groups = defaultdict[str, list[Storage]](list)
    for storage in there:
        if storage.name:
            groups[re.sub(r"(?<=\.)\d+(?=\.|$)", "*", storage.name)].append(storage)
    found = {
        "at the peak": _largest(there),
        "largest activation": _largest([s for s in there if s.kind == ACTIVATIONS]),
    }
    large = {name: group for name, group in groups.items() if _bytes(group) >= WORTH_A_WORD}
    found |= {name: _group(group) for name, group in large.items()}
    return {name: text for name, text in found.items() if text}


def _largest(storages: Sequence[Storage]) -> str:
    """`mask bool[131072,131072], 17.18 GB`."""
    most = max(storages, key=lambda s: s.bytes, default=None)
    if most is None or most.bytes < WORTH_A_WORD:
        return ""
    words = f"{most.name} {most.text}" if most.name else f"{most.text} of {most.made_by}"
    return f"{words}, {in_unit('bytes', most.bytes)}"


def _group(group: Sequence[Storage]) -> str:
    """`32 int8[4096,14336], 1.879 GB`; odd ones out with the first one's name."""
    alike = defaultdict[str, list[Storage]](list)
    for storage in group:
        alike[storage.text].append(storage)
    usual, *odd = sorted(alike.values(), key=len, reverse=True)
    parts = [_counted(usual), *(f"{_counted(same)} ({same[0].name})" for same in odd)]
    return f"{' and '.join(parts)}, {in_unit('bytes', _bytes(group))}"


def _counted(alike: Sequence[Storage]) -> str:
    return f"{len(alike)} {alike[0].text}" if len(alike) > 1 else alike[0].text


def _bytes(group: Sequence[Storage]) -> int:
    return sum(storage.bytes for storage in group)
