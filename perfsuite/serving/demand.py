"""What a workload's requests are and when they are due, by its options; other prompts every time.

    dataset_file, tokenizer   ShareGPT's JSON and the folder of the tokenizer that counts it
    arrivals                  a specification, see `arrivals`; at once where there is none

Without a file the lengths are drawn from ShareGPT's published means, scaled to the workload. They
are drawn from a seed and are the same in every run; the token ids never are. So every process
measures the same work, and none finds another's prompts in a cache. A file's conversations are what
they are: each process takes them in the same order, and starts again where they end.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from random import SystemRandom

from perfsuite.errors import EngineUnavailable, OptionError, Void
from perfsuite.serving import conversation_lengths
from perfsuite.serving.arrivals import AT_ONCE, Arrivals, Schedule, specified
from perfsuite.serving.datasets import Dataset, LengthLimits, sharegpt
from perfsuite.serving.request import Request
from perfsuite.tokenization import CheckpointTokenizer
from perfsuite.workloads import Workload

VOCAB = 256  # token ids that every model has
_MOST_LOADS = 8  # of a file that is large enough: a load more, and its prompts come again


class Demand:
    """The requests of one process, load after load."""

    def __init__(self, workload: Workload, least: int) -> None:
        """`least` prompts are what a file has to have; Void where it can not be used."""
        self._workload, self._least = workload, least
        self._loads = 0
        self._tokenizer = ""
        self.spec = workload.option("arrivals") or AT_ONCE
        file = workload.option("dataset_file")
        self._dataset = self._read(Path(file)) if file else None
        self._prompts = cycle(self._dataset.requests) if self._dataset else iter(())
        self._taken = 0

    def requests(self, count: int) -> list[Request]:
        """The next ones, of other lengths in every load."""
        self._loads += 1
        self._taken += count
        asked = self._prompts if self._dataset else self._random()
        return [replace(next(asked), id=number) for number in range(count)]

    def arrivals(self, count: int) -> Arrivals:
        """When they are due; gaps that are drawn are others in every load, the same in every run.

        Void where a trace has fewer moments than there are requests.
        """
        try:
            found = specified(self.spec, count, seed=self._loads)
        except OptionError as problem:
            raise Void(str(problem)) from None
        if isinstance(found, Schedule) and len(found.times_s) < count:
            raise Void(
                f"{self.spec} has {len(found.times_s)} arrivals, the load has {count} requests:"
                " give a longer trace"
            )
        return found

    def config(self) -> dict[str, str]:
        """What is asked, for the configuration that a baseline keeps."""
        name = self._dataset.name if self._dataset else conversation_lengths.NAME
        told = {"dataset": name, "arrivals": self.arrivals(1).name}
        return told | ({"tokenizer": self._tokenizer} if self._tokenizer else {})

    def notes(self) -> list[str]:
        """Rows of a file that gave no prompt, and prompts that came more than once."""
        if self._dataset is None:
            return []
        again = self._taken > len(self._dataset.requests)
        return self._dataset.notes + (["prompts came more than once"] if again else [])

    def _read(self, file: Path) -> Dataset:
        longest_in, longest_out = self._workload.input_tokens, self._workload.output_tokens
        limits = LengthLimits(min(4, longest_in, longest_out), longest_in, longest_in + longest_out)
        try:
            tokenizer = CheckpointTokenizer(Path(self._workload.option("tokenizer") or ""))
            self._tokenizer = tokenizer.name

            def tokenize(text: str) -> tuple[int, ...]:
                return tuple(tokenizer.encode(text))

            most = _MOST_LOADS * self._least
            return sharegpt(file, self._least, 0, tokenize, limits, most=most)
        except (OptionError, EngineUnavailable) as problem:
            raise Void(str(problem)) from None

    def _random(self) -> Iterator[Request]:
        source, draw = random.Random(self._loads), SystemRandom().choices
        longest_in, longest_out = self._workload.input_tokens, self._workload.output_tokens
        while True:
            drawn = conversation_lengths.published(source)
            inputs, outputs = conversation_lengths.scaled(drawn, longest_in, longest_out)
            yield Request(0, tuple(draw(range(VOCAB), k=inputs)), outputs)
