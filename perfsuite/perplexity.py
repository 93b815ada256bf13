"""How well a checkpoint predicts a text through the engine that is measured: its perplexity.

Random weights predict nothing, so only `--perf-model` has one, of the text of `--perf-text`.
"""

from __future__ import annotations

import math
from hashlib import sha256
from pathlib import Path
from typing import Any

from perfsuite.errors import EngineUnavailable, Void
from perfsuite.metrics import metric, refusal
from perfsuite.sampling import Block
from perfsuite.tokenization import CheckpointTokenizer
from perfsuite.workloads import Workload

METRIC = "perplexity/teacher_forced"
MOST_TOKENS = 512  # of each sequence; each is a step of the engine
_KINDS = ("generate", "single_user")  # a batch of one shape from the first prefill on


def has_perplexity(offer: Any, workload: Workload) -> bool:
    """Whether an offer can be asked for it on this workload."""
    asked = hasattr(offer, "negative_log_likelihood") and workload.kind in _KINDS
    return asked and workload.model.checkpoint is not None


def perplexity(
    offer: Any, engine: Any, workload: Workload, file: Path
) -> tuple[Block, dict[str, str]]:
    """The figure, named after the tokens that it is of, and the text in words.

    So another text, or another tokenizer, is another figure and never compared with this one. It is
    e to the mean of -ln p of each token of the text but the first of each sequence, p the engine's
    for it given those before. Sequences read the text one after the other. Raises Void where the
    text can not be read, is too short, or the engine gives what can not be a figure.
    """
    stream, words = _stream(workload, file)
    try:
        loss = float(offer.negative_log_likelihood(engine, stream))
    except Exception as problem:
        raise Void(
            f"{offer.name}: negative_log_likelihood raised {type(problem).__name__}: {problem}"
        ) from problem
    if loss < 0:
        raise Void(f"{offer.name}: a loss of {loss:g} nats a token: no token is so likely")
    found = math.exp(loss) if not loss > 700 else math.inf  # e to more is no float
    if reason := refusal(metric(METRIC), found):
        raise Void(f"{offer.name}: {reason}")
    return {f"{METRIC}@text-{_digest(stream)}": found}, {"perplexity": words}


def _digest(stream: list[list[int]]) -> str:
    return sha256(repr(stream).encode()).hexdigest()[:6]


def _stream(workload: Workload, file: Path) -> tuple[list[list[int]], str]:
    """Token ids [B, T] from the start of a text, and what they are in words."""
    assert workload.model.checkpoint is not None
    rows = workload.batch
    length = min(MOST_TOKENS, workload.cache_tokens or workload.sequence_tokens)
    try:
        text = file.read_text(encoding="utf-8")
        tokens = CheckpointTokenizer(Path(workload.model.checkpoint))
    except (OSError, UnicodeDecodeError) as problem:
        raise Void(f"--perf-text {file}: cannot read it as UTF-8: {problem}") from None
    except EngineUnavailable as missing:
        raise Void(str(missing)) from None
    ids = tokens.encode(text[: rows * length * _CHARACTERS])[: rows * length]
    if len(ids) < rows * length:
        raise Void(
            f"--perf-text {file}: {len(ids)} tokens, expected {rows} x {length}: give a longer text"
        )
    words = f"{file.name}, {rows} x {length} tokens, {tokens.name}"
    return [ids[row * length : (row + 1) * length] for row in range(rows)], words


_CHARACTERS = 64  # of a text that are read for a token: more than any tokenizer makes one of
