"""Other people's engines by name: `--engine=openai` at a URL, `--engine=vllm` in process.

Nothing of theirs is imported before one of them is named. A server's model is its own: of a
workload only the lengths, the number of prompts and the arrivals are taken, and the configuration
says which model answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from perfsuite.errors import EngineUnavailable, OptionError
from perfsuite.workloads import Workload

OPENAI, VLLM = "openai", "vllm"
NAMES = (OPENAI,)


@dataclass(frozen=True)
class Server:
    """A server at a URL; the engine of a workload of the kind "serving"."""

    url: str
    config: dict[str, Any] = field(default_factory=dict)

    def adapter(self) -> Any:
        """A client of its own."""
        from perfsuite.adapters.openai import OpenAI

        return OpenAI(self.url)

    def close(self) -> None:
        """It was running before."""


@dataclass(frozen=True)
class EndpointOffer:
    """An OpenAI-compatible server that is running."""

    url: str
    name: str = OPENAI
    framework: str = ""
    default: bool = False

    def refuses(self, workload: Workload, device: str) -> str | None:  # noqa: ARG002 - the server's
        """Everything but requests: a server shows no prefill and no step."""
        return None if workload.kind == "serving" else f"a server answers no {workload.kind}"

    def open(self, workload: Workload, device: str) -> Server:  # noqa: ARG002 - the server's
        """The server, asked for its model; EngineUnavailable where none answers."""
        model = asyncio.run(_model(self.url))
        return Server(self.url, {"endpoint": self.url, "model": model})


def offers(url: str, engines: Sequence[str]) -> list[Any]:
    """The offers of a run that names these engines; OptionError for one without the other."""
    return _in_process(engines) + _endpoints(url, engines)


def _in_process(engines: Sequence[str]) -> list[Any]:
    if VLLM not in engines:
        return []
    if len(engines) > 1:
        raise OptionError(
            "--engine=vllm binds the threads of its process: measure it in a run of its own"
        )
    if find_spec("vllm") is None:
        raise EngineUnavailable("--engine=vllm: vllm is not installed in this environment")
    from perfsuite.adapters.vllm import VllmOffer

    return [VllmOffer()]


def _endpoints(url: str, engines: Sequence[str]) -> list[Any]:
    named = [name for name in NAMES if name in engines]
    if named and not url:
        raise OptionError(f"--engine={named[0]} needs --perf-endpoint=URL, the server to measure")
    if url and not named:
        raise OptionError(f"--perf-endpoint has no effect without --engine={' or '.join(NAMES)}")
    return [EndpointOffer(url)] if url else []


async def _model(url: str) -> str:
    from perfsuite.adapters.openai import OpenAI

    client = OpenAI(url)
    await client.open()
    await client.close()
    return client.model
