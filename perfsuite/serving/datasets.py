"""What requests say: ShareGPT's file, or seeded token ids of given lengths.

ShareGPT's conversations are taken as JetStream's benchmark takes them: two turns at least, the
first one a human's, its text is the prompt and the length of the reply is what is asked for; the
limits are `JETSTREAM`'s. Unlike there, fewer prompts than asked is an error, and the conversations
are tokenised in a seeded order until there are enough, so that none is drawn twice.

Random token ids never repeat a prompt, but a seed does: a server with a prefix cache answers the
second run of one seed from its cache. Take another seed for every repetition, and for warming up.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perfsuite.errors import OptionError
from perfsuite.serving.request import Request

Tokenize = Callable[[str], tuple[int, ...]]

_NAMED = 3  # broken rows that a note names
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # JSON may spell one, and no tokenizer takes it


@dataclass(frozen=True)
class LengthLimits:
    """Which conversations are kept, in tokens: shorter or longer ones are left out."""

    least: int = 4  # of the prompt, and of the reply
    most_input: int = 1024
    most_total: int = 2048  # prompt and reply

    def refuses(self, inputs: int, outputs: int) -> str:
        """Why a conversation is left out, or ""."""
        if inputs < self.least or outputs < self.least:
            return f"under {self.least} tokens"
        if inputs > self.most_input:
            return f"prompt over {self.most_input} tokens"
        if inputs + outputs > self.most_total:
            return f"over {self.most_total} tokens in all"
        return ""


JETSTREAM = LengthLimits()  # benchmark_serving's defaults


@dataclass(frozen=True)
class Dataset:
    """Requests without arrivals, and what became of the rows that gave none."""

    name: str
    requests: tuple[Request, ...]
    broken: tuple[str, ...] = ()  # "row 17: no list of conversations", of the rows that were read
    left_out: dict[str, int] = field(default_factory=dict)  # reason -> rows

    @property
    def notes(self) -> list[str]:
        """One line each for broken rows and for those left out; empty where there were none."""
        lines = []
        if self.broken:
            named = [*self.broken[:_NAMED], *["..."] * (len(self.broken) > _NAMED)]
            lines.append(f"broken rows: {len(self.broken)} ({', '.join(named)})")
        if self.left_out:
            reasons = (f"{count} {reason}" for reason, count in sorted(self.left_out.items()))
            lines.append(f"left out: {', '.join(reasons)}")
        return lines


def sharegpt(
    file: Path,
    count: int,
    seed: int,
    tokenize: Tokenize,
    limits: LengthLimits = JETSTREAM,
    *,
    as_text: bool = False,
    most: int = 0,
) -> Dataset:
    """`count` requests of the conversations in ShareGPT's JSON file, in a seeded order.

    Up to `most`, if that is more and the file has them. Prompts are token ids, or text for
    endpoints that take nothing else. OptionError where the file can not be read, is no JSON list,
    or gives fewer prompts than asked.
    """
    _check_count(count)
    rows = _rows(file)
    order = random.Random(seed).sample(range(len(rows)), len(rows))
    drawn = _Drawn(tokenize, limits, as_text)
    for number in order:
        if len(drawn.requests) < max(count, most):
            drawn.take(number, rows[number])
    found = drawn.dataset(f"ShareGPT, {file.name}")
    if len(found.requests) < count:
        asked = f"{len(found.requests)} prompts of {len(rows)} rows, {count} were asked for"
        raise OptionError("\n".join([f"{file}: {asked}", *found.notes]))
    return found


class _Drawn:
    """What conversations became: requests, broken rows, rows that were left out."""

    def __init__(self, tokenize: Tokenize, limits: LengthLimits, as_text: bool) -> None:
        self._tokenize, self._limits, self._as_text = tokenize, limits, as_text
        self.requests: list[Request] = []
        self._broken: list[str] = []
        self._left_out: Counter[str] = Counter()

    def take(self, number: int, row: Any) -> None:
        """A row of the file, counted from 0."""
        try:
            prompt, reply = first_turns(row)
        except ValueError as wrong:
            self._broken.append(f"row {number + 1}: {wrong}")
            return
        tokens, outputs = self._tokenize(prompt), len(self._tokenize(reply))
        reason = self._limits.refuses(len(tokens), outputs) if reply else "not a human and a reply"
        if reason:
            self._left_out[reason] += 1
            return
        words = prompt if self._as_text else tokens
        self.requests.append(Request(len(self.requests), words, outputs))

    def dataset(self, name: str) -> Dataset:
        """All that was taken."""
        return Dataset(name, tuple(self.requests), tuple(self._broken), dict(self._left_out))


def first_turns(row: Any) -> tuple[str, str]:
    """(a human's first turn, the reply to it); the reply is "" where the row has no such pair.

    ValueError says what is broken about a row that is no conversation at all.
    """
    turns = row.get("conversations") if isinstance(row, dict) else None
    if not isinstance(turns, list):
        raise ValueError("no list of conversations")
    for number, turn in enumerate(turns[:2], start=1):
        texts = (turn.get("from"), turn.get("value")) if isinstance(turn, dict) else (None,)
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f"turn {number} has no text in `from` and `value`")
        if any(_LONE_SURROGATE.search(str(text)) for text in texts):
            raise ValueError(f"turn {number} holds half of a character, a lone surrogate")
    if len(turns) < 2 or turns[0]["from"] != "human":
        return "", ""
    return turns[0]["value"], turns[1]["value"]


def _rows(file: Path) -> list[Any]:
    try:
        rows = json.loads(file.read_bytes())
    except OSError as error:
        raise OptionError(f"{file}: {error.strerror}; expected ShareGPT's JSON file") from None
    except (ValueError, RecursionError) as error:
        raise OptionError(f"{file} is no JSON: {error}") from None
    if not isinstance(rows, list):
        raise OptionError(f"{file} holds a {type(rows).__name__}, expected a list of conversations")
    return rows


def fixed(count: int, inputs: int, outputs: int, vocab: int, seed: int) -> Dataset:
    """Every prompt has `inputs` random token ids, every answer `outputs` tokens."""
    lengths = ((inputs, outputs) for _ in range(count))
    return _random(f"fixed lengths, {inputs} in, {outputs} out", count, lengths, vocab, seed)


def uniform(
    count: int, inputs: tuple[int, int], outputs: tuple[int, int], vocab: int, seed: int
) -> Dataset:
    """Both lengths are drawn evenly between two bounds, which may be reached."""
    source = random.Random(seed)
    lengths = ((source.randint(*inputs), source.randint(*outputs)) for _ in range(count))
    name = f"random lengths, {inputs[0]} to {inputs[1]} in, {outputs[0]} to {outputs[1]} out"
    return _random(name, count, lengths, vocab, seed)


@dataclass(frozen=True)
class LogNormal:
    """Lengths with a long tail: `mean` tokens, the logarithm has the standard deviation `sigma`.

    The median is mean * exp(-sigma ** 2 / 2). What is drawn beyond a `LengthLimits` is drawn again,
    as a filter would leave it out, which makes the mean of what is kept smaller.
    """

    mean: float
    sigma: float

    def drawn(self, source: random.Random) -> int:
        """One length."""
        return round(source.lognormvariate(math.log(self.mean) - self.sigma**2 / 2, self.sigma))


def synthetic(
    count: int,
    inputs: LogNormal,
    outputs: LogNormal,
    vocab: int,
    seed: int,
    limits: LengthLimits = JETSTREAM,
) -> Dataset:
    """Random token ids with the lengths of conversations, within the limits of a real dataset."""
    name = (
        f"log-normal lengths, mean {inputs.mean:g} in, {outputs.mean:g} out,"
        f" {limits.least} to {limits.most_input} in, {limits.most_total} in all"
    )
    lengths = _within(limits, inputs, outputs, random.Random(seed))
    return _random(name, count, lengths, vocab, seed)


_MOST_DRAWS = 1000  # for one pair of lengths; more means that the limits refuse nearly all


def _within(
    limits: LengthLimits, inputs: LogNormal, outputs: LogNormal, source: random.Random
) -> Iterator[tuple[int, int]]:
    while True:
        draws = ((inputs.drawn(source), outputs.drawn(source)) for _ in range(_MOST_DRAWS))
        pair = next((pair for pair in draws if not limits.refuses(*pair)), None)
        if pair is None:
            raise OptionError(f"{_MOST_DRAWS} draws of {inputs} and {outputs} all break {limits}")
        yield pair


def shared_prefix(
    count: int, prefix: int, suffix: int, outputs: int, vocab: int, seed: int, prefixes: int = 1
) -> Dataset:
    """Prompts of a prefix that several have in common and a suffix of their own.

    Prefixes take turns, so that count / prefixes requests share each.
    """
    _check_count(count)
    source = random.Random(seed)
    heads = [_ids(source, prefix, vocab) for _ in range(prefixes)]
    prompts = (heads[number % prefixes] + _ids(source, suffix, vocab) for number in range(count))
    requests = tuple(Request(number, prompt, outputs) for number, prompt in enumerate(prompts))
    name = f"{prefixes} shared prefixes of {prefix}, {suffix} of their own, {outputs} out"
    return Dataset(name, requests)


def _random(
    name: str, count: int, lengths: Iterator[tuple[int, int]], vocab: int, seed: int
) -> Dataset:
    _check_count(count)
    source = random.Random(f"ids {seed}")  # other numbers than those that drew the lengths
    pairs = (next(lengths) for _ in range(count))
    requests = (
        Request(number, _ids(source, inputs, vocab), outputs)
        for number, (inputs, outputs) in enumerate(pairs)
    )
    return Dataset(name, tuple(requests))


def _ids(source: random.Random, length: int, vocab: int) -> tuple[int, ...]:
    if length < 1 or vocab < 1:
        raise OptionError(f"a prompt of {length} tokens of {vocab}: expected one of each at least")
    return tuple(source.choices(range(vocab), k=length))


def _check_count(count: int) -> None:
    if count < 1:
        raise OptionError(f"{count} prompts were asked for: expected one at least")
