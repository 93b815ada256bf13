"""Other people's engines by name: `openai` and `jetstream_grpc` at a URL, `vllm` in process.

Nothing of theirs is imported before one of them is named. A server's model is its own: of a
workload only the lengths, the number of prompts and the arrivals are taken, and the configuration
says which model answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from perfsuite.adapters import Adapter
from perfsuite.errors import EngineUnavailable, OptionError
from perfsuite.workloads import Workload

OPENAI, JETSTREAM, VLLM = "openai", "jetstream_grpc", "vllm"
NAMES = (OPENAI, JETSTREAM)
# The class of each, by module and name, and the extra that has its libraries.
_CLIENTS = {
    OPENAI: ("perfsuite.adapters.openai", "OpenAI", "serving"),
    JETSTREAM: ("perfsuite.adapters.jetstream", "JetStream", "jetstream"),
}


def client(name: str, url: str) -> Any:
    """A client of the server at that URL, not open; EngineUnavailable without its extra."""
    module, kind, extra = _CLIENTS[name]
    try:
        return getattr(import_module(module), kind)(url)
    except ModuleNotFoundError as missing:
        raise EngineUnavailable(
            f"--engine={name} needs {missing.name}, which is not installed\n"
            f"pip install 'perfsuite[{extra}]'"
        ) from None


@dataclass(frozen=True)
class Server:
    """A server at a URL; the engine of a workload of the kind "serving"."""

    name: str
    url: str
    config: dict[str, Any] = field(default_factory=dict)

    def adapter(self) -> Adapter:
        """A client of its own."""
        found: Adapter = client(self.name, self.url)
        return found

    def close(self) -> None:
        """It was running before."""


@dataclass(frozen=True)
class EndpointOffer:
    """A server that is running and speaks what `name` says."""

    name: str
    url: str
    framework: str = ""
    default: bool = False

    def refuses(self, workload: Workload, device: str) -> str | None:  # noqa: ARG002 - the server's
        """Everything but requests: a server shows no prefill and no step."""
        return None if workload.kind == "serving" else f"a server answers no {workload.kind}"

    def open(self, workload: Workload, device: str) -> Server:  # noqa: ARG002 - the server's
        """The server, asked for its model; EngineUnavailable where none answers."""
        model = asyncio.run(_model(self.name, self.url))
        return Server(self.name, self.url, {"endpoint": self.url, "model": model})


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
    if len(named) > 1:
        raise OptionError(
            f"--perf-endpoint is one server, --engine={','.join(named)} are two ways to ask it\n"
            "measure them in runs of their own"
        )
    return [EndpointOffer(name, url) for name in named]


async def _model(name: str, url: str) -> str:
    asked = client(name, url)
    await asked.open()
    await asked.close()
    return str(asked.model)
